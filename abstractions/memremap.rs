// SPDX-License-Identifier: GPL-2.0

//! Memory with `struct page`s that a driver owns (`struct dev_pagemap`).
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use super::{
    errno::eopnotsupp,
    iomem::Claim,
    orphans,
    page::page_is_in_use,
    scope::{
        Registered,
        Scope,
        Scoped, //
    }, //
};
use core::{
    mem::ManuallyDrop,
    ops::RangeInclusive,
    ptr::NonNull,
    sync::atomic::{
        AtomicU64,
        AtomicUsize,
        Ordering, //
    }, //
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
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
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
    /// Handles the failure of `nr_pages` pages from page frame `pfn` on, which may be simulated: see
    /// [`is_simulated`].
    ///
    /// Fails with `EOPNOTSUPP` if there is no file system that knows the users of the pages, so that the
    /// core finds and kills them.
    ///
    /// The caller holds a reference to the memory, which unmapping waits for. So this must not wait for
    /// anything that is held during unbind.
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result;
}

/// Returns whether a memory failure is simulated (`MADV_HWPOISON`), and the memory good.
pub(crate) fn is_simulated(flags: c_int) -> bool {
    // CAST: One bit.
    flags & kernel::bindings::mf_flags_MF_SW_SIMULATED as c_int != 0
}

/// The physical addresses that get `struct page`s, and where these are kept (`--map=mem`, `--map=dev`).
pub(crate) struct Layout(dev_pagemap);

impl Layout {
    /// Takes over a `pgmap` with a range, such as `nvdimm_setup_pfn` fills in.
    pub(super) fn from_raw(pgmap: dev_pagemap) -> Self {
        Self(pgmap)
    }

    /// Returns the layout of all of `range` with `struct page`s in ordinary memory.
    pub(crate) fn in_ram(range: &RangeInclusive<u64>) -> Self {
        let mut pgmap = zeroed();

        pgmap.nr_range = 1;
        // SAFETY: With one range, `range` is the member of the union that is in use.
        *unsafe { pgmap.__bindgen_anon_1.range.as_mut() } = kernel::bindings::range {
            start: *range.start(),
            end: *range.end(),
        };
        Self(pgmap)
    }

    /// Returns the physical addresses.
    pub(crate) fn range(&self) -> RangeInclusive<u64> {
        // SAFETY: With one range, `range` is the member of the union that is in use.
        let range = unsafe { self.0.__bindgen_anon_1.range.as_ref() };

        range.start..=range.end
    }
}

/// Returns a zeroed `struct dev_pagemap`, as C drivers get it from `kzalloc`.
pub(super) fn zeroed() -> dev_pagemap {
    // SAFETY: All zeroes is a valid `struct dev_pagemap`, without a range.
    unsafe { core::mem::zeroed() }
}

/// The pages of a chunk: 2 MiB, the size of a huge page.
const CHUNK: u64 = 512;

/// The bits of a word.
const WORD: u64 = u64::BITS as u64;

/// The pages that may have users: a bit for each chunk of pages.
///
/// A page gets its first user from a caller to whom its pfn was returned.
pub(super) struct Chunks {
    /// The first page frame of the first chunk.
    origin: u64,
    bits: KVVec<Word>,
}

/// The bits of [`WORD`] chunks.
struct Word(AtomicU64);

// For `Vec::from_elem`.
impl Clone for Word {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl Chunks {
    /// Creates a bitmap for the pages of `range`, without users. [`ENOMEM`].
    fn new(range: &RangeInclusive<u64>) -> Result<Self> {
        let origin = range.start() >> PAGE_SHIFT;
        let last = (range.end() >> PAGE_SHIFT).saturating_sub(origin) / CHUNK;
        let words = usize::try_from(last / WORD)?.saturating_add(1);
        let bits = KVVec::from_elem(Word(AtomicU64::new(0)), words, GFP_KERNEL)?;

        Ok(Self { origin, bits })
    }

