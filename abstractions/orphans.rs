// SPDX-License-Identifier: GPL-2.0

//! Page maps that have outlived their binding, since some of their pages are in use.
//!
//! Nobody waits for those users: that would be under the lock of the device that is being unbound,
//! for which handlers of machine checks wait. A work item looks at the pages from time to time, and
//! unmaps what is idle. Until then the memory stays claimed, and the module loaded.
//!
//! C headers: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h),
//! [`include/linux/module.h`](srctree/include/linux/module.h)

use super::memremap::Pages;
use core::{
    ops::RangeInclusive,
    sync::atomic::{
        AtomicBool,
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::{
    impl_has_delayed_work,
    list::{
        List,
        ListArc, //
    },
    new_delayed_work,
    prelude::*,
    sync::Arc,
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

/// The pause before the first look at new orphans, and the longest one, in milliseconds. It doubles
/// with each look.
const PAUSES: (u32, u32) = (100, 1000);

/// The orphans, and what is there for them while the module is loaded.
struct Orphans {
    /// The watch puts in no new ones and alone takes any out, so that each keeps its place.
    list: List<Pages>,
    keeper: Option<(Arc<Watch>, &'static ThisModule)>,
}

kernel::sync::global_lock! {
    // SAFETY: Initialised by `Watched::new`; nobody uses it before `IS_READY` says so.
    unsafe(uninit) static ORPHANS: Mutex<Orphans> = Orphans {
        list: List::new(),
        keeper: None,
    };
}

/// Set when `ORPHANS` is initialised.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// Whether there is a watch that pages can be left to.
pub(super) fn is_ready() -> bool {
    IS_READY.load(Ordering::Acquire)
}

/// Leaves `pages`, some of which are in use, to the watch: [`is_ready`] has said that there is one.
pub(super) fn add(pages: ListArc<Pages>) {
    let mut orphans = ORPHANS.lock();

    if let Some((watch, module)) = &orphans.keeper {
        pages.hold(module);
        watch.pause.store(PAUSES.0, Ordering::Relaxed);
        watch.clone().look_later();
    }
    orphans.list.push_back(pages);
}

/// A page of the physical addresses `range` that is still in use, from an earlier binding.
///
/// Waits for a look at all orphans, and until those whose pages are idle are unmapped and released.
pub(crate) fn frame_in_use(range: &RangeInclusive<u64>) -> Option<u64> {
    if !is_ready() {
        return None;
    }
    let watch = ORPHANS
        .lock()
        .keeper
        .as_ref()
        .map(|(watch, _)| watch.clone())?;

    // Also if none is on the list: the last one may be being unmapped.
    watch.look_now();
    find(range)
}

/// The page that was in use at the last look.
fn find(range: &RangeInclusive<u64>) -> Option<u64> {
    let orphans = ORPHANS.lock();

    orphans.list.iter().find_map(|pages| {
        let claimed = pages.claim().range();

        (claimed.start() <= range.end() && range.start() <= claimed.end())
            .then(|| pages.last_found())
    })
}

/// The work item that looks at the orphans.
#[pin_data]
struct Watch {
    #[pin]
    work: DelayedWork<Self>,
    pause: AtomicU32,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Watch { self.work }
}

impl WorkItem for Watch {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut kept = 0;

        // The lock is not held for a look, which may take long.
        while let Some(pages) = nth(kept) {
            if pages.last_frame_in_use().is_some() {
                kept = kept.saturating_add(1);
                continue;
            }
            let removed = remove(kept);

            pr_info!("{}: no page is in use any more\n", pages.claim().name());
            // Unmaps and releases the memory, and then may be the last to hold the module: its end
            // waits for the end of this function.
            drop((pages, removed));
        }
        if kept > 0 {
            this.look_later();
        }
    }
}

/// The orphan at this place of the list.
fn nth(place: usize) -> Option<Arc<Pages>> {
    let orphans = ORPHANS.lock();
    let mut pages = orphans.list.iter();

    for _ in 0..place {
        pages.next();
    }
    pages.next().map(Arc::from)
}

/// Takes the orphan at this place off the list.
fn remove(place: usize) -> Option<ListArc<Pages>> {
    let mut orphans = ORPHANS.lock();
    let mut cursor = orphans.list.cursor_front();

    for _ in 0..place {
        cursor.move_next();
    }
    cursor.remove_next()
}

impl Watch {
    fn look_later(self: Arc<Self>) {
        let pause = self.pause.load(Ordering::Relaxed);

        self.pause
            .store(pause.saturating_mul(2).min(PAUSES.1), Ordering::Relaxed);
        // SAFETY: It is there from boot on. The crate's `system_unbound` is its deprecated name, about
        // which the kernel warns.
        let queue = unsafe { Queue::from_raw(kernel::bindings::system_dfl_wq) };
        // If it is waiting already, that will do.
        let _ = queue.enqueue_delayed(self, msecs_to_jiffies(pause));
    }

    /// Looks now, if a look is due later, and waits for it.
    fn look_now(&self) {
        let work = &raw const self.work;

        // SAFETY: The work item is initialised, and there for as long as `self`. CAST: Its work is the
        // first field of a `struct delayed_work`.
        unsafe {
            kernel::bindings::flush_delayed_work(DelayedWork::raw_as_work(work).cast());
        }
    }
}

/// The orphans are watched until this is dropped, which waits for the last of them.
///
/// There are some then only if pages were in use when a binding was ended by unloading the module.
pub(crate) struct Watched(());

impl Watched {
    /// To be made when `module` is loaded, before any page map, and dropped after the last one is.
    /// [`EBUSY`] if it has been done, [`ENOMEM`].
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        static DONE: AtomicBool = AtomicBool::new(false);
        let watch = Arc::pin_init(
            pin_init!(Watch {
                work <- new_delayed_work!("pages_in_use"),
                pause: AtomicU32::new(PAUSES.0),
            }),
            GFP_KERNEL,
        )?;

        if DONE.swap(true, Ordering::Relaxed) {
            return Err(EBUSY);
        }
        // SAFETY: Done once.
        unsafe { ORPHANS.init() };
        ORPHANS.lock().keeper = Some((watch, module));
        IS_READY.store(true, Ordering::Release);
        Ok(Self(()))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        while !ORPHANS.lock().list.is_empty() {
            fsleep(Delta::from_millis(10));
        }
        let keeper = ORPHANS.lock().keeper.take();

        // What the last look does is code of the module.
        if let Some((watch, _)) = keeper {
            watch.look_now();
        }
    }
}
