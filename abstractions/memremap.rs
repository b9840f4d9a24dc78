// SPDX-License-Identifier: GPL-2.0

//! Page maps: `struct page`s for memory that a driver owns.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

#[cfg(CONFIG_X86_64)]
use super::page::page_is_in_use;
use super::{
    errno::eopnotsupp,
    iomem::Claim,
    orphans, //
};
use core::{
    mem::ManuallyDrop,
    ops::RangeInclusive,
    ptr::NonNull,
    sync::atomic::{
        AtomicU64,
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
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    types::Opaque, //
};

/// Who is told when memory of a page map fails.
pub(crate) trait MemoryFailure: Send + Sync {
    /// `nr_pages` pages from page frame `pfn` on have failed, really or because somebody tries what
    /// happens then: see [`is_simulated`].
    ///
    /// `EOPNOTSUPP` where nobody knows their users, so that the core finds and kills them.
    ///
    /// The caller holds a reference to the page map that its unmapping waits for: do not wait for
    /// anything that unbinding holds.
    fn memory_failure(&self, pfn: u64, nr_pages: u64, flags: c_int) -> Result;
}

/// Whether the flags of a memory failure say that the memory is good (`MADV_HWPOISON` and such).
pub(crate) fn is_simulated(flags: c_int) -> bool {
    // CAST: One bit.
    flags & kernel::bindings::mf_flags_MF_SW_SIMULATED as c_int != 0
}

/// Which physical addresses are to have `struct page`s, and where those are kept.
pub(crate) struct Layout(dev_pagemap);

impl Layout {
    /// `pgmap` has at least its range set, as by `nvdimm_setup_pfn`.
    pub(super) fn from_raw(pgmap: dev_pagemap) -> Self {
        Self(pgmap)
    }

    /// All of `range`, with the `struct page`s in ordinary memory.
    pub(crate) fn in_ram(range: &RangeInclusive<u64>) -> Self {
        let mut pgmap = zeroed();

        pgmap.nr_range = 1;
        // SAFETY: `range` is the member that is in use where there is one range.
        *unsafe { pgmap.__bindgen_anon_1.range.as_mut() } = kernel::bindings::range {
            start: *range.start(),
            end: *range.end(),
        };
        Self(pgmap)
    }

    /// The physical addresses.
    pub(crate) fn range(&self) -> RangeInclusive<u64> {
        // SAFETY: There is one range, so that it is `range` that is in use.
        let range = unsafe { self.0.__bindgen_anon_1.range.as_ref() };

        range.start..=range.end
    }
}

/// An all-zero page map: what `kzalloc` gives a C driver.
pub(super) fn zeroed() -> dev_pagemap {
    // SAFETY: `struct dev_pagemap` is plain C data, for which all zeroes is its empty state.
    unsafe { core::mem::zeroed() }
}

/// How many pages make a chunk: 2 MiB, what a process maps at once if it can.
const CHUNK: u64 = 512;

/// How many bits a word has.
const WORD: u64 = u64::BITS as u64;

/// Which pages of a page map may have users: a bit for each chunk of pages.
///
/// A page gets its first user from somebody who was told its page frame number.
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
    /// None of the pages of `range`. [`ENOMEM`].
    fn new(range: &RangeInclusive<u64>) -> Result<Self> {
        let origin = range.start() >> PAGE_SHIFT;
        let last = (range.end() >> PAGE_SHIFT).saturating_sub(origin) / CHUNK;
        let words = usize::try_from(last / WORD)?.saturating_add(1);
        let bits = KVVec::from_elem(Word(AtomicU64::new(0)), words, GFP_KERNEL)?;

        Ok(Self { origin, bits })
    }

    /// The word with the bit of a chunk, and that bit.
    #[inline]
    fn bit(&self, chunk: u64) -> Option<(&AtomicU64, u64)> {
        // CAST: A page frame number fits, as this is a 64-bit architecture.
        let word = self.bits.get((chunk / WORD) as usize)?;

        Some((&word.0, 1 << (chunk % WORD)))
    }

    /// Notes that somebody is told of `pages` pages from page frame `pfn` on.
    #[inline]
    pub(super) fn mark(&self, pfn: u64, pages: u64) {
        let first = pfn.wrapping_sub(self.origin);
        let last = first.wrapping_add(pages).wrapping_sub(1) / CHUNK;
        let mut chunk = first / CHUNK;

        while let Some((word, bit)) = self.bit(chunk) {
            // Nearly always it is set: the word stays in all CPUs' caches.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
            if chunk >= last {
                break;
            }
            chunk = chunk.wrapping_add(1);
        }
    }

    /// Whether somebody was told of any page.
    fn any(&self) -> bool {
        self.bits
            .iter()
            .any(|word| word.0.load(Ordering::Relaxed) != 0)
    }

    /// Whether pages of the chunk with page frame `pfn` may have users, and the page frame after the
    /// chunk.
    #[cfg(CONFIG_X86_64)]
    fn chunk_of(&self, pfn: u64) -> (bool, u64) {
        let chunk = pfn.wrapping_sub(self.origin) / CHUNK;
        let marked = self
            .bit(chunk)
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0);
        let next = chunk.saturating_add(1).saturating_mul(CHUNK);

        (marked, self.origin.saturating_add(next))
    }
}

