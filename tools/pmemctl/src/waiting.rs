// SPDX-License-Identifier: GPL-2.0

//! Calls that may not return, because they wait for a server or for another process.
//!
//! They are made in threads, which can't be ended while the kernel waits.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The time that a file system has to answer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

/// The highest number of calls that this process waits for.
const HUNG: usize = 8;

/// The keys of calls that have not returned.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<BTreeSet<String>>);

/// Those of this process.
pub(crate) static CALLS: Calls = Calls(Mutex::new(BTreeSet::new()));

/// A call that has not returned, until it is dropped.
#[derive(Debug)]
pub(crate) struct Call {
    of: &'static Calls,
    key: String,
}

impl Calls {
    fn keys(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether there are too many to make others.
    pub(crate) fn is_full(&self) -> bool {
        self.keys().len() >= HUNG
    }

    /// Adds a call; `None` if one of this key has not returned, or if there are too many.
    pub(crate) fn begin(&'static self, key: &str) -> Option<Call> {
        let mut keys = self.keys();
        let is_new = keys.len() < HUNG && keys.insert(key.to_owned());
        is_new.then(|| Call {
            of: self,
            key: key.to_owned(),
        })
    }

    /// Runs `ask` in a thread of its own; returns `None` if that takes longer than `limit`. While a thread waits for a `key`,
    /// no other is started for it.
    pub(crate) fn within<T: Send + 'static>(
        &'static self,
        key: &str,
        limit: Duration,
        ask: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let call = self.begin(key)?;
        let (sender, answer) = mpsc::channel();
        let thread = move || {
            let answer = ask();
            drop(call);
            // Nobody listens after the limit.
            let _ = sender.send(answer);
        };
        thread::Builder::new().spawn(thread).ok()?;
        answer.recv_timeout(limit).ok()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.of.keys().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Calls of a test alone.
    fn none() -> &'static Calls {
        Box::leak(Box::default())
    }

    #[test]
    fn call_that_hangs_costs_one_deadline() {
        let calls = none();
        let (release, hung) = mpsc::channel::<()>();
        let start = Instant::now();
        let limit = Duration::from_millis(100);
        let answer = calls.within("hung", limit, move || hung.recv().is_ok());
        assert_eq!(answer, None);
        assert!(start.elapsed() < Duration::from_secs(10));
        let long = Duration::from_secs(60);
        assert_eq!(calls.within("hung", long, || true), None);
        assert_eq!(calls.within("other", long, || 7), Some(7));
        drop(release);
        while calls.keys().contains("hung") {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(calls.within("hung", long, || true), Some(true));
    }

    #[test]
    fn calls_that_hang_are_limited() {
        let calls = none();
        let begin = |number: usize| calls.begin(&number.to_string());
        let others: Vec<_> = (0..HUNG).map(|number| begin(number).unwrap()).collect();
        assert!(calls.is_full() && begin(HUNG).is_none());
        let answer = calls.within("one more", Duration::from_secs(60), || true);
        assert_eq!(answer, None);
        drop(others);
        assert!(!calls.is_full() && begin(HUNG).is_some());
    }
}
