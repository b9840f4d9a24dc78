// SPDX-License-Identifier: GPL-2.0

//! DAX devices: memory that file systems map and copy without a page cache.
//!
//! C header: [`include/linux/dax.h`](srctree/include/linux/dax.h)

use super::{
    bindings,
    block::GenDisk,
    errno::eopnotsupp,
    memremap::Chunks,
    scope::{
        Registered,
        Scope,
        Scoped, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc, //
    }, //
};

/// What a range of pages is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be mapped, read or written.
    Normal,
    /// To be overwritten as a whole, for its recovery: errors in it do not count.
    RecoveryWrite,
}

/// Where pages of a DAX device are, as [`Memory::pages_from`](super::memory::Memory::pages_from) says.
///
/// # Invariants
///
/// `address` and `pfn` are those of `pages` pages of a [`Memory`](super::memory::Memory) that is borrowed
/// for `'a`. `chunks` are those of the page map they are in, if they have `struct page`s.
pub(crate) struct Translation<'a> {
    pub(super) address: NonNull<c_void>,
    pub(super) pfn: u64,
    pub(super) pages: u64,
    pub(super) chunks: Option<&'a Chunks>,
    pub(super) memory: PhantomData<&'a ()>,
}

impl Translation<'_> {
    /// How many pages they are.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// The first `pages` of them, or all if there are no more.
    pub(crate) fn first(self, pages: u64) -> Self {
        // INVARIANT: A part of the pages.
        Self {
            pages: self.pages.min(pages),
            ..self
        }
    }
}

/// What a DAX device does. Offsets are in pages from the start of the device.
pub(crate) trait Operations: Send + Sync {
    /// Where the page at `offset` is, and how many of the `pages` wanted from there on are usable.
    ///
    /// `EHWPOISON` if not even the first is.
    fn direct_access(&self, offset: u64, pages: u64, access: Access) -> Result<Translation<'_>>;

    /// Zeroes `pages` pages from `offset` on, clearing errors in them.
    fn zero_pages(&self, offset: u64, pages: u64) -> Result;

    /// Overwrites memory that has errors, from the page at `offset` on, where `to` is, and returns
    /// the number of bytes written: 0 if the errors can't be cleared.
    fn recovery_write(&self, offset: u64, to: RecoveryWrite<'_>) -> usize;
}

/// The bytes of a [`recovery_write`](Operations::recovery_write) that are not copied yet, and where they
/// go.
///
/// # Invariants
///
/// `from` is a valid iterator that memory is copied from, and nobody else's for `'a`. `to` is valid
/// for writes of `bytes` bytes.
// `kernel::iov::IovIterSource` has no copy past the CPU's caches, and its constructor may panic.
pub(crate) struct RecoveryWrite<'a> {
    to: *mut c_void,
    bytes: usize,
    from: *mut kernel::bindings::iov_iter,
    _iter: PhantomData<&'a mut kernel::bindings::iov_iter>,
}

impl RecoveryWrite<'_> {
    /// The number of bytes left.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// The offset in its page of where the first byte goes.
    pub(crate) fn offset_in_page(&self) -> usize {
        (self.to as usize) & kernel::page::PAGE_SIZE.wrapping_sub(1)
    }

    /// Copies the next bytes into `buffer`, all that it has room for, instead of where they go.
    ///
    /// [`EFAULT`] if there are fewer, or if they can't be read; nothing was taken then. Page faults are
    /// served.
    pub(crate) fn copy_to(&mut self, buffer: &mut [u8]) -> Result {
        let len = buffer.len().min(self.bytes);
        // SAFETY: `buffer` has room for `len` bytes, and by the type invariant `from` is valid.
        let copied = unsafe {
            kernel::bindings::_copy_from_iter(buffer.as_mut_ptr().cast(), len, self.from)
        };

        if copied < buffer.len() {
            // SAFETY: By the type invariant `from` is valid; so many bytes were just taken from it.
            unsafe { kernel::bindings::iov_iter_revert(self.from, copied) };
            return Err(EFAULT);
        }
        // INVARIANT: Not more than `bytes` were copied; what is left goes behind them.
        self.bytes = self.bytes.saturating_sub(copied);
        self.to = self.to.wrapping_byte_add(copied);
        Ok(())
    }

    /// Copies the bytes to where they go, past the CPU's caches, and returns how many were copied.
    pub(crate) fn copy(self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { kernel::bindings::_copy_from_iter_flushcache(self.to, self.bytes, self.from) }
    }
}

