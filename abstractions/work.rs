// SPDX-License-Identifier: GPL-2.0

//! Work items that belong to a bound device.
//!
//! The queue owns a pending work item of the `kernel` crate, so its data must be static. The data of a
//! bound device are not. [`Work`] is cancelled when its handle is dropped.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::scope::{
    Registered,
    Scope,
    Scoped, //
};
use kernel::{
    bindings,
    prelude::*,
    static_lock_class,
    sync::Arc,
    types::Opaque, //
};

/// A function that runs in the background.
pub(crate) trait Job: Send + Sync {
    /// Runs the job. One thread at a time calls it, and it may sleep.
    fn run(&self);
}

/// A work item that runs a [`Job`].
///
/// # Invariants
///
/// From its registration on, `work` is initialised with [`Self::callback`].
pub(crate) struct Work<J: Job> {
    work: Opaque<bindings::work_struct>,
    job: Arc<J>,
}

// SAFETY: Any thread may queue and cancel a `work_struct`. `J` is `Send` and `Sync`.
unsafe impl<J: Job> Send for Work<J> {}
// SAFETY: Queueing and cancelling are atomic. `J` is `Send` and `Sync`.
unsafe impl<J: Job> Sync for Work<J> {}

impl<J: Job> Work<J> {
    /// Creates a work item for `job`, not queued yet. [`ENOMEM`].
    pub(crate) fn new<'bound>(
        job: Arc<J>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>>
    where
        J: 'bound,
    {
        let this = Self {
            work: Opaque::uninit(),
            job,
        };

        Scoped::new(scope, this, |this| {
            // INVARIANT: `init_work_with_key` initialises it.
            // SAFETY: `work` is valid for writes, and stays in place while it is registered.
            unsafe {
                bindings::init_work_with_key(
                    this.work.get(),
                    Some(Self::callback),
                    false,
                    c"rust_pmem".as_char_ptr(),
                    static_lock_class!().as_ptr(),
                )
            };
            Ok(())
        })
    }

    /// Queues the job, if it is not queued already.
    pub(crate) fn schedule(&self) {
        // SAFETY: By the type invariant the work item is initialised. `unregister` disables it before the
        // value is freed.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                self.work.get(),
            )
        };
    }

    /// Removes the job from the queue, or waits for its end. It can be queued again.
    pub(crate) fn cancel(&self) {
        // SAFETY: By the type invariant the work item is initialised.
        unsafe { bindings::cancel_work_sync(self.work.get()) };
    }

    extern "C" fn callback(work: *mut bindings::work_struct) {
        let work = Opaque::cast_from(work);

        // SAFETY: By the type invariant `work` is a field of `Self`. `unregister` waits for the end of this
        // function before the value is freed.
        let job = unsafe { &(*kernel::container_of!(work, Self, work)).job };

        job.run();
    }
}

// SAFETY: `disable_work_sync` waits for the end of the job; from then on, queueing has no effect. Only a
// reference to the job remains.
unsafe impl<J: Job> Registered for Work<J> {
    unsafe fn unregister(&self) {
        // SAFETY: The caller promises that the value is registered, so the work item is initialised.
        unsafe { bindings::disable_work_sync(self.work.get()) };
    }
}
