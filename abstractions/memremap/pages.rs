// SPDX-License-Identifier: GPL-2.0

//! Memory that is mapped with `struct page`s, and which of its pages are in use.

use super::{
    chunks::Chunks,
    layout::Layout, //
};
use crate::abstractions::{
    device::NumaNode,
    errno::eopnotsupp,
    iomem::Claim,
    page::{
        copy_page_flags,
        page_is_in_use, //
    }, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings::{
        dev_pagemap,
        dev_pagemap_ops,
        memory_type_MEMORY_DEVICE_FS_DAX, //
    },
    error::{
        from_err_ptr,
        from_result, //
    },
    list::{
        impl_list_arc_safe,
        impl_list_item,
        ListArc,
        ListLinks, //
    },
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        new_mutex,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    types::Opaque, //
};

/// Handles failures of memory with `struct page`s.
pub(crate) trait MemoryFailure: Send + Sync {
    /// Handles the failure of `nr_pages` pages from page frame `pfn` on, which may be simulated:
    /// see [`is_simulated`].
    ///
    /// Fails with `EOPNOTSUPP` if there is no file system that knows the users of the pages, so
    /// that the core finds and kills them.
    ///
    /// The caller holds a reference to the memory, which unmapping waits for. So this must not wait
    /// for anything that is held during unbind.
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result;
}

/// Returns whether a memory failure is simulated (`MADV_HWPOISON`), and the memory good.
pub(crate) fn is_simulated(flags: c_int) -> bool {
    // CAST: One bit.
    flags & kernel::bindings::mf_flags_MF_SW_SIMULATED as c_int != 0
}