/// How a [`DaxDevice`] behaves.
#[derive(Clone, Copy)]
pub(crate) struct Properties {
    /// Stores are durable without a flush by the provider, so that `MAP_SYNC` can be granted.
    pub(crate) synchronous: bool,
    /// CPU caches must be written back for durability.
    pub(crate) write_cache: bool,
}

/// A DAX device whose copies bypass the CPU's caches and survive machine checks. Dead when it is
/// unregistered, and freed when the last file that is mapped through it is gone.
///
/// # Invariants
///
/// `dax` is a `struct dax_device` that a reference is held to, with `ops` as its private data.
pub(crate) struct DaxDevice<T: Operations> {
    dax: NonNull<bindings::dax_device>,
    #[expect(dead_code, reason = "held for the device")]
    ops: Arc<T>,
}

// SAFETY: `struct dax_device` may be used and put by any thread.
unsafe impl<T: Operations> Send for DaxDevice<T> {}
// SAFETY: As above.
unsafe impl<T: Operations> Sync for DaxDevice<T> {}

impl<T: Operations> DaxDevice<T> {
    const OPS: bindings::dax_operations = bindings::dax_operations {
        direct_access: Some(Self::direct_access_callback),
        zero_page_range: Some(Self::zero_page_range_callback),
        recovery_write: Some(Self::recovery_write_callback),
    };

    /// `EOPNOTSUPP` where the architecture has no DAX, [`ENOMEM`].
    pub(crate) fn new<'bound>(
        ops: Arc<T>,
        properties: Properties,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>>
    where
        T: 'bound,
    {
        let this = if properties.synchronous {
            Self::alloc(ops)?
        } else {
            Self::alloc_asynchronous(ops)?
        };

        // SAFETY: By the type invariant.
        unsafe {
            bindings::set_dax_nocache(this.dax.as_ptr());
            bindings::set_dax_nomc(this.dax.as_ptr());
            if properties.synchronous {
                bindings::set_dax_synchronous(this.dax.as_ptr());
            }
        }
        this.set_write_cache(properties.write_cache);
        Scoped::new(scope, this, |_| Ok(()))
    }

    fn alloc(ops: Arc<T>) -> Result<Self> {
        let private = core::ptr::from_ref::<T>(&ops).cast_mut();

        // SAFETY: `ops` is kept until the device is dead: see `drop`.
        let dax = unsafe { bindings::alloc_dax(private.cast(), const { &Self::OPS }) };
        let dax = from_err_ptr(dax)?;
        // INVARIANT: `alloc_dax` gives the first reference.
        Ok(Self {
            dax: NonNull::new(dax).ok_or(ENOMEM)?,
            ops,
        })
    }

    /// A device that is not synchronous.
    ///
    /// `alloc_dax` of Linux 7.2 does not clear the flags of a freed device whose memory it uses
    /// again, and nothing takes back that a device is synchronous: `MAP_SYNC` would be granted where
    /// a store is not durable. Such devices are held until there is another one; `EOPNOTSUPP` if
    /// there is none.
    fn alloc_asynchronous(ops: Arc<T>) -> Result<Self> {
        const TRIES: usize = 64;
        let mut stale = KBox::new([const { None }; TRIES], GFP_KERNEL)?;

        for place in stale.iter_mut() {
            let this = Self::alloc(ops.clone())?;

            // SAFETY: By the type invariant.
            if !unsafe { bindings::dax_synchronous(this.dax.as_ptr()) } {
                return Ok(this);
            }
            *place = Some(this);
        }
        Err(eopnotsupp())
    }

