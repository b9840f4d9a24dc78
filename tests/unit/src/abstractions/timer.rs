// SPDX-License-Identifier: GPL-2.0

//! A timer that expires for some operations.

use crate::prelude::{Result, GFP_KERNEL};
use crate::sync::Arc;
use crate::time::Delta;
use shuttle::rand::{thread_rng, Rng};

pub(crate) trait Late: Send + Sync {
    fn late(&self);
}

pub(crate) struct Watchdog<L> {
    late: L,
}

impl<L: Late> Watchdog<L> {
    pub(crate) fn new(late: L) -> Result<Arc<Self>> {
        Arc::new(Self { late }, GFP_KERNEL)
    }

    pub(crate) fn watch<T>(this: &Arc<Self>, _limit: Delta, operation: impl FnOnce() -> T) -> T {
        if thread_rng().gen_range(0..4) == 0 {
            this.late.late();
        }
        operation()
    }

    pub(crate) fn late(&self) -> &L {
        &self.late
    }
}