/// Who answers for pages.
enum Owner {
    /// A binding, whose handler this is.
    Bound(Handler),
    /// Nobody any more: they are among the [`orphans`], which keep the module loaded.
    Nobody(#[expect(dead_code, reason = "held to be dropped")] Option<ModuleRef>),
}

/// A [`MemoryFailure`] without its type.
struct Handler {
    handler: NonNull<c_void>,
    call: unsafe fn(NonNull<c_void>, u64, u64, c_int) -> Result,
}

// SAFETY: What it points to is `Sync`.
unsafe impl Send for Handler {}

impl Handler {
    /// # Safety
    ///
    /// `handler` stays where it is for as long as the value is used.
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
            // SAFETY: `handler` points to an `H`, as `# Safety` asks.
            unsafe { handler.cast::<H>().as_ref() }.memory_failure(pfn, nr_pages, flags)
        }

        Self {
            handler: NonNull::from(handler).cast(),
            call: call::<H>,
        }
    }
}

/// A page map and the claim of its memory, which may outlive their binding. Unmapped, then released,
/// when dropped; by then none of the pages must be in use.
///
/// # Invariants
///
/// `pgmap` is mapped, at `base`. The handler of `owner` is there.
#[pin_data(PinnedDrop)]
pub(super) struct Pages {
    #[pin]
    pgmap: Opaque<dev_pagemap>,
    base: NonNull<u8>,
    chunks: Chunks,
    /// No page frame before this one is in use any more.
    idle_before: AtomicU64,
    claim: Claim,
    #[pin]
    links: ListLinks,
    // Last, as the module stays until all else is done.
    #[pin]
    owner: Mutex<Owner>,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Pages { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Pages { using ListLinks { self.links }; }
}

// SAFETY: The map may be undone by any thread.
unsafe impl Send for Pages {}
// SAFETY: What can be changed by a reference is atomic, or has a lock.
unsafe impl Sync for Pages {}

impl Pages {
    const OPS: dev_pagemap_ops = dev_pagemap_ops {
        folio_free: None,
        migrate_to_ram: None,
        memory_failure: Some(Self::memory_failure_callback),
        folio_split: None,
    };

    /// # Safety
    ///
    /// `handler` stays where it is until [`Self::cut_off`] was called.
    unsafe fn new<H: MemoryFailure>(
        layout: Layout,
        node: c_int,
        claim: Claim,
        handler: &H,
    ) -> Result<ListArc<Self>> {
        if !orphans::is_ready() {
            return Err(ENODEV);
        }
        // SAFETY: The handler stays where it is until it is cut off, and is not called afterwards.
        let handler = unsafe { Handler::new(handler) };

        ListArc::pin_init(
            try_pin_init!(Self {
                // First, as the map calls it from the moment it is there.
                owner <- new_mutex!(Owner::Bound(handler)),
                chunks: Chunks::new(&layout.range())?,
                idle_before: AtomicU64::new(0),
                claim,
                links <- ListLinks::new(),
                pgmap <- Opaque::ffi_init(|slot: *mut dev_pagemap| {
                    let mut pgmap = layout.0;

                    pgmap.type_ = memory_type_MEMORY_DEVICE_FS_DAX;
                    pgmap.ops = const { &Self::OPS };
                    pgmap.owner = slot.cast();
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(pgmap) };
                }),
                base: {
                    // SAFETY: The map is pinned, and its fields are set.
                    let base = from_err_ptr(unsafe {
                        kernel::bindings::memremap_pages(pgmap.get(), node)
                    })?;

                    NonNull::new(base.cast()).ok_or(ENOMEM)?
                },
            }? Error),
            GFP_KERNEL,
        )
    }

