// SPDX-License-Identifier: GPL-2.0

//! Memory whose pages this process supplies itself, when it likes: userfaultfd(2).

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

/// Pages that are missing until [`MissingPages::supply`]: an access blocks until then.
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

// SAFETY: The memory is reached by system calls alone, which any thread may make.
unsafe impl Send for MissingPages {}
// SAFETY: As above; no method hands out a reference to the memory.
unsafe impl Sync for MissingPages {}

impl MissingPages {
    /// So many bytes, a multiple of the page size; errors are those of userfaultfd(2),
    /// ioctl_userfaultfd(2) and mmap(2).
    pub fn new(length: usize) -> io::Result<Self> {
        // SAFETY: The descriptor alone changes nothing; what is registered with it is below.
        let fd = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC)? };
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: A mapping at an address of the kernel's choice replaces no other.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), length, protection, flags)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        // Dropped, and unmapped, where what follows fails.
        let stalled = Self { fd, base, length };
        let mut api = Api {
            api: API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: UFFDIO_API takes a `struct uffdio_api`.
        unsafe { stalled.request(NEGOTIATE, &raw mut api)? };
        let mut register = Register {
            start: base.as_ptr().addr() as u64,
            len: length as u64,
            mode: MISSING,
            ioctls: 0,
        };
        // SAFETY: UFFDIO_REGISTER takes a `struct uffdio_register`; nothing but `stalled` uses that
        // memory.
        unsafe { stalled.request(REGISTER, &raw mut register)? };
        // INVARIANT: Just mapped and registered.
        Ok(stalled)
    }

    /// # Safety
    ///
    /// `argument` points to what `request` takes.
    unsafe fn request<T>(&self, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
        // SAFETY: By the caller, `argument` is valid for the request.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), request, argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Waits until an access blocks; whether one did in time.
    pub fn wait(&self, seconds: u32) -> io::Result<bool> {
        let limit = Timespec {
            tv_sec: seconds.into(),
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&limit))? > 0)
    }

    /// Lets the memory hold these bytes and lets whoever blocks go on.
    ///
    /// # Panics
    ///
    /// Where they are not as many as the memory has.
    pub fn supply(&self, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(bytes.len(), self.length, "bytes for all of the memory");
        let mut copy = Copy {
            dst: self.base.as_ptr().addr() as u64,
            src: bytes.as_ptr().addr() as u64,
            len: bytes.len() as u64,
            mode: 0,
            copy: 0,
        };
        // SAFETY: UFFDIO_COPY takes a `struct uffdio_copy`, reads `len` bytes at `src` and fills pages
        // that are missing.
        unsafe { self.request(COPY, &raw mut copy) }
    }

    /// pwrite(2) of all of the memory; blocks until [`MissingPages::supply`].
    pub fn pwrite(&self, file: impl AsFd, offset: u64) -> io::Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: By the type's invariant `length` bytes are mapped there; the kernel alone reads them.
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
        // SAFETY: By the type's invariant it is mapped there, and nothing borrows it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}
