// SPDX-License-Identifier: GPL-2.0

//! A child process that ends with its owner.

use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A child process. Dropping it kills it. Its process id can't be another process's, because only this type waits for it.
#[derive(Debug)]
pub(crate) struct Process(Mutex<Child>);

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self(Mutex::new(child))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Returns how it ended, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        match self.child().try_wait() {
            Ok(Some(status)) => Some(status.to_string()),
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    /// Waits until it has ended. Returns whether that was within `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.ended().is_none() {
            if start.elapsed() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
