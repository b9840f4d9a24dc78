// SPDX-License-Identifier: GPL-2.0

//! Mapped memory that outlives its binding because some of its pages are in use.
//!
//! Unbind does not wait for the users of these pages: it holds the device lock, which handlers of
//! machine checks wait for. Instead, a work item checks the pages at intervals, and unmaps memory
//! that is idle. Until then the memory stays claimed, and the module loaded.
//!
//! C headers: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h),
//! [`include/linux/module.h`](srctree/include/linux/module.h)

use super::pages::{
    is_any_mapped,
    Pages, //
};
use core::ops::RangeInclusive;
use kernel::{
    impl_has_delayed_work,
    list::{
        List,
        ListArc, //
    },
    new_delayed_work,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    },
    workqueue::{
        DelayedWork,
        Queue,
        WorkItem, //
    }, //
};

/// The time before the first check of new orphans, in milliseconds. It doubles with each check.
const FIRST_PAUSE: u32 = 100;

/// The longest time between two checks, in milliseconds.
const LONGEST_PAUSE: u32 = 1000;

/// The orphans, and the work item for them, which exists while the module is loaded.
struct Orphans {
    /// [`add`] appends at the end, and only the work item removes entries. So during a check the
    /// places of the entries do not change.
    list: List<Pages>,
    checker: Option<(Arc<CheckWork>, &'static ThisModule)>,
}

kernel::sync::global_lock! {
    // SAFETY: `OrphanChecker::new` initialises it before it sets `IS_READY`, and nobody uses it
    // earlier.
    unsafe(uninit) static ORPHANS: Mutex<Orphans> = Orphans {
        list: List::new(),
        checker: None,
    };
}

/// `ORPHANS` is initialised.
static IS_READY: Atomic<bool> = Atomic::new(false);

fn is_ready() -> bool {
    IS_READY.load(Acquire)
}

/// Returns the module, or `None` without [`OrphanChecker`].
pub(super) fn module() -> Option<&'static ThisModule> {
    if !is_ready() {
        return None;
    }
    ORPHANS.lock().checker.as_ref().map(|(_, module)| *module)
}

/// Adds `pages`, some of which are in use. [`module()`] must have returned one.
pub(super) fn add(pages: ListArc<Pages>) {
    let mut orphans = ORPHANS.lock();

    if let Some((work, _)) = &orphans.checker {
        work.pause.store(FIRST_PAUSE, Relaxed);
        work.clone().check_later();
    }
    orphans.list.push_back(pages);
}

/// Returns a page in the physical addresses `range` that is still in use, from an earlier binding.
///
/// Checks all orphans first, and waits until those that are idle are unmapped and released.
pub(crate) fn frame_in_use(range: &RangeInclusive<u64>) -> Option<u64> {
    if !is_ready() {
        return None;
    }
    let work = ORPHANS
        .lock()
        .checker
        .as_ref()
        .map(|(work, _)| work.clone())?;

    // Even if the list is empty: the work item may be unmapping the last orphan.
    work.check_now();
    find(range)
}

/// Returns a page in `range` that was in use at the last check.
fn find(range: &RangeInclusive<u64>) -> Option<u64> {
    let orphans = ORPHANS.lock();

    orphans.list.iter().find_map(|pages| {
        let claimed = pages.claim().range();

        (claimed.start() <= range.end() && range.start() <= claimed.end())
            .then(|| pages.last_found())
    })
}

/// The work item that checks the orphans.
#[pin_data]
struct CheckWork {
    #[pin]
    work: DelayedWork<Self>,
    pause: Atomic<u32>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for CheckWork { self.work }
}

impl WorkItem for CheckWork {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut kept = 0;

        // The lock is not held during a check, which may take long.
        while let Some(pages) = nth(kept) {
            if pages.last_frame_in_use().is_some() {
                kept = kept.saturating_add(1);
                continue;
            }
            let removed = remove(kept);

            pr_info!("{}: no page is in use any more\n", pages.claim().name());
            // Unmaps and releases the memory, and may then put the last reference to the module.
            // `OrphanChecker` waits for the end of this function before the module is unloaded.
            drop((pages, removed));
        }
        if kept > 0 {
            this.check_later();
        }
    }
}

/// Returns the orphan at this place of the list.
fn nth(place: usize) -> Option<Arc<Pages>> {
    let orphans = ORPHANS.lock();
    let mut pages = orphans.list.iter();

    for _ in 0..place {
        pages.next();
    }
    pages.next().map(Arc::from)
}

/// Removes the orphan at this place from the list.
fn remove(place: usize) -> Option<ListArc<Pages>> {
    let mut orphans = ORPHANS.lock();
    let mut cursor = orphans.list.cursor_front();

    for _ in 0..place {
        cursor.move_next();
    }
    cursor.remove_next()
}

impl CheckWork {
    fn check_later(self: Arc<Self>) {
        let pause = self.pause.load(Relaxed);

        self.pause
            .store(pause.saturating_mul(2).min(LONGEST_PAUSE), Relaxed);
        // SAFETY: The queue exists from boot on. The crate's `system_unbound` has the deprecated
        // name of the queue, which the kernel warns of.
        let queue = unsafe { Queue::from_raw(kernel::bindings::system_dfl_wq) };
        // Fails if the work item is queued already, which is good enough.
        let _ = queue.enqueue_delayed(self, msecs_to_jiffies(pause));
    }

    /// Runs a check that is queued for later now, and waits for its end.
    fn check_now(&self) {
        let work = &raw const self.work;

        // SAFETY: The work item is initialised, and valid for as long as `self`. CAST: Its work is
        // the first field of a `struct delayed_work`.
        unsafe {
            kernel::bindings::flush_delayed_work(DelayedWork::raw_as_work(work).cast());
        }
    }
}

/// Checks orphans until it is dropped; dropping it waits until no memory is mapped.
///
/// It must not be leaked (`mem::forget`), as a `Registration` of a driver must not be: the work
/// item would run in a module that is gone.
///
/// There are orphans then only if pages were in use when unloading the module ended a binding.
/// Memory whose handle was leaked stays mapped, and the module loaded.
pub(crate) struct OrphanChecker(());

impl OrphanChecker {
    /// To be created when `module` is loaded, before any memory is mapped, and dropped after the
    /// last one. [`EBUSY`] for a second call, [`ENOMEM`].
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        static DONE: Atomic<bool> = Atomic::new(false);
        let work = Arc::pin_init(
            pin_init!(CheckWork {
                work <- new_delayed_work!("pages_in_use"),
                pause: Atomic::new(FIRST_PAUSE),
            }),
            GFP_KERNEL,
        )?;

        if DONE.xchg(true, Relaxed) {
            return Err(EBUSY);
        }
        // SAFETY: `DONE` lets only the first caller get here.
        unsafe { ORPHANS.init() };
        ORPHANS.lock().checker = Some((work, module));
        IS_READY.store(true, Release);
        Ok(Self(()))
    }
}

impl Drop for OrphanChecker {
    fn drop(&mut self) {
        while is_any_mapped() {
            fsleep(Delta::from_millis(10));
        }
        let checker = ORPHANS.lock().checker.take();

        // The last check must end before the code of the module is freed.
        if let Some((work, _)) = checker {
            work.check_now();
        }
    }
}