    /// Returns the word with the bit of a chunk, and that bit.
    #[inline]
    fn bit(&self, chunk: u64) -> Option<(&AtomicU64, u64)> {
        // CAST: A pfn fits on a 64-bit architecture.
        let word = self.bits.get((chunk / WORD) as usize)?;

        Some((&word.0, 1 << (chunk % WORD)))
    }

    /// Notes that the pfns of `pages` pages from `pfn` on are returned to a caller.
    #[inline]
    pub(super) fn mark(&self, pfn: u64, pages: u64) {
        let first = pfn.wrapping_sub(self.origin);
        let last = first.wrapping_add(pages).wrapping_sub(1) / CHUNK;
        let mut chunk = first / CHUNK;

        while let Some((word, bit)) = self.bit(chunk) {
            // It is set nearly always: without the write, the word stays in the caches of all CPUs.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
            if chunk >= last {
                break;
            }
            chunk = chunk.wrapping_add(1);
        }
    }

    /// Returns whether the pfn of any page was returned to a caller.
    fn any(&self) -> bool {
        self.bits
            .iter()
            .any(|word| word.0.load(Ordering::Relaxed) != 0)
    }

    /// Returns whether pages of the chunk with page frame `pfn` may have users, and the page frame behind
    /// the chunk, or behind all chunks of the word if none of these has users.
    fn chunk_of(&self, pfn: u64) -> (bool, u64) {
        let chunk = pfn.wrapping_sub(self.origin) / CHUNK;
        let (word, bit) = self
            .bit(chunk)
            .map_or((0, 0), |(word, bit)| (word.load(Ordering::Relaxed), bit));
        let last = if word == 0 { chunk | (WORD - 1) } else { chunk };
        let next = last.saturating_add(1).saturating_mul(CHUNK);

        (word & bit != 0, self.origin.saturating_add(next))
    }
}

/// Whether pages belong to a binding.
enum Binding {
    /// They do; its handler is called.
    Bound(Handler),
    /// The binding has ended. The module stays loaded until the pages are unmapped, unless it is being
    /// unloaded: then [`orphans::Watched`] waits for that.
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
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// Returns whether any memory is mapped, so that the kernel may call the module.
pub(super) fn is_any_mapped() -> bool {
    MAPPED.load(Ordering::Acquire) > 0
}

/// Memory with `struct page`s, and its claim, which may outlive their binding.
///
/// Dropping it unmaps the memory, and then releases the claim. None of the pages must be in use then.
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
    /// No page frame in front of this one is in use any more.
    idle_before: AtomicU64,
    claim: Claim,
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
    unsafe fn new<H: MemoryFailure>(
        layout: Layout,
        node: c_int,
        claim: Claim,
        handler: &H,
    ) -> Result<ListArc<Self>> {
        if !orphans::is_ready() {
            return Err(ENODEV);
        }
        // SAFETY: `# Safety` requires that it stays in place until `detach_handler`, after which it is not
        // called.
        let handler = unsafe { Handler::new(handler) };

        ListArc::pin_init(
            try_pin_init!(Self {
                // First: `memory_failure_callback` uses it as soon as the memory is mapped.
                binding <- new_mutex!(Binding::Bound(handler)),
                chunks: Chunks::new(&layout.range())?,
                idle_before: AtomicU64::new(0),
                claim,
                links <- ListLinks::new(),
                pgmap <- Opaque::ffi_init(|slot: *mut dev_pagemap| {
                    let mut pgmap = layout.0;

                    pgmap.type_ = memory_type_MEMORY_DEVICE_FS_DAX;
                    pgmap.ops = const { &Self::OPS };
                    pgmap.owner = slot.cast();
                    // SAFETY: `ffi_init` passes a slot that is valid for writes.
                    unsafe { slot.write(pgmap) };
                }),
                base: {
                    // SAFETY: `pgmap` is pinned, and its fields are set.
                    let base = from_err_ptr(unsafe {
                        kernel::bindings::memremap_pages(pgmap.get(), node)
                    })?;

                    NonNull::new(base.cast()).ok_or(ENOMEM)?
                },
            }? Error),
            GFP_KERNEL,
        )
        .inspect(|_| {
            MAPPED.fetch_add(1, Ordering::Relaxed);
        })
    }

