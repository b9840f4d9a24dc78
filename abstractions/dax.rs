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

/// The purpose of an access to pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To map, read or write them.
    Normal,
    /// To overwrite them, including bad ones, which the write repairs.
    RecoveryWrite,
}

/// The addresses of pages of a DAX device: see
/// [`Memory::pages_from`](super::memory::Memory::pages_from).
///
/// # Invariants
///
/// `address` and `pfn` are those of `pages` pages of a [`Memory`](super::memory::Memory) that is
/// borrowed for `'a`. `chunks` are those of their memory, if they have `struct page`s.
pub(crate) struct Translation<'a> {
    pub(super) address: NonNull<c_void>,
    pub(super) pfn: u64,
    pub(super) pages: u64,
    pub(super) chunks: Option<&'a Chunks>,
}

impl Translation<'_> {
    /// Returns the number of pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Returns the first `pages` of them, or all if there are fewer.
    pub(crate) fn first(self, pages: u64) -> Self {
        // INVARIANT: Fewer pages from the same address on.
        Self {
            pages: self.pages.min(pages),
            ..self
        }
    }
}

/// The operations of a DAX device. Offsets are in pages from the start of the device.
pub(crate) trait Operations: Send + Sync {
    /// Returns the address of the page at `offset`, and how many pages from there on are usable, of
    /// the `pages` that are asked for. `EHWPOISON` if there is none.
    fn direct_access(&self, offset: u64, pages: u64, access: Access) -> Result<Translation<'_>>;

    /// Zeroes `pages` pages from `offset` on, and repairs bad ones.
    fn zero_pages(&self, offset: u64, pages: u64) -> Result;

    /// Overwrites memory with bad pages. `to` is in the page at `offset`. Returns the number of
    /// bytes written: 0 if the first page can't be repaired.
    fn recovery_write(&self, offset: u64, to: RecoveryWrite<'_>) -> usize;
}

/// The source and the destination of a [`recovery_write`](Operations::recovery_write), behind the
/// bytes that are copied already.
///
/// # Invariants
///
/// `from` is a valid source iterator, exclusively borrowed for `'a`.
// The constructor of `kernel::iov::IovIterSource` can panic.
pub(crate) struct RecoveryWrite<'a> {
    to: *mut c_void,
    bytes: usize,
    from: *mut kernel::bindings::iov_iter,
    _iter: PhantomData<&'a mut kernel::bindings::iov_iter>,
}

impl RecoveryWrite<'_> {
    /// Returns the number of bytes that remain.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Returns the offset of the destination in its page.
    pub(crate) fn offset_in_page(&self) -> usize {
        (self.to as usize) & kernel::page::PAGE_SIZE.wrapping_sub(1)
    }

    /// Fills `buffer`, instead of the destination, with the next bytes, which stay the next ones.
    /// May fault, and sleep. [`EFAULT`] if fewer bytes remain or can be read.
    pub(crate) fn peek(&mut self, buffer: &mut [u8]) -> Result {
        let len = buffer.len().min(self.bytes);
        // SAFETY: `buffer` has at least `len` bytes, and by the type invariant `from` is valid.
        let copied = unsafe {
            kernel::bindings::_copy_from_iter(buffer.as_mut_ptr().cast(), len, self.from)
        };

        // SAFETY: By the type invariant `from` is valid. `copied` bytes were just taken from it.
        unsafe { kernel::bindings::iov_iter_revert(self.from, copied) };
        if copied < buffer.len() {
            return Err(EFAULT);
        }
        Ok(())
    }

    /// Skips the next `len` bytes, which are written.
    ///
    /// Not before: for a write that ends early, `dax_iomap_iter` continues where the iterator is.
    pub(crate) fn skip(&mut self, len: usize) {
        let len = len.min(self.bytes);

        // SAFETY: By the type invariant `from` is valid. Not more than its rest is skipped.
        unsafe { kernel::bindings::iov_iter_advance(self.from, len) };
        self.bytes = self.bytes.saturating_sub(len);
        self.to = self.to.wrapping_byte_add(len);
    }
}

/// The properties of a [`DaxDevice`].
#[derive(Clone, Copy)]
pub(crate) struct Properties {
    /// Stores are durable without an asynchronous flush by the provider, so that `MAP_SYNC` can be
    /// granted.
    pub(crate) synchronous: bool,
    /// File systems must write the CPU caches back for durability.
    pub(crate) write_cache: bool,
}

/// A DAX device whose copies bypass the CPU caches and survive machine checks.
///
/// It is dead when it is unregistered, and freed when the last file that is mapped through it is
/// gone.
///
/// # Invariants
///
/// `dax` is a `struct dax_device` to which a reference is held. Its private data are `ops`.
pub(crate) struct DaxDevice<T: Operations> {
    dax: NonNull<bindings::dax_device>,
    /// [`Self::kill`] has returned.
    is_dead: Atomic<bool>,
    #[expect(dead_code, reason = "held for the device")]
    ops: Arc<T>,
}

