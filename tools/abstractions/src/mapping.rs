// SPDX-License-Identifier: GPL-2.0

//! A shared mapping of a file.

use crate::cache::Flush;
use crate::sigbus::{self, BusError};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

/// A shared mapping of a piece of a file.
///
/// Its bytes may change at any time and are never borrowed, only copied in and out. Touching a page
/// that the file or the memory does not give is a SIGBUS: see [`sigbus`].
///
/// # Invariants
///
/// `length` bytes at `base` are mapped shared, readable, and writable if `writable`, until the
/// value is dropped. (A page in whose place [`sigbus`] put another is mapped too.)
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    length: usize,
    writable: bool,
}

/// What a [`Mapping`] shall be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Stores are allowed.
    pub writable: bool,
    /// `MAP_SYNC`: what the processor has written back is durable without a call of the kernel.
    pub sync: bool,
    /// `MAP_POPULATE`: pages are mapped at once.
    pub populate: bool,
}

impl Mapping {
    /// Maps `length` bytes of a file from `offset`, a multiple of the page size; errors are those
    /// of mmap(2).
    pub fn new(file: impl AsFd, offset: u64, length: usize, options: Options) -> io::Result<Self> {
        let mut flags = if options.sync {
            MapFlags::SHARED_VALIDATE | MapFlags::SYNC
        } else {
            MapFlags::SHARED
        };
        flags.set(MapFlags::POPULATE, options.populate);
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, options.writable);
        // SAFETY: A mapping at an address of the kernel's choice replaces no other.
        let base = unsafe { mmap(ptr::null_mut(), length, protection, flags, file, offset)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        // INVARIANT: Just mapped so.
        Ok(Self {
            base,
            length,
            writable: options.writable,
        })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes; mmap(2) makes no such mapping.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Where it is in this process.
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

    /// The start of these bytes, which are in the mapping.
    ///
    /// # Panics
    ///
    /// Where they are outside.
    pub(crate) fn piece(&self, at: usize, length: usize) -> *mut u8 {
        self.check(at, length);
        self.base.as_ptr().wrapping_add(at)
    }

    /// The same, to be written to.
    ///
    /// # Panics
    ///
    /// Where they are outside, or the mapping is not writable.
    pub(crate) fn piece_to_write(&self, at: usize, length: usize) -> *mut u8 {
        assert!(self.writable, "a store to a mapping for reading");
        self.piece(at, length)
    }

    /// All of it is writable, or a part of it is not.
    pub(crate) fn set_writable(&mut self, writable: bool) {
        self.writable = writable;
    }

    /// The address of the one page that holds these bytes.
    fn page_of(&self, at: usize, length: usize) -> usize {
        let first = self.address() + at;
        let page = first & !(sigbus::PAGE - 1);
        assert!(
            first + length <= page + sigbus::PAGE,
            "{length} bytes at {at} are in more than one page"
        );
        page
    }

    /// Copies bytes of one page out, from `at`, or says how the memory refused: see [`sigbus`].
    ///
    /// # Panics
    ///
    /// Where the bytes are outside, or in more than one page.
    pub fn try_copy_out(&self, at: usize, bytes: &mut [u8]) -> Result<(), BusError> {
        sigbus::catching(self.page_of(at, bytes.len()), || self.copy_out(at, bytes))
    }

    /// Copies bytes of one page in, to `at`, or says how the memory refused: see [`sigbus`].
    ///
    /// # Panics
    ///
    /// Where the bytes are outside, or in more than one page, or the mapping is not writable.
    pub fn try_copy_in(&self, at: usize, bytes: &[u8]) -> Result<(), BusError> {
        sigbus::catching(self.page_of(at, bytes.len()), || self.copy_in(at, bytes))
    }

    /// Copies bytes out, from `at`.
    ///
    /// # Panics
    ///
    /// Where they are outside.
    pub fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        self.check(at, bytes.len());
        // SAFETY: The bytes are mapped by the type's invariant, and `bytes` is this program's
        // alone, so that they don't overlap.
        unsafe {
            let from = self.base.as_ptr().add(at);
            ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// Copies bytes in, to `at`.
    ///
    /// # Panics
    ///
    /// Where they are outside, or the mapping is not writable.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        assert!(self.writable, "a store to a mapping for reading");
        self.check(at, bytes.len());
        // SAFETY: The bytes are mapped and writable by the type's invariant, no reference to them
        // exists, and they don't overlap `bytes`.
        unsafe {
            let to = self.base.as_ptr().add(at);
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Writes the processor's caches back for these bytes, without a call of the kernel; says with
    /// which instruction.
    #[cfg(target_arch = "x86_64")]
    pub fn write_back(&self, at: usize, length: usize) -> Flush {
        self.check(at, length);
        let flush = Flush::best();
        // SAFETY: `best` names an instruction that is there, and the bytes are mapped by the type's
        // invariant.
        unsafe { flush.write_back(self.base.as_ptr().add(at), length) };
        flush
    }

    /// Has the kernel make these bytes durable: msync(2) with `MS_SYNC`; `at` is a multiple of the
    /// page size.
    pub fn sync(&self, at: usize, length: usize) -> io::Result<()> {
        self.check(at, length);
        // SAFETY: The bytes are mapped by the type's invariant.
        unsafe { msync(self.base.as_ptr().add(at).cast(), length, MsyncFlags::SYNC)? };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own, and nothing refers to it any more.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok());
    }
}