    extern "C" fn memory_failure_callback(
        pgmap: *mut dev_pagemap,
        pfn: c_ulong,
        nr_pages: c_ulong,
        flags: c_int,
    ) -> c_int {
        let pgmap = Opaque::cast_from(pgmap);

        // SAFETY: The core holds a reference to the mapped memory, which `PinnedDrop` waits for, so that
        // `Self` is valid. `binding` was initialised before the memory was mapped.
        let binding = unsafe { &(*kernel::container_of!(pgmap, Self, pgmap)).binding };

        from_result(|| match &*binding.lock() {
            // SAFETY: By the type invariant the handler is valid while the lock is held: `detach_handler` takes
            // it.
            Binding::Bound(Handler { handler, call }) => unsafe {
                call(*handler, pfn as u64, nr_pages as u64, flags).map(|()| 0)
            },
            Binding::Ended(_) => Err(eopnotsupp()),
        })
    }

    /// Stops calls of the handler, and waits for one in progress.
    fn detach_handler(&self) {
        let module = orphans::module().and_then(ModuleRef::get);

        *self.binding.lock() = Binding::Ended(module);
    }

    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Returns the page frame that [`Self::frame_in_use`] has found last.
    pub(super) fn last_found(&self) -> u64 {
        self.idle_before.load(Ordering::Relaxed)
    }

    /// Returns the first page that is mapped by a process, referenced by I/O, or noted by a file system as
    /// a page of a file.
    ///
    /// It does not check pages again that were not in use: no pfns are returned to callers any more, so
    /// they get no new users.
    pub(super) fn frame_in_use(&self) -> Option<u64> {
        let frames = self.frames();
        let mut next = frames.start.max(self.idle_before.load(Ordering::Relaxed));

        while next < frames.end {
            let (marked, end) = self.chunks.chunk_of(next);
            let mut chunk = next..end.min(frames.end);

            next = chunk.end;
            if !marked {
                continue;
            }
            // SAFETY: `frames` are those with an initialised `struct page`, which are mapped.
            if let Some(busy) = chunk.find(|pfn| unsafe { page_is_in_use(*pfn) }) {
                self.idle_before.store(busy, Ordering::Relaxed);
                return Some(busy);
            }
            yield_cpu();
        }
        self.idle_before.store(next, Ordering::Relaxed);
        None
    }

    /// Returns a page in use like [`Self::frame_in_use`]. If there is none, it waits for threads that were
    /// about to use a page, or to release one, and checks all pages again.
    pub(super) fn last_frame_in_use(&self) -> Option<u64> {
        let busy = self.frame_in_use();

        if busy.is_some() || !self.chunks.any() {
            return busy;
        }
        wait_for_tasks();
        self.idle_before.store(0, Ordering::Relaxed);
        self.frame_in_use()
    }

    /// Waits a short time until none of the pages is in use. Returns the page frame of one that still is.
    ///
    /// `memunmap_pages` waits for references to the `pgmap`, but pages of this type hold none (Linux 7.2,
    /// `free_zone_device_folio`): without this, it would free the `struct page`s of pages in use.
    fn wait_until_idle(&self) -> Option<u64> {
        const TRIES: usize = 10;

        for _ in 0..TRIES {
            self.last_frame_in_use()?;
            // I/O with references to pages ends soon.
            fsleep(Delta::from_millis(10));
        }
        self.last_frame_in_use()
    }

