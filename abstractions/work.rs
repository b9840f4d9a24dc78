// SPDX-License-Identifier: GPL-2.0

//! Work items that belong to a bound device.
//!
//! Those of the `kernel` crate are owned by the queue while they wait, so that their data must be
//! static, as a bound device's is not. This one is cancelled when it is dropped.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ops::Deref;
use kernel::{
    bindings,
    prelude::*,
    static_lock_class,
    types::Opaque, //
};

/// What is done in the background.
pub(crate) trait Job: Send + Sync {
    /// Does what there is to do. Called by one thread at a time. Sleeps.
    fn run(&self);

    /// Does what is to be done at the end, when it will run no more. Sleeps.
    fn end(&self);
}

/// A [`Job`] with its work item.
///
/// # Invariants
///
/// `work` is initialised, and runs [`Self::callback`].
#[pin_data(PinnedDrop)]
pub(crate) struct Work<J: Job> {
    #[pin]
    work: Opaque<bindings::work_struct>,
    #[pin]
    job: J,
}

// SAFETY: A `work_struct` may be queued and cancelled by any thread; `J` is `Send`.
unsafe impl<J: Job> Send for Work<J> {}
// SAFETY: Queueing takes the work item's own locks; `J` is `Sync`.
unsafe impl<J: Job> Sync for Work<J> {}

impl<J: Job> Work<J> {
    /// Initialises the job; nothing is queued yet.
    pub(crate) fn new(job: impl PinInit<J, Error>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            job <- job,
            // INVARIANT: Initialised here.
            work <- Opaque::ffi_init(|work: *mut bindings::work_struct| {
                // SAFETY: `work` is valid for writes, and pinned.
                unsafe {
                    bindings::init_work_with_key(
                        work,
                        Some(Self::callback),
                        false,
                        c"rust_pmem".as_char_ptr(),
                        static_lock_class!().as_ptr(),
                    )
                };
            }),
        })
    }

    /// Has the job run, once from now on, if it does not wait for its turn already.
    pub(crate) fn schedule(&self) {
        // SAFETY: By the type invariant; `drop` waits until it has run.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                self.work.get(),
            )
        };
    }

    extern "C" fn callback(work: *mut bindings::work_struct) {
        let work = Opaque::cast_from(work);

        // SAFETY: By the type invariant the work item is the field of a `Self`, which `drop` keeps
        // until this has returned.
        let job = unsafe { &(*kernel::container_of!(work, Self, work)).job };

        job.run();
    }
}

impl<J: Job> Deref for Work<J> {
    type Target = J;

    #[inline]
    fn deref(&self) -> &J {
        &self.job
    }
}

#[pinned_drop]
impl<J: Job> PinnedDrop for Work<J> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. Nobody queues it any more, as that takes a reference.
        unsafe { bindings::cancel_work_sync(self.work.get()) };
        self.job.end();
    }
}
