// SPDX-License-Identifier: GPL-2.0

//! Timers beside operations that should not take long.
//!
//! The `kernel` crate's macro for types with timers expands to unsafe code, which only this folder
//! may have.

use kernel::{
    impl_has_hr_timer,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    time::{
        hrtimer::{
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeSoftMode, //
        },
        Delta,
        Monotonic, //
    }, //
};

/// The reaction to an operation that takes long.
pub(crate) trait SlowHandler: Send + Sync {
    /// Called once for an operation, in softirq context, while the operation goes on.
    fn slow(&self);
}

/// A timer that runs beside operations, one at a time.
#[pin_data]
pub(crate) struct Watchdog<H> {
    #[pin]
    timer: HrTimer<Self>,
    handler: H,
}

impl<H: SlowHandler + 'static> Watchdog<H> {
    /// Creates a timer that is not started. [`ENOMEM`].
    pub(crate) fn new(handler: H) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                timer <- HrTimer::new(),
                handler,
            }),
            GFP_KERNEL,
        )
    }

    /// Runs `operation`, and calls [`SlowHandler::slow`] if it takes longer than `limit`. When this
    /// returns, that call has ended. Allocates nothing.
    pub(crate) fn watch<T>(this: &Arc<Self>, limit: Delta, operation: impl FnOnce() -> T) -> T {
        let timer = this.clone().start(limit);
        let value = operation();

        // Stops the timer, and waits for its callback.
        drop(timer);
        value
    }

    pub(crate) fn handler(&self) -> &H {
        &self.handler
    }
}

impl<H: SlowHandler + 'static> HrTimerCallback for Watchdog<H> {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        _context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        this.handler.slow();
        HrTimerRestart::NoRestart
    }
}

impl_has_hr_timer! {
    impl{H: SlowHandler + 'static} HasHrTimer<Self> for Watchdog<H> {
        mode: RelativeSoftMode<Monotonic>, field: self.timer
    }
}
