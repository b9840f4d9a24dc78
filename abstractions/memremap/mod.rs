// SPDX-License-Identifier: GPL-2.0

//! Memory with `struct page`s that a driver owns (`struct dev_pagemap`).
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

mod chunks;
mod layout;
pub(crate) mod orphans;
mod pages;

pub(super) use self::{
    chunks::Chunks,
    layout::zeroed, //
};
pub(crate) use self::{
    layout::Layout,
    pages::{
        is_simulated,
        MemoryFailure, //
    }, //
};

use self::pages::Pages;
use super::{
    device::NumaNode,
    iomem::Claim,
    scope::{
        Registered,
        Scope,
        Scoped, //
    }, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    list::ListArc,
    prelude::*,
    sync::Arc, //
};

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
/// Dropping it stops calls of its handler and unmaps the memory. If pages are in use, it leaves
/// them and the claim to [`orphans`] instead. The DAX device over them must be dead by then, so
/// that no pfns are returned to callers any more.
pub(crate) struct DevPagemap<'bound, H: MemoryFailure> {
    pages: ManuallyDrop<ListArc<Pages>>,
    attached: ManuallyDrop<Scoped<'bound, Attached<H>>>,
}

impl<'bound, H: MemoryFailure + 'bound> DevPagemap<'bound, H> {
    /// Maps the addresses of `layout`, which are inside of `claim`, with `struct page`s on NUMA
    /// node `node`. [`ENODEV`] if `orphans` is not set up, [`ENOMEM`], or another error of
    /// `memremap_pages`.
    pub(in crate::abstractions) fn new(
        layout: Layout,
        node: NumaNode,
        claim: Claim,
        failure: H,
        scope: &'bound Scope<'bound>,
    ) -> Result<Self> {
        let module = orphans::module().ok_or(ENODEV)?;
        let failure = KBox::new(failure, GFP_KERNEL)?;
        // SAFETY: The handler is in a box, which is freed after `Attached::drop` has called
        // `detach_handler`. If that is leaked, the scope calls it before `'bound` ends.
        let pages = unsafe { Pages::new(layout, node, claim, &*failure, module) }?;
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
    pub(in crate::abstractions) fn base(&self) -> NonNull<u8> {
        self.pages.base()
    }

    /// Returns the pages that may have users.
    #[inline]
    pub(in crate::abstractions) fn chunks(&self) -> &Chunks {
        self.pages.chunks()
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
                "{}: page frame {frame:#x} is in use: close the files that map it, or unmount their file system, before the namespace is bound again\n",
                pages.claim().name()
            );
            orphans::add(pages);
        }
    }
}