    extern "C" fn memory_failure_callback(
        pgmap: *mut dev_pagemap,
        pfn: c_ulong,
        nr_pages: c_ulong,
        flags: c_int,
    ) -> c_int {
        let pgmap = Opaque::cast_from(pgmap);

        // SAFETY: The core holds a reference to the map, so that it, and all that it is a field
        // of, is there; `owner` was initialised before the map was made.
        let owner = unsafe { &(*kernel::container_of!(pgmap, Self, pgmap)).owner };

        from_result(|| match &*owner.lock() {
            // SAFETY: The handler stays until `cut_off` has had the lock.
            Owner::Bound(Handler { handler, call }) => unsafe {
                call(*handler, pfn as u64, nr_pages as u64, flags).map(|()| 0)
            },
            Owner::Nobody(_) => Err(eopnotsupp()),
        })
    }

    /// Calls the handler no more. Waits for a call that is under way.
    fn cut_off(&self) {
        *self.owner.lock() = Owner::Nobody(None);
    }

    /// Keeps `module` loaded for as long as the pages are there, unless it is being unloaded.
    pub(super) fn hold(&self, module: &'static ThisModule) {
        *self.owner.lock() = Owner::Nobody(ModuleRef::get(module));
    }

    /// The claim of the memory.
    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The page frame that [`Self::frame_in_use`] has found.
    pub(super) fn last_found(&self) -> u64 {
        self.idle_before.load(Ordering::Relaxed)
    }

    /// The first page that is mapped by a process, held for I/O, or remembered by a file system as a
    /// page of a file. What was found idle stays so, and is not looked at again: nobody is told of
    /// pages any more.
    pub(super) fn frame_in_use(&self) -> Option<u64> {
        #[cfg(CONFIG_X86_64)]
        {
            let frames = self.frames();
            let mut next = frames.start.max(self.idle_before.load(Ordering::Relaxed));

            while next < frames.end {
                let (marked, end) = self.chunks.chunk_of(next);
                let mut chunk = next..end.min(frames.end);

                next = chunk.end;
                if !marked {
                    continue;
                }
                // SAFETY: The page frames are memory of this map, which is live.
                if let Some(busy) = chunk.find(|pfn| unsafe { page_is_in_use(*pfn) }) {
                    self.idle_before.store(busy, Ordering::Relaxed);
                    return Some(busy);
                }
                yield_cpu();
            }
            self.idle_before.store(next, Ordering::Relaxed);
        }
        None
    }

    /// As [`Self::frame_in_use`]; and if there is none, nobody is left who was about to use a page, or
    /// to give one up, when it was called.
    pub(super) fn last_frame_in_use(&self) -> Option<u64> {
        let busy = self.frame_in_use();

        if busy.is_some() || !self.chunks.any() {
            return busy;
        }
        wait_for_tasks();
        self.idle_before.store(0, Ordering::Relaxed);
        self.frame_in_use()
    }

    /// Waits a short time until none of the pages is in use; the page frame of one that still is.
    ///
    /// The core waits for references to the map, and pages of this type hold none (Linux 7.2,
    /// `free_zone_device_folio`): their `struct page`s would go away under their users.
    fn wait_until_idle(&self) -> Option<u64> {
        const TRIES: usize = 10;

        for _ in 0..TRIES {
            self.last_frame_in_use()?;
            // I/O that holds pages ends soon.
            fsleep(Delta::from_millis(10));
        }
        self.last_frame_in_use()
    }

    /// The page frames that have an initialised `struct page`: all, but for those that keep the
    /// `struct page`s.
    #[cfg(CONFIG_X86_64)]
    fn frames(&self) -> core::ops::Range<u64> {
        // SAFETY: The fields do not change while the memory is mapped.
        let (range, kept) = unsafe {
            let pgmap = &*self.pgmap.get();
            let altmap = &pgmap.altmap;
            let kept = match pgmap.flags & kernel::bindings::PGMAP_ALTMAP_VALID {
                0 => 0,
                _ => altmap.reserve.wrapping_add(altmap.free),
            };

            (*pgmap.__bindgen_anon_1.range.as_ref(), kept)
        };
        let first = (range.start >> PAGE_SHIFT).wrapping_add(kept as u64);

        first..(range.end >> PAGE_SHIFT).wrapping_add(1)
    }
}