    /// Whether the CPU's caches are written back for durability.
    pub(crate) fn write_cache(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::dax_write_cache_enabled(self.dax.as_ptr()) }
    }

    /// Says whether the CPU's caches are to be written back for durability.
    pub(crate) fn set_write_cache(&self, on: bool) {
        // SAFETY: By the type invariant.
        unsafe { bindings::dax_write_cache(self.dax.as_ptr(), on) };
    }

    /// `None` if the device has died meanwhile.
    ///
    /// # Safety
    ///
    /// `dax` is a device made by [`Self::new`], and the read lock is held for all of `'a`.
    unsafe fn ops<'a>(dax: *mut bindings::dax_device) -> Option<&'a T> {
        // SAFETY: The device is one of ours. One that is alive under the read lock has its `ops`, in
        // their place, until the lock is given up: `kill_dax`, after which they may be dropped, waits
        // for that.
        unsafe { bindings::dax_get_private(dax).cast::<T>().as_ref() }
    }

    extern "C" fn direct_access_callback(
        dax: *mut bindings::dax_device,
        pgoff: c_ulong,
        nr_pages: c_long,
        mode: bindings::dax_access_mode,
        address: *mut *mut c_void,
        pfn: *mut c_ulong,
    ) -> c_long {
        // SAFETY: The core calls this under the read lock.
        let ops = unsafe { Self::ops(dax) };
        let access = match mode {
            bindings::dax_access_mode_DAX_RECOVERY_WRITE => Access::RecoveryWrite,
            _ => Access::Normal,
        };

        from_result(|| {
            // CAST: The core does not ask for a negative number.
            let pages = nr_pages.max(0) as u64;
            let found = ops
                .ok_or(ENXIO)?
                .direct_access(pgoff as u64, pages, access)?;

            // Without a page frame number, the caller copies, under the read lock, and takes no
            // reference to a page.
            if let (false, Some(chunks)) = (pfn.is_null(), found.chunks) {
                // `dax_direct_access` tells its callers of no more than they asked for.
                chunks.mark(found.pfn, pages.min(found.pages));
            }

            // The memory is borrowed from `ops`, which the device shares until it is dead: it stays
            // mapped for as long as the core may use the result.
            // SAFETY: Both are null or valid for writes.
            unsafe {
                if !address.is_null() {
                    address.write(found.address.as_ptr());
                }
                if !pfn.is_null() {
                    pfn.write(found.pfn as c_ulong);
                }
            }
            // CAST: Fewer than bytes of memory.
            Ok(found.pages as c_long)
        })
    }

    extern "C" fn zero_page_range_callback(
        dax: *mut bindings::dax_device,
        pgoff: c_ulong,
        nr_pages: usize,
    ) -> c_int {
        // SAFETY: As in `direct_access_callback`.
        let ops = unsafe { Self::ops(dax) };

        from_result(|| {
            ops.ok_or(ENXIO)?
                .zero_pages(pgoff as u64, nr_pages as u64)
                .map(|()| 0)
        })
    }

    extern "C" fn recovery_write_callback(
        dax: *mut bindings::dax_device,
        pgoff: c_ulong,
        to: *mut c_void,
        bytes: usize,
        from: *mut kernel::bindings::iov_iter,
    ) -> usize {
        // SAFETY: As in `direct_access_callback`.
        let ops = unsafe { Self::ops(dax) };

        ops.map_or(0, |ops| {
            ops.recovery_write(
                pgoff as u64,
                // INVARIANT: `dax_iomap_iter` passes its iterator, and the address that
                // `direct_access` gave for at least `bytes` bytes; the read lock is held.
                RecoveryWrite {
                    to,
                    bytes,
                    from,
                    _iter: PhantomData,
                },
            )
        })
    }
}

// SAFETY: A dead device calls its operations no more, and `kill_dax` waits for those that are running.
// What is left is a device that a reference is held to.
unsafe impl<T: Operations> Registered for DaxDevice<T> {
    unsafe fn unregister(&self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::kill_dax(self.dax.as_ptr()) };
    }
}

