// SPDX-License-Identifier: GPL-2.0

//! A timer that expires for some operations.

use crate::prelude::{Result, GFP_KERNEL};
use crate::sync::Arc;
use crate::time::Delta;
use shuttle::rand::{thread_rng, Rng};

pub(crate) trait SlowHandler: Send + Sync {
    fn slow(&self);
}

pub(crate) struct Watchdog<H> {
    handler: H,
}

impl<H: SlowHandler> Watchdog<H> {
    pub(crate) fn new(handler: H) -> Result<Arc<Self>> {
        Arc::new(Self { handler }, GFP_KERNEL)
    }

    pub(crate) fn watch<T>(this: &Arc<Self>, _limit: Delta, operation: impl FnOnce() -> T) -> T {
        if thread_rng().gen_range(0..4) == 0 {
            this.handler.slow();
        }
        operation()
    }

    pub(crate) fn handler(&self) -> &H {
        &self.handler
    }
}