/// Whether pages belong to a binding.
enum Binding {
    /// They do; its handler is called.
    Bound(Handler),
    /// The binding has ended. The module stays loaded until the pages are unmapped, unless it is
    /// being unloaded: then [`OrphanChecker`](super::orphans::OrphanChecker) waits for that.
    Ended(#[expect(dead_code, reason = "held to be dropped")] Option<ModuleRef>),
}

/// A [`MemoryFailure`] without its type.
struct Handler {
    handler: NonNull<c_void>,
    call: unsafe fn(NonNull<c_void>, u64, u64, c_int) -> Result,
}

// SAFETY: `handler` points to a `MemoryFailure`, which is `Sync`.
unsafe impl Send for Handler {}

impl Handler {
    /// # Safety
    ///
    /// `handler` stays in place for as long as the result is used.
    unsafe fn new<H: MemoryFailure>(handler: &H) -> Self {
        /// # Safety
        ///
        /// `handler` points to an `H`.
        unsafe fn call<H: MemoryFailure>(
            handler: NonNull<c_void>,
            pfn: u64,
            nr_pages: u64,
            flags: c_int,
        ) -> Result {
            // SAFETY: `# Safety` requires that `handler` points to an `H`.
            unsafe { handler.cast::<H>().as_ref() }.memory_failure(pfn, nr_pages, flags)
        }

        Self {
            handler: NonNull::from(handler).cast(),
            call: call::<H>,
        }
    }
}

/// The number of [`Pages`].
static MAPPED: Atomic<usize> = Atomic::new(0);

/// Returns whether any memory is mapped, so that the kernel may call the module.
pub(super) fn is_any_mapped() -> bool {
    MAPPED.load(Acquire) > 0
}

/// Memory with `struct page`s, and its claim, which may outlive their binding.
///
/// Dropping it unmaps the memory, and then releases the claim. None of the pages must be in use
/// then.
///
/// # Invariants
///
/// `pgmap` is mapped, at `base`. If `binding` has a handler, that is valid.
#[pin_data(PinnedDrop)]
pub(super) struct Pages {
    #[pin]
    pgmap: Opaque<dev_pagemap>,
    base: NonNull<u8>,
    chunks: Chunks,
    /// The page frames of the data, whose `struct page`s are initialised.
    frames: Range<u64>,
    /// No page frame in front of this one is in use any more.
    idle_before: Atomic<u64>,
    claim: Claim,
    module: &'static ThisModule,
    #[pin]
    links: ListLinks,
    // Dropped last: it may hold the last reference to the module.
    #[pin]
    binding: Mutex<Binding>,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Pages { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Pages { using ListLinks { self.links }; }
}

// SAFETY: Any thread may unmap the memory.
unsafe impl Send for Pages {}
// SAFETY: Fields that change through a reference are atomic, or have a lock.
unsafe impl Sync for Pages {}

impl Pages {
    const OPS: dev_pagemap_ops = dev_pagemap_ops {
        memory_failure: Some(Self::memory_failure_callback),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `handler` stays in place until [`Self::detach_handler`] has returned.
    pub(super) unsafe fn new<H: MemoryFailure>(
        layout: Layout,
        node: NumaNode,
        claim: Claim,
        handler: &H,
        module: &'static ThisModule,
    ) -> Result<ListArc<Self>> {
        // SAFETY: `# Safety` requires that it stays in place until `detach_handler`, after which it
        // is not called.
        let handler = unsafe { Handler::new(handler) };
        let reserved = layout.reserved();

        ListArc::pin_init(
            try_pin_init!(Self {
                // First: `memory_failure_callback` uses it as soon as the memory is mapped.
                binding <- new_mutex!(Binding::Bound(handler)),
                chunks: Chunks::new(&layout.range())?,
                frames: layout.frames(),
                idle_before: Atomic::new(0),
                claim,
                module,
                links <- ListLinks::new(),
                pgmap <- Opaque::ffi_init(|slot: *mut dev_pagemap| {
                    let mut pgmap = layout.into_raw();

                    pgmap.type_ = memory_type_MEMORY_DEVICE_FS_DAX;
                    pgmap.ops = const { &Self::OPS };
                    pgmap.owner = slot.cast();
                    // SAFETY: `ffi_init` passes a slot that is valid for writes.
                    unsafe { slot.write(pgmap) };
                }),
                base: {
                    // SAFETY: `pgmap` is pinned, and its fields are set.
                    let base = from_err_ptr(unsafe {
                        kernel::bindings::memremap_pages(pgmap.get(), node.0)
                    })?;

                    NonNull::new(base.cast()).ok_or(ENOMEM)?
                },
            }? Error),
            GFP_KERNEL,
        )
        .inspect(|pages| {
            MAPPED.add(1, Relaxed);
            // The kernel does not initialise the `struct page`s of the info block, but reads their
            // node after a machine check there (Linux 7.2, 7.3: `action_result`), and crashes if
            // none has that number.
            for pfn in reserved {
                // SAFETY: The memory of the layout is mapped, so that both have a `struct page`,
                // and that of the data is initialised.
                unsafe { copy_page_flags(pages.frames.start, pfn) };
            }
        })
    }

    extern "C" fn memory_failure_callback(
        pgmap: *mut dev_pagemap,
        pfn: c_ulong,
        nr_pages: c_ulong,
        flags: c_int,
    ) -> c_int {
        let pgmap = Opaque::cast_from(pgmap);

        // SAFETY: The core holds a reference to the mapped memory, which `PinnedDrop` waits for, so
        // that `Self` is valid. `binding` was initialised before the memory was mapped.
        let binding = unsafe { &(*kernel::container_of!(pgmap, Self, pgmap)).binding };

        from_result(|| match &*binding.lock() {
            // SAFETY: By the type invariant the handler is valid while the lock is held:
            // `detach_handler` takes it.
            Binding::Bound(Handler { handler, call }) => unsafe {
                call(*handler, pfn as u64, nr_pages as u64, flags).map(|()| 0)
            },
            Binding::Ended(_) => Err(eopnotsupp()),
        })
    }

    /// Stops calls of the handler, and waits for one in progress.
    pub(super) fn detach_handler(&self) {
        let module = ModuleRef::get(self.module);

        *self.binding.lock() = Binding::Ended(module);
    }

    /// Returns the kernel address of the first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns the pages that may have users.
    #[inline]
    pub(super) fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Returns the page frame that [`Self::frame_in_use`] has found last.
    pub(super) fn last_found(&self) -> u64 {
        self.idle_before.load(Relaxed)
    }

    /// Returns the first page that is mapped by a process, referenced by I/O, or noted by a file
    /// system as a page of a file.
    ///
    /// It does not check pages again that were not in use: no pfns are returned to callers any
    /// more, so they get no new users.
    pub(super) fn frame_in_use(&self) -> Option<u64> {
        let frames = &self.frames;
        let mut next = frames.start.max(self.idle_before.load(Relaxed));

        while next < frames.end {
            let (marked, end) = self.chunks.chunk_of(next);
            let mut chunk = next..end.min(frames.end);

            next = chunk.end;
            if !marked {
                continue;
            }
            // SAFETY: `frames` are those with an initialised `struct page`, which are mapped.
            if let Some(busy) = chunk.find(|pfn| unsafe { page_is_in_use(*pfn) }) {
                self.idle_before.store(busy, Relaxed);
                return Some(busy);
            }
            yield_cpu();
        }
        self.idle_before.store(next, Relaxed);
        None
    }

    /// Returns a page in use like [`Self::frame_in_use`]. If there is none, it waits for threads
    /// that were about to use a page, or to release one, and checks all pages again.
    pub(super) fn last_frame_in_use(&self) -> Option<u64> {
        let busy = self.frame_in_use();

        if busy.is_some() || !self.chunks.any() {
            return busy;
        }
        wait_for_tasks();
        self.idle_before.store(0, Relaxed);
        self.frame_in_use()
    }

    /// Waits a short time until none of the pages is in use. Returns the page frame of one that
    /// still is.
    ///
    /// `memunmap_pages` waits for references to the `pgmap`, but pages of this type hold none
    /// (Linux 7.2, 7.3: `free_zone_device_folio`): without this, it would free the `struct page`s
    /// of pages in use.
    pub(super) fn wait_until_idle(&self) -> Option<u64> {
        const TRIES: usize = 10;

        for _ in 0..TRIES {
            self.last_frame_in_use()?;
            // I/O with references to pages ends soon.
            fsleep(Delta::from_millis(10));
        }
        self.last_frame_in_use()
    }
}

#[pinned_drop]
impl PinnedDrop for Pages {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the memory is mapped. It is unmapped only here. This waits
        // for `memory_failure_callback`, which does not wait for anything that is held here.
        unsafe { kernel::bindings::memunmap_pages(self.pgmap.get()) };
        MAPPED.fetch_sub(1, Release);
    }
}

/// Waits for threads that were preempted in the kernel while they were about to use a page or had
/// just released one.
///
/// In a fault, `dax_iomap_direct_access` releases the lock that `kill_dax` waits for before
/// `dax_insert_entry` makes the page one of a file. `free_zone_device_folio` reads a page after its
/// count is zero (Linux 7.2, 7.3). Neither sleeps in between, except for a write fault of a former
/// hole or of a shared extent (`unmap_mapping_pages`), and on `PREEMPT_RT` for a spinlock that
/// another thread holds. This does not wait for these.
fn wait_for_tasks() {
    // SAFETY: The callers may sleep.
    #[cfg(CONFIG_TASKS_RCU)]
    unsafe {
        kernel::bindings::synchronize_rcu_tasks()
    };
    // SAFETY: The callers may sleep. Without TASKS_RCU the kernel is not preemptible: see
    // bindings_helper.h.
    #[cfg(not(CONFIG_TASKS_RCU))]
    unsafe {
        kernel::bindings::synchronize_rcu()
    };
}

/// Yields the CPU to other threads (`cond_resched`).
fn yield_cpu() {
    // A preemptible kernel does not need it.
    // SAFETY: The callers may sleep.
    #[cfg(any(not(CONFIG_PREEMPTION), CONFIG_PREEMPT_DYNAMIC))]
    unsafe {
        kernel::bindings::__cond_resched()
    };
}

/// A reference to the module, which prevents unloading it.
struct ModuleRef(&'static ThisModule);

impl ModuleRef {
    /// Takes a reference. `None` if the module is being unloaded.
    fn get(module: &'static ThisModule) -> Option<Self> {
        // SAFETY: `module` is this module, which is loaded.
        unsafe { kernel::bindings::try_module_get(module.as_ptr()) }.then(|| Self(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: `get` has taken the reference. The caller is code of the module: dropping
        // `orphans::OrphanChecker` waits for its end before the module is unloaded.
        unsafe { kernel::bindings::module_put(self.0.as_ptr()) };
    }
}
