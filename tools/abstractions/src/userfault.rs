// SPDX-License-Identifier: GPL-2.0

//! Memory whose pages the process supplies on demand: userfaultfd(2).

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags, mmap_anonymous, munmap, userfaultfd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// `UFFD_API` of `<linux/userfaultfd.h>`.
const API: u64 = 0xaa;
/// `UFFDIO_API`.
const NEGOTIATE: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
/// `UFFDIO_REGISTER`.
const REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
/// `UFFDIO_COPY`.
const COPY: libc::Ioctl = 0xc028_aa03_u32 as libc::Ioctl;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MISSING: u64 = 1;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

/// Memory without pages, in which an access blocks until [`MissingPages::supply`].
///
/// # Invariants
///
/// `length` bytes at `base` are an anonymous mapping, registered with `fd`, until the value is dropped.
#[derive(Debug)]
pub struct MissingPages {
    fd: OwnedFd,
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: Only system calls access the memory, and any thread may make them.
unsafe impl Send for MissingPages {}
// SAFETY: Only system calls access the memory; no method returns a reference to it.
unsafe impl Sync for MissingPages {}

impl MissingPages {
    /// Maps and registers `length` bytes, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// Those of userfaultfd(2), ioctl_userfaultfd(2) and mmap(2).
    pub fn new(length: usize) -> io::Result<Self> {
        // SAFETY: Creating the descriptor changes no memory; the registration is below.
        let fd = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC)? };
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: The kernel chooses the address, so the mapping replaces no other.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), length, protection, flags)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        // An error below drops `pages`, which unmaps the memory.
        let pages = Self { fd, base, length };
        let mut api = Api {
            api: API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: UFFDIO_API reads and writes a `struct uffdio_api`, which `api` is.
        unsafe { pages.request(NEGOTIATE, &raw mut api)? };
        let mut register = Register {
            start: base.as_ptr().addr() as u64,
            len: length as u64,
            mode: MISSING,
            ioctls: 0,
        };
        // SAFETY: UFFDIO_REGISTER reads and writes a `struct uffdio_register`, which `register` is.
        // The memory it names belongs to `pages`.
        unsafe { pages.request(REGISTER, &raw mut register)? };
        // INVARIANT: The memory was mapped and registered above.
        Ok(pages)
    }

    /// # Safety
    ///
    /// `argument` points to the structure that `request` reads and writes.
    unsafe fn request<T>(&self, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
        // SAFETY: The caller guarantees that `argument` is valid for `request`.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), request, argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Waits until an access blocks; returns false after a timeout.
    pub fn wait(&self, seconds: u32) -> io::Result<bool> {
        let limit = Timespec {
            tv_sec: seconds.into(),
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&limit))? > 0)
    }

    /// Supplies all pages and wakes blocked accesses.
    ///
    /// # Panics
    ///
    /// If `bytes` has not the size of the memory.
    pub fn supply(&self, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(bytes.len(), self.length, "bytes for all of the memory");
        let mut copy = Copy {
            dst: self.base.as_ptr().addr() as u64,
            src: bytes.as_ptr().addr() as u64,
            len: bytes.len() as u64,
            mode: 0,
            copy: 0,
        };
        // SAFETY: UFFDIO_COPY reads and writes a `struct uffdio_copy`, which `copy` is. It reads `len`
        // bytes at `src`, which are `bytes`, and fills missing pages of this memory.
        unsafe { self.request(COPY, &raw mut copy) }
    }

    /// Writes all of the memory by one pwrite(2) call, which blocks until [`MissingPages::supply`].
    pub fn pwrite(&self, file: impl AsFd, offset: u64) -> io::Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: By the type invariant, `length` bytes at `base` are mapped; the kernel only
        // reads them.
        let done = unsafe {
            libc::pwrite(
                fd,
                self.base.as_ptr().cast_const().cast(),
                self.length,
                offset,
            )
        };
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }
}

impl Drop for MissingPages {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the range is mapped; no reference to it exists.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}