#[pinned_drop]
impl PinnedDrop for Pages {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant; it is unmapped only here. This waits for those who are in
        // `memory_failure_callback`, who wait for nothing that is held here.
        unsafe { kernel::bindings::memunmap_pages(self.pgmap.get()) };
    }
}

/// Waits for threads that were preempted in the kernel: those that have got a page in a fault and have
/// not yet made it a page of their file, and those that have given up the last reference to a page and
/// still look at it.
///
/// `dax_iomap_direct_access` gives up the lock that `kill_dax` waits for before `dax_insert_entry`
/// has changed the page, and `free_zone_device_folio` reads it when its count is zero (Linux 7.2).
/// Neither sleeps in between, but for a write fault of what was a hole before, or of an extent that
/// files share (`unmap_mapping_pages`): that one is not waited for.
fn wait_for_tasks() {
    // SAFETY: May sleep here.
    #[cfg(CONFIG_TASKS_RCU)]
    unsafe {
        kernel::bindings::synchronize_rcu_tasks()
    };
    // SAFETY: As above. Nobody is preempted in the kernel: see bindings_helper.h.
    #[cfg(not(CONFIG_TASKS_RCU))]
    unsafe {
        kernel::bindings::synchronize_rcu()
    };
}

/// Lets others have the CPU (`cond_resched`).
#[cfg(CONFIG_X86_64)]
fn yield_cpu() {
    // Elsewhere, the kernel takes it.
    // SAFETY: May sleep here.
    #[cfg(any(not(CONFIG_PREEMPTION), CONFIG_PREEMPT_DYNAMIC))]
    unsafe {
        kernel::bindings::__cond_resched()
    };
}

/// A reference to the module, which can't be unloaded as long as there is one.
struct ModuleRef(&'static ThisModule);

impl ModuleRef {
    /// `None` if the module is being unloaded.
    fn get(module: &'static ThisModule) -> Option<Self> {
        // SAFETY: It is this module, which is there.
        unsafe { kernel::bindings::try_module_get(module.as_ptr()) }.then_some(Self(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: It was taken by `get`. Unloading waits for who drops it: see `orphans::Watched`.
        unsafe { kernel::bindings::module_put(self.0.as_ptr()) };
    }
}

/// Memory mapped with `struct page`s of type `MEMORY_DEVICE_FS_DAX`.
///
/// Dropping it ends calls of its handler, and unmaps the memory, unless some of the pages are in use:
/// then it is left to the [`orphans`], with the claim. By then nobody must be told of pages any more:
/// the DAX device over them is dead.
pub(crate) struct PageMap<H: MemoryFailure> {
    pages: ManuallyDrop<ListArc<Pages>>,
    #[expect(dead_code, reason = "held for `pages`")]
    failure: KBox<H>,
}

impl<H: MemoryFailure> PageMap<H> {
    /// Maps the addresses of `layout`, which are inside of `claim`, with `struct page`s on NUMA node
    /// `node`.
    pub(super) fn new(layout: Layout, node: c_int, claim: Claim, failure: H) -> Result<Self> {
        let failure = KBox::new(failure, GFP_KERNEL)?;
        // SAFETY: The handler is in a box, which is kept until `drop` has cut it off.
        let pages = unsafe { Pages::new(layout, node, claim, &*failure) }?;

        Ok(Self {
            pages: ManuallyDrop::new(pages),
            failure,
        })
    }

    /// The kernel's address of the first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.pages.base
    }

    /// Which pages may have users.
    #[inline]
    pub(super) fn chunks(&self) -> &Chunks {
        &self.pages.chunks
    }
}

impl<H: MemoryFailure> Drop for PageMap<H> {
    fn drop(&mut self) {
        // SAFETY: It is not used again.
        let pages = unsafe { ManuallyDrop::take(&mut self.pages) };

        pages.cut_off();
        if let Some(frame) = pages.wait_until_idle() {
            pr_warn!(
                "{}: page frame {frame:#x} is in use: to bind it again, close the files that map it, or unmount their file system\n",
                pages.claim.name()
            );
            orphans::add(pages);
        }
    }
}