impl<T: Operations> Drop for DaxDevice<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. A dead device calls its operations no more; `kill_dax`
        // waits for those that are running, and may be called twice.
        unsafe {
            bindings::kill_dax(self.dax.as_ptr());
            bindings::put_dax(self.dax.as_ptr());
        }
    }
}

/// The way from a page map to the DAX device over it, if there is one at the moment.
///
/// A memory failure may be reported while the device is being set up or torn down: it finds either
/// a live device or none.
///
/// # Invariants
///
/// `dax` is null, or a device of a [`Registration`] that is registered.
pub(crate) struct FailureLink {
    dax: Atomic<*mut bindings::dax_device>,
}

impl FailureLink {
    /// A link that leads nowhere yet.
    pub(crate) fn new() -> Self {
        // INVARIANT: Null.
        Self {
            dax: Atomic::new(core::ptr::null_mut()),
        }
    }

    /// Tells the file system on the device that `len` bytes from `offset` on, in bytes from the
    /// start of the device, have failed.
    ///
    /// `EOPNOTSUPP` if there is no device, or nobody on it who wants to know.
    pub(crate) fn notify_holder(&self, offset: u64, len: u64, flags: c_int) -> Result {
        let _alive = ReadLock::new();
        let dax = self.dax.load(Acquire);

        if dax.is_null() {
            return Err(eopnotsupp());
        }
        // SAFETY: `dax` was not null under the read lock, so that `Registration::unregister`, which clears it
        // and then waits for all readers, has not yet put the device.
        to_result(unsafe { bindings::dax_holder_notify_failure(dax, offset, len, flags) })
    }
}

/// The lock under which a DAX device that was found alive stays so.
///
/// # Invariants
///
/// The lock is held, and what it was taken with is the field.
struct ReadLock(c_int);

impl ReadLock {
    fn new() -> Self {
        // INVARIANT: Taken here.
        // SAFETY: May always be called; the lock nests.
        Self(unsafe { bindings::dax_read_lock() })
    }
}

impl Drop for ReadLock {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is held.
        unsafe { bindings::dax_read_unlock(self.0) };
    }
}

/// A [`DaxDevice`] that file systems find through its disk, and memory failures through a
/// [`FailureLink`], until this is unregistered; its holder is then told that the memory goes away.
///
/// # Invariants
///
/// While it is registered, `device` is the host of `disk`, and nothing else but null is in `link`.
pub(crate) struct Registration<'bound, T: Operations> {
    device: Arc<Scoped<'bound, DaxDevice<T>>>,
    disk: GenDisk,
    link: Arc<FailureLink>,
}

impl<'bound, T: Operations + 'bound> Registration<'bound, T> {
    /// [`EBUSY`] if the disk has a DAX device, [`ENOMEM`].
    pub(crate) fn new(
        device: Arc<Scoped<'bound, DaxDevice<T>>>,
        disk: &GenDisk,
        link: Arc<FailureLink>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>> {
        let this = Self {
            device,
            disk: disk.clone(),
            link,
        };

        Scoped::new(scope, this, |this| {
            let dax = this.device.dax.as_ptr();

            // SAFETY: Both are valid, as references are held to them.
            to_result(unsafe { bindings::dax_add_host(dax, this.disk.as_raw()) })?;
            // INVARIANT: The device was just made the disk's host.
            this.link.dax.store(dax, Release);
            Ok(())
        })
    }
}

// SAFETY: Nobody finds the device through the disk or the link any more, and those who did have given
// up the read lock. There are no methods.
unsafe impl<T: Operations> Registered for Registration<'_, T> {
    unsafe fn unregister(&self) {
        // SAFETY: The device was added for this disk, and is removed only here.
        unsafe { bindings::dax_remove_host(self.disk.as_raw()) };
        self.link.dax.store(core::ptr::null_mut(), Release);
        // Tells the holder, and waits for all who hold the read lock, so that nobody has a pointer
        // from `link` any more.
        // SAFETY: The device is valid, as a reference is held to it.
        unsafe { bindings::kill_dax(self.device.dax.as_ptr()) };
    }
}
