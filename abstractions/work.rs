// SPDX-License-Identifier: GPL-2.0

//! Work items that belong to a bound device.
//!
//! Those of the `kernel` crate are owned by the queue while they wait, so that their data must be
//! static, as a bound device's is not. This one is cancelled when its handle is dropped.
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

/// What is done in the background.
pub(crate) trait Job: Send + Sync {
    /// Does what there is to do. Called by one thread at a time. Sleeps.
    fn run(&self);
}

/// A work item that runs a [`Job`].
///
/// # Invariants
///
/// `work` is initialised, and runs [`Self::callback`], while the value is registered.
pub(crate) struct Work<J: Job> {
    work: Opaque<bindings::work_struct>,
    job: Arc<J>,
}

// SAFETY: A `work_struct` may be queued and cancelled by any thread; `J` is `Send` and `Sync`.
unsafe impl<J: Job> Send for Work<J> {}
// SAFETY: Queueing takes the work item's own locks; `J` is `Send` and `Sync`.
unsafe impl<J: Job> Sync for Work<J> {}

impl<J: Job> Work<J> {
    /// A work item for `job`; it is not queued yet. [`ENOMEM`].
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
            // INVARIANT: Initialised here.
            // SAFETY: The field is valid for writes, and stays where it is while it is registered.
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

    /// Has the job run, once from now on, if it does not wait for its turn already.
    pub(crate) fn schedule(&self) {
        // SAFETY: By the type invariant the work item is initialised. It is disabled before the value
        // is freed, and not queued any more then.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                self.work.get(),
            )
        };
    }

    /// Takes the job off the queue, or waits until it has run. It may be scheduled again.
    pub(crate) fn cancel(&self) {
        // SAFETY: By the type invariant the work item is initialised.
        unsafe { bindings::cancel_work_sync(self.work.get()) };
    }

    extern "C" fn callback(work: *mut bindings::work_struct) {
        let work = Opaque::cast_from(work);

        // SAFETY: By the type invariant the work item is the field of a `Self`, which is not freed
        // before this has returned: see `unregister`.
        let job = unsafe { &(*kernel::container_of!(work, Self, work)).job };

        job.run();
    }
}

// SAFETY: `disable_work_sync` waits until the job has run, and makes queueing it do nothing from then
// on. What is left is a reference to the job.
unsafe impl<J: Job> Registered for Work<J> {
    unsafe fn unregister(&self) {
        // SAFETY: By the type invariant the work item is initialised.
        unsafe { bindings::disable_work_sync(self.work.get()) };
    }
}
