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
use core::ptr::NonNull;
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

/// The threads that run work items.
pub(crate) enum Queue {
    /// The system's, for jobs on which no reclaim of memory depends.
    System,
    /// One with a rescuer thread, for jobs that writeback waits for (`WQ_MEM_RECLAIM`).
    Reclaim(ReclaimQueue),
}

impl Queue {
    /// A queue of its own for jobs that writeback waits for. [`ENOMEM`].
    pub(crate) fn for_reclaim(name: &CStr) -> Result<Self> {
        let flags = bindings::wq_flags_WQ_MEM_RECLAIM | bindings::wq_flags_WQ_UNBOUND;

        // SAFETY: The format takes one string, which is copied.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                flags,
                1,
                name.as_char_ptr(),
            )
        };
        // INVARIANT: The queue was allocated here.
        Ok(Self::Reclaim(ReclaimQueue(
            NonNull::new(queue).ok_or(ENOMEM)?,
        )))
    }

    fn as_raw(&self) -> *mut bindings::workqueue_struct {
        match self {
            // SAFETY: The system's queues are there from boot on, and are not replaced.
            Self::System => unsafe { bindings::system_dfl_wq },
            Self::Reclaim(queue) => queue.0.as_ptr(),
        }
    }
}

/// A workqueue that is destroyed with its handle.
///
/// # Invariants
///
/// The pointer is a valid workqueue, which only this handle destroys.
pub(crate) struct ReclaimQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue may be used and destroyed by any thread.
unsafe impl Send for ReclaimQueue {}
// SAFETY: Queueing work takes the workqueue's own locks.
unsafe impl Sync for ReclaimQueue {}

impl Drop for ReclaimQueue {
    fn drop(&mut self) {
        // SAFETY: The type invariant: the workqueue is valid, and nobody else destroys it. Its only work
        // item is disabled before the `Work` that has the queue is freed.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// A work item that runs a [`Job`].
///
/// # Invariants
///
/// `work` is initialised, and runs [`Self::callback`], while the value is registered.
pub(crate) struct Work<J: Job> {
    work: Opaque<bindings::work_struct>,
    queue: Queue,
    job: Arc<J>,
}

// SAFETY: A `work_struct` may be queued and cancelled by any thread; `J` is `Send` and `Sync`.
unsafe impl<J: Job> Send for Work<J> {}
// SAFETY: Queueing takes the work item's own locks; `J` is `Send` and `Sync`.
unsafe impl<J: Job> Sync for Work<J> {}

impl<J: Job> Work<J> {
    /// A work item for `job`, to be run by `queue`; it is not queued yet. [`ENOMEM`].
    pub(crate) fn new<'bound>(
        job: Arc<J>,
        queue: Queue,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>>
    where
        J: 'bound,
    {
        let this = Self {
            work: Opaque::uninit(),
            queue,
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
                self.queue.as_raw(),
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
