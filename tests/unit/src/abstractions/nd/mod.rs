// SPDX-License-Identifier: GPL-2.0

//! Devices of libnvdimm, and a region that records its flushes.

mod bus;

use super::block::Bio;
use crate::device;
use crate::prelude::{CStr, Result, EIO};
use shuttle::rand::{thread_rng, Rng};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

pub(crate) use bus::BusToChange;

/// A namespace.
pub(crate) struct Device<Ctx> {
    device: device::Device<Ctx>,
    region: &'static Region,
}

impl<Ctx> Device<Ctx> {
    pub(crate) fn new(region: &'static Region) -> Self {
        Self {
            device: device::Device::default(),
            region,
        }
    }

    pub(crate) fn region(&self) -> &Region {
        self.region
    }

    pub(crate) fn send_change(&self, _variable: &CStr) {}
}

impl<Ctx> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        &self.device
    }
}

/// A region whose flushes take time, and fail at random.
#[derive(Default)]
pub(crate) struct Region {
    clock: AtomicU64,
    /// The times of the start and the end of each flush, and its result.
    flushes: Mutex<Vec<(u64, u64, Result)>>,
    under_way: AtomicU64,
    pub(super) bus: bus::State,
}

impl Region {
    /// Returns the time, which is another one at each call.
    pub(crate) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_synchronous(&self) -> bool {
        false
    }

    pub(crate) fn flush(&self) -> Result {
        assert_eq!(
            self.under_way.swap(1, Ordering::Relaxed),
            0,
            "two flushes at once"
        );
        let result = self.serve();

        self.under_way.store(0, Ordering::Relaxed);
        result
    }

    /// Returns whether a flush is under way that is for no bio of its own.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) != 0
    }

    /// One flush of the provider.
    fn serve(&self) -> Result {
        let start = self.now();

        shuttle::thread::yield_now();
        let result = match thread_rng().gen_range(0..4) {
            0 => Err(EIO),
            _ => Ok(()),
        };
        let flush = (start, self.now(), result);

        self.flushes.lock().expect("no panic").push(flush);
        result
    }

    pub(crate) fn flush_then_end(&self, bio: Bio<'_>) {
        bio.end(self.serve());
    }

    pub(crate) fn flushes(&self) -> usize {
        self.flushes.lock().expect("no panic").len()
    }

    /// Returns whether the newest flush has failed.
    pub(crate) fn has_failed(&self) -> bool {
        let flushes = self.flushes.lock().expect("no panic");

        flushes.last().is_some_and(|(.., result)| result.is_err())
    }

    /// Fails unless one flush started after a request had arrived, has ended, and had this result.
    pub(crate) fn check(&self, arrived: u64, result: Result) {
        let flushes = self.flushes.lock().expect("no panic");
        let serves = |(start, _, its): &(u64, u64, Result)| *start > arrived && *its == result;

        assert!(
            flushes.iter().any(serves),
            "arrived at {arrived}, {result:?}: {flushes:?}"
        );
    }
}
