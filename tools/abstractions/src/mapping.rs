// SPDX-License-Identifier: GPL-2.0

//! A shared mapping of a file.

use crate::cache::Flush;
use crate::sigbus::{self, BusError};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

/// A shared mapping of a range of a file.
///
/// The bytes may change at any time, so they are never borrowed, only copied. An access to a page
/// beyond the end of the file, or to poison, raises SIGBUS: see [`sigbus`].
///
/// # Invariants
///
/// `length` bytes at `base` are mapped shared, readable, and writable if `writable`, until the
/// value is dropped. (A page that [`sigbus`] replaced is mapped, too.)
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    length: usize,
    writable: bool,
}

/// Options of a [`Mapping`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// `PROT_WRITE`.
    pub writable: bool,
    /// `MAP_SYNC`: stores are durable after a cache write-back, without a system call.
    pub sync: bool,
    /// `MAP_POPULATE`: fault in all pages.
    pub populate: bool,
}

impl Mapping {
    /// Maps `length` bytes of a file from `offset`, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// Those of mmap(2).
    pub fn new(file: impl AsFd, offset: u64, length: usize, options: Options) -> io::Result<Self> {
        let mut flags = if options.sync {
            MapFlags::SHARED_VALIDATE | MapFlags::SYNC
        } else {
            MapFlags::SHARED
        };
        flags.set(MapFlags::POPULATE, options.populate);
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, options.writable);
        // SAFETY: The kernel chooses the address, so the mapping replaces no other.
        let base = unsafe { mmap(ptr::null_mut(), length, protection, flags, file, offset)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        // INVARIANT: mmap(2) has mapped `length` bytes at `base` with this protection.
        Ok(Self {
            base,
            length,
            writable: options.writable,
        })
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Always false: mmap(2) rejects a length of 0.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the address in this process.
    pub fn address(&self) -> usize {
        self.base.as_ptr() as usize
    }

    fn check(&self, at: usize, length: usize) {
        let end = at.checked_add(length);
        assert!(
            end.is_some_and(|end| end <= self.length),
            "{length} bytes at {at} of a mapping of {} bytes",
            self.length
        );
    }

    /// Returns the address of a range for reading.
    ///
    /// # Panics
    ///
    /// If the range is outside the mapping.
    pub(crate) fn range(&self, at: usize, length: usize) -> *mut u8 {
        self.check(at, length);
        self.base.as_ptr().wrapping_add(at)
    }

    /// Returns the address of a range for writing.
    ///
    /// # Panics
    ///
    /// If the range is outside the mapping, or the mapping is read-only.
    pub(crate) fn range_mut(&self, at: usize, length: usize) -> *mut u8 {
        assert!(self.writable, "a store to a read-only mapping");
        self.range(at, length)
    }

    /// Records whether all of the mapping is writable.
    pub(crate) fn set_writable(&mut self, writable: bool) {
        self.writable = writable;
    }

    /// Returns the address of the page that a range is in.
    fn page_of(&self, at: usize, length: usize) -> usize {
        let first = self.address() + at;
        let page = first & !(sigbus::PAGE - 1);
        assert!(
            first + length <= page + sigbus::PAGE,
            "{length} bytes at {at} are in more than one page"
        );
        page
    }

    /// Copies bytes of one page out; a SIGBUS is returned as an error.
    ///
    /// # Panics
    ///
    /// If the range is outside the mapping, or in more than one page.
    pub fn try_copy_out(&self, at: usize, bytes: &mut [u8]) -> Result<(), BusError> {
        sigbus::catching(self.page_of(at, bytes.len()), || self.copy_out(at, bytes))
    }

    /// Copies bytes into one page; a SIGBUS is returned as an error.
    ///
    /// # Panics
    ///
    /// If the range is outside the mapping, or in more than one page, or the mapping is read-only.
    pub fn try_copy_in(&self, at: usize, bytes: &[u8]) -> Result<(), BusError> {
        sigbus::catching(self.page_of(at, bytes.len()), || self.copy_in(at, bytes))
    }

    /// Copies bytes out.
    ///
    /// # Panics
    ///
    /// If the range is outside the mapping.
    pub fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        self.check(at, bytes.len());
        // SAFETY: `check` has verified the range, and by the type invariant it is mapped and
        // readable. `bytes` is a unique reference, and no reference to a mapping exists, so they
        // don't overlap.
        unsafe {
            let from = self.base.as_ptr().add(at);
            ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    ///
    /// If the range is outside the mapping, or the mapping is read-only.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        assert!(self.writable, "a store to a read-only mapping");
        self.check(at, bytes.len());
        // SAFETY: `check` has verified the range, and by the type invariant it is mapped and
        // writable. No reference to a mapping exists, so `bytes` does not overlap it.
        unsafe {
            let to = self.base.as_ptr().add(at);
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Writes CPU caches back for a range, without a system call; returns the instruction used.
    pub fn write_back(&self, at: usize, length: usize) -> Flush {
        self.check(at, length);
        let flush = Flush::best();
        // SAFETY: `best` returns an instruction that this processor has. `check` has verified the
        // range, which is mapped by the type invariant.
        unsafe { flush.write_back(self.base.as_ptr().add(at), length) };
        flush
    }

    /// Makes a range durable by msync(2) with `MS_SYNC`; `at` is a multiple of the page size.
    pub fn sync(&self, at: usize, length: usize) -> io::Result<()> {
        self.check(at, length);
        // SAFETY: `check` has verified the range, which is mapped by the type invariant.
        unsafe { msync(self.base.as_ptr().add(at).cast(), length, MsyncFlags::SYNC)? };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the range is mapped; no reference to it exists.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok());
    }
}