    /// Returns the page frames with an initialised `struct page`: all but those that have the memmap.
    fn frames(&self) -> core::ops::Range<u64> {
        // SAFETY: By the type invariant the memory is mapped; the fields do not change then.
        let (range, reserved) = unsafe {
            let pgmap = &*self.pgmap.get();
            let altmap = &pgmap.altmap;
            let reserved = match pgmap.flags & kernel::bindings::PGMAP_ALTMAP_VALID {
                0 => 0,
                _ => altmap.reserve.wrapping_add(altmap.free),
            };

            (*pgmap.__bindgen_anon_1.range.as_ref(), reserved)
        };
        let first = (range.start >> PAGE_SHIFT).wrapping_add(reserved as u64);

        first..(range.end >> PAGE_SHIFT).wrapping_add(1)
    }
}

#[pinned_drop]
impl PinnedDrop for Pages {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the memory is mapped. It is unmapped only here. This waits for
        // `memory_failure_callback`, which does not wait for anything that is held here.
        unsafe { kernel::bindings::memunmap_pages(self.pgmap.get()) };
        MAPPED.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for threads that were preempted in the kernel while they were about to use a page or had just
/// released one.
///
/// In a fault, `dax_iomap_direct_access` releases the lock that `kill_dax` waits for before
/// `dax_insert_entry` makes the page one of a file. `free_zone_device_folio` reads a page after its count
/// is zero (Linux 7.2). Neither sleeps in between, except for a write fault of a former hole or of a shared
/// extent (`unmap_mapping_pages`), for which this does not wait.
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
        // `orphans::Watched` waits for its end before the module is unloaded.
        unsafe { kernel::bindings::module_put(self.0.as_ptr()) };
    }
}

/// The handler of memory failures in [`Pages`].
struct Attached<H: MemoryFailure> {
    pages: Arc<Pages>,
    #[expect(dead_code, reason = "held for `pages`")]
    failure: KBox<H>,
}

// SAFETY: `detach_handler` stops calls of the handler and waits for one in progress.
unsafe impl<H: MemoryFailure> Registered for Attached<H> {
    unsafe fn unregister(&self) {
        self.pages.detach_handler();
    }
}

impl<H: MemoryFailure> Drop for Attached<H> {
    fn drop(&mut self) {
        self.pages.detach_handler();
    }
}

/// Memory that is mapped with `struct page`s of type `MEMORY_DEVICE_FS_DAX`.
///
/// Dropping it stops calls of its handler and unmaps the memory. If pages are in use, it leaves them and
/// the claim to [`orphans`] instead. The DAX device over them must be dead by then, so that no pfns are
/// returned to callers any more.
pub(crate) struct DevPagemap<'bound, H: MemoryFailure> {
    pages: ManuallyDrop<ListArc<Pages>>,
    attached: ManuallyDrop<Scoped<'bound, Attached<H>>>,
}

impl<'bound, H: MemoryFailure + 'bound> DevPagemap<'bound, H> {
    /// Maps the addresses of `layout`, which are inside of `claim`, with `struct page`s on NUMA node
    /// `node`. [`ENODEV`] if `orphans` is not set up, [`ENOMEM`], or another error of `memremap_pages`.
    pub(super) fn new(
        layout: Layout,
        node: c_int,
        claim: Claim,
        failure: H,
        scope: &'bound Scope<'bound>,
    ) -> Result<Self> {
        let failure = KBox::new(failure, GFP_KERNEL)?;
        // SAFETY: The handler is in a box, which is freed after `Attached::drop` has called
        // `detach_handler`. If that is leaked, the scope calls it before `'bound` ends.
        let pages = unsafe { Pages::new(layout, node, claim, &*failure) }?;
        let attached = Attached {
            pages: pages.clone_arc(),
            failure,
        };

        Ok(Self {
            attached: ManuallyDrop::new(Scoped::new(scope, attached, |_| Ok(()))?),
            pages: ManuallyDrop::new(pages),
        })
    }

    /// Returns the kernel address of the first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.pages.base
    }

    /// Returns the pages that may have users.
    #[inline]
    pub(super) fn chunks(&self) -> &Chunks {
        &self.pages.chunks
    }
}

impl<H: MemoryFailure> Drop for DevPagemap<'_, H> {
    fn drop(&mut self) {
        // SAFETY: Neither is used after this.
        let pages = unsafe {
            ManuallyDrop::drop(&mut self.attached);
            ManuallyDrop::take(&mut self.pages)
        };

        if let Some(frame) = pages.wait_until_idle() {
            pr_warn!(
                "{}: page frame {frame:#x} is in use: to bind it again, close the files that map it, or unmount their file system\n",
                pages.claim.name()
            );
            orphans::add(pages);
        }
    }
}
