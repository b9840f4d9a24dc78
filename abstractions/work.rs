// SPDX-License-Identifier: GPL-2.0

//! Work items that belong to a bound device.
//!
//! The queue owns a pending work item of the `kernel` crate, so its data must be static. The data
//! of a bound device are not. [`Work`] is cancelled when its handle is dropped.
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

/// A function that runs in the background.
pub(crate) trait Job: Send + Sync {
    /// Runs the job. One thread at a time calls it, and it may sleep.
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
            bindings::alloc_workqueue_noprof(c"%s".as_char_ptr(), flags, 1, name.as_char_ptr())
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
        // SAFETY: The type invariant: the workqueue is valid, and nobody else destroys it. Its only
        // work item is disabled before the `Work` that has the queue is freed.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// A work item that runs a [`Job`].
///
/// # Invariants
///
/// From its registration on, `work` is initialised with [`Self::callback`].
pub(crate) struct Work<J: Job> {
    work: Opaque<bindings::work_struct>,
    queue: Queue,
    job: Arc<J>,
}

// SAFETY: Any thread may queue and cancel a `work_struct`. `J` is `Send` and `Sync`.
unsafe impl<J: Job> Send for Work<J> {}
// SAFETY: Queueing and cancelling are atomic. `J` is `Send` and `Sync`.
unsafe impl<J: Job> Sync for Work<J> {}

impl<J: Job> Work<J> {
    /// Creates a work item for `job`, to be run by `queue` and not queued yet. [`ENOMEM`].
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
            // INVARIANT: `init_work_with_key` initialises it.
            // SAFETY: `work` is valid for writes, and stays in place while it is registered.
            unsafe {
                bindings::init_work_with_key(
                    this.work.get(),
                    Some(Self::callback),
                    false,
                    c"Work".as_char_ptr(),
                    static_lock_class!().as_ptr(),
                )
            };
            Ok(())
        })
    }

    /// Queues the job, if it is not queued already.
    pub(crate) fn schedule(&self) {
        // SAFETY: By the type invariant the work item is initialised. `unregister` disables it
        // before the value is freed.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                self.queue.as_raw(),
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

        // SAFETY: By the type invariant `work` is a field of `Self`. `unregister` waits for the end
        // of this function before the value is freed.
        let job = unsafe { &(*kernel::container_of!(work, Self, work)).job };

        job.run();
    }
}

// SAFETY: `disable_work_sync` waits for the end of the job; from then on, queueing has no effect.
// Only a reference to the job remains.
unsafe impl<J: Job> Registered for Work<J> {
    unsafe fn unregister(&self) {
        // SAFETY: `Registered::unregister` requires that the value is registered, so the work item
        // is initialised.
        unsafe { bindings::disable_work_sync(self.work.get()) };
    }
}