// SAFETY: Any thread may use and put a `struct dax_device`. `T` is `Send` and `Sync`.
unsafe impl<T: Operations> Send for DaxDevice<T> {}
// SAFETY: The flags of a `struct dax_device` are atomic. `T` is `Sync`.
unsafe impl<T: Operations> Sync for DaxDevice<T> {}

impl<T: Operations> DaxDevice<T> {
    const OPS: bindings::dax_operations = bindings::dax_operations {
        direct_access: Some(Self::direct_access_callback),
        zero_page_range: Some(Self::zero_page_range_callback),
        recovery_write: Some(Self::recovery_write_callback),
    };

    /// Creates a device. `EOPNOTSUPP` if only those that grant `MAP_SYNC` are to be had, which this
    /// one may not, [`ENOMEM`].
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

        // SAFETY: By the type invariant the device is valid.
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

        // SAFETY: `ops` stays in place until the device is dead: `drop` kills it first.
        let dax = unsafe { bindings::alloc_dax(private.cast(), const { &Self::OPS }) };
        let dax = from_err_ptr(dax)?;
        // INVARIANT: `alloc_dax` returns a device with one reference, which is ours.
        Ok(Self {
            dax: NonNull::new(dax).ok_or(ENOMEM)?,
            is_dead: Atomic::new(false),
            ops,
        })
    }

    /// Creates a device that is not synchronous.
    ///
    /// When `alloc_dax` of Linux 7.2 and 7.3 reuses a freed inode, it keeps the flags of the old
    /// device, and `DAXDEV_SYNC` can't be cleared: `MAP_SYNC` would be granted where a store is not
    /// durable. So this keeps such devices until it gets one without the flag. `EOPNOTSUPP` if it
    /// gets none.
    fn alloc_asynchronous(ops: Arc<T>) -> Result<Self> {
        const TRIES: usize = 64;
        let mut stale = KBox::new([const { None }; TRIES], GFP_KERNEL)?;

        for place in stale.iter_mut() {
            let this = Self::alloc(ops.clone())?;

            // SAFETY: By the type invariant the device is valid.
            if !unsafe { bindings::dax_synchronous(this.dax.as_ptr()) } {
                return Ok(this);
            }
            *place = Some(this);
        }
        Err(eopnotsupp())
    }

    /// Returns whether file systems write the CPU caches back for durability.
    pub(crate) fn write_cache(&self) -> bool {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::dax_write_cache_enabled(self.dax.as_ptr()) }
    }

    /// Sets whether file systems write the CPU caches back for durability.
    pub(crate) fn set_write_cache(&self, on: bool) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::dax_write_cache(self.dax.as_ptr(), on) };
    }

    /// Notifies the holder, and waits for all readers. Each call costs a grace period.
    fn kill(&self) {
        // SAFETY: By the type invariant the device is valid. `kill_dax` may be called more than
        // once.
        unsafe { bindings::kill_dax(self.dax.as_ptr()) };
        self.is_dead.store(true, Release);
    }

    /// Kills the device, if that has not been done.
    #[inline(never)]
    fn kill_once(&self) {
        if !self.is_dead.load(Acquire) {
            self.kill();
        }
    }

    /// Returns the operations of a device. `None` if it is dead.
    ///
    /// # Safety
    ///
    /// [`Self::new`] has created `dax`, and the read lock is held for all of `'a`.
    unsafe fn ops<'a>(dax: *mut bindings::dax_device) -> Option<&'a T> {
        // SAFETY: `new` has set the private data to a `T`. The device is alive, or the pointer is
        // null: `kill_dax`, after which the operations may be dropped, waits until the read lock is
        // released.
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
        // SAFETY: The DAX core calls this for a device with `OPS`, with the read lock held.
        let ops = unsafe { Self::ops(dax) };
        let access = match mode {
            bindings::dax_access_mode_DAX_RECOVERY_WRITE => Access::RecoveryWrite,
            _ => Access::Normal,
        };

        from_result(|| {
            // CAST: Not negative.
            let pages = nr_pages.max(0) as u64;
            let found = ops
                .ok_or(ENXIO)?
                .direct_access(pgoff as u64, pages, access)?;

            // A caller that does not ask for the pfn copies with the read lock held, and takes no
            // reference to a page.
            if !pfn.is_null() {
                // It looks up the `struct page`.
                let chunks = found.chunks.ok_or_else(eopnotsupp)?;

                // `dax_direct_access` returns at most as many pages as its caller has asked for.
                chunks.mark(found.pfn, pages.min(found.pages));
            }

            // The memory is borrowed from `ops`, and so stays mapped until the device is dead. The
            // core uses the address with the read lock held, with two exceptions: a fault that
            // copies around a page (`dax_iomap_copy_around`) has a page of the same memory then;
            // dm-writecache keeps the address, so its table must go before the driver is unbound,
            // as with `nd_pmem`.
            // SAFETY: The core passes pointers that are null or valid for writes.
            unsafe {
                if !address.is_null() {
                    address.write(found.address.as_ptr());
                }
                if !pfn.is_null() {
                    pfn.write(found.pfn as c_ulong);
                }
            }
            // CAST: Fewer pages than bytes in the address space.
            Ok(found.pages as c_long)
        })
    }

    extern "C" fn zero_page_range_callback(
        dax: *mut bindings::dax_device,
        pgoff: c_ulong,
        nr_pages: usize,
    ) -> c_int {
        // SAFETY: The DAX core calls this for a device with `OPS`, with the read lock held.
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
        // SAFETY: The DAX core calls this for a device with `OPS`, with the read lock held.
        let ops = unsafe { Self::ops(dax) };

        ops.map_or(0, |ops| {
            ops.recovery_write(
                pgoff as u64,
                // INVARIANT: `dax_iomap_iter` passes its own iterator.
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

// SAFETY: `kill` waits for operations in progress, and the core calls none for a dead device. What
// is left is a reference to the device.
unsafe impl<T: Operations> Registered for DaxDevice<T> {
    unsafe fn unregister(&self) {
        self.kill_once();
    }
}

impl<T: Operations> Drop for DaxDevice<T> {
    fn drop(&mut self) {
        // After this, nobody uses `ops` through the device.
        self.kill_once();
        // SAFETY: By the type invariant a reference to the device is held.
        unsafe { bindings::put_dax(self.dax.as_ptr()) };
    }
}

/// A link from memory with `struct page`s to the DAX device over it.
///
/// A memory failure may be reported while the device is created or dropped: it finds a live device
/// or none.
///
/// # Invariants
///
/// `dax` is null, or the device of a [`Registration`] that is registered.
pub(crate) struct FailureLink {
    dax: Atomic<*mut bindings::dax_device>,
}

impl FailureLink {
    /// Creates a link without a device.
    pub(crate) fn new() -> Self {
        // INVARIANT: `dax` is null.
        Self {
            dax: Atomic::new(core::ptr::null_mut()),
        }
    }

    /// Notifies the file system on the device of a failure of `len` bytes at `offset`, in bytes
    /// from the start of the device.
    ///
    /// `EOPNOTSUPP` if there is no device, or no file system on it that handles failures.
    pub(crate) fn notify_holder(&self, offset: u64, len: u64, flags: c_int) -> Result {
        let _alive = ReadLock::new();
        let dax = self.dax.load(Acquire);

        if dax.is_null() {
            return Err(eopnotsupp());
        }
        // SAFETY: `dax` was found with the read lock held. `Registration::unregister` clears the
        // link, and then waits for readers in `kill_dax` before its reference to the device is put.
        to_result(unsafe { bindings::dax_holder_notify_failure(dax, offset, len, flags) })
            // The device is dead since the link was read, or its file system does not have the
            // address.
            .map_err(|e| if e == ENXIO { eopnotsupp() } else { e })
    }
}

/// The read lock of all DAX devices: while it is held, no live device becomes dead.
///
/// # Invariants
///
/// The lock is held. The field is the value that `dax_read_lock` has returned.
struct ReadLock(c_int);

impl ReadLock {
    fn new() -> Self {
        // INVARIANT: The lock is taken here.
        // SAFETY: The lock may be taken at any time, and nests.
        Self(unsafe { bindings::dax_read_lock() })
    }
}

impl Drop for ReadLock {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is held, and this is the value that it was taken
        // with.
        unsafe { bindings::dax_read_unlock(self.0) };
    }
}

/// A [`DaxDevice`] that file systems find through its disk, and memory failures through a
/// [`FailureLink`]. When it is unregistered, its holder is notified that the memory goes away.
///
/// # Invariants
///
/// While it is registered, `device` is the DAX device of the host `disk`, and `link` has `device`
/// or null.
pub(crate) struct Registration<'bound, T: Operations> {
    device: Arc<Scoped<'bound, DaxDevice<T>>>,
    disk: GenDisk,
    link: Arc<FailureLink>,
}

impl<'bound, T: Operations + 'bound> Registration<'bound, T> {
    /// Registers `device` for `disk` and `link`. [`EBUSY`] if the disk has a DAX device,
    /// [`ENOMEM`].
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

            // SAFETY: Both are valid, as `this` holds references to them.
            to_result(unsafe { bindings::dax_add_host(dax, this.disk.as_raw()) })?;
            // INVARIANT: `dax_add_host` has succeeded.
            this.link.dax.store(dax, Release);
            Ok(())
        })
    }
}

// SAFETY: The device can't be found through the disk or the link any more, and `kill` waits for
// those that found it with the read lock held. There are no methods.
unsafe impl<T: Operations> Registered for Registration<'_, T> {
    unsafe fn unregister(&self) {
        // SAFETY: `Registered::unregister` requires that the value is registered, so `dax_add_host`
        // has succeeded for the disk.
        unsafe { bindings::dax_remove_host(self.disk.as_raw()) };
        self.link.dax.store(core::ptr::null_mut(), Release);
        // Waits for all readers: nobody has a pointer from `link` any more.
        self.device.kill();
    }
}
