// SPDX-License-Identifier: GPL-2.0

//! System calls on the pages of a [`Mapping`]: as a source or target of I/O, spliced to a pipe, sent
//! without a copy, and pinned.
//!
//! Nothing borrows the bytes of a [`Mapping`], so the kernel may change them at any time, as another
//! process may.

use crate::Mapping;
use crate::sigbus;
use io_uring::{IoUring, opcode, types::Fd};
use rustix::io::Errno;
use rustix::mm::{self, MprotectFlags};
use std::io;
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

/// Advice of madvise(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// `MADV_HUGEPAGE`.
    Huge,
    /// `MADV_NOHUGEPAGE`.
    NoHuge,
    /// `MADV_DONTNEED`: the next access faults again.
    Forget,
    /// `MADV_HWPOISON`: simulate a memory failure.
    Poison,
}

/// Advises the kernel to use huge pages for memory of this process, or not. It starts at a page.
pub fn advise_huge(bytes: &mut [u8], huge: bool) -> io::Result<()> {
    let advice = match huge {
        true => mm::Advice::LinuxHugepage,
        false => mm::Advice::LinuxNoHugepage,
    };
    // SAFETY: `bytes` is a valid reference for the call. Both kinds of advice change the page size,
    // but neither contents nor addresses.
    unsafe { mm::madvise(bytes.as_mut_ptr().cast(), bytes.len(), advice)? };
    Ok(())
}

/// Converts the return value of a C library function.
fn result_of(value: isize) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::last_os_error())
}

impl Mapping {
    /// Advises the kernel about a range; `at` is a multiple of the page size.
    pub fn advise(&self, at: usize, length: usize, advice: Advice) -> io::Result<()> {
        let advice = match advice {
            Advice::Huge => mm::Advice::LinuxHugepage,
            Advice::NoHuge => mm::Advice::LinuxNoHugepage,
            Advice::Forget => mm::Advice::LinuxDontNeed,
            Advice::Poison => mm::Advice::LinuxHwPoison,
        };
        let start = self.range(at, length);
        // SAFETY: `range` returns a mapped range, and none of these kinds of advice unmaps it. They
        // may change bytes or make accesses fail, which a `Mapping` always allows.
        Ok(sigbus::in_call(|| unsafe {
            mm::madvise(start.cast(), length, advice)
        })?)
    }

    /// Locks the pages in memory: mlock(2).
    pub fn lock(&self) -> io::Result<()> {
        let start = self.range(0, self.len());
        // SAFETY: mlock(2) of a mapped range changes neither contents nor addresses.
        unsafe { mm::mlock(start.cast(), self.len())? };
        Ok(())
    }

    /// Makes a range read-only. All of the mapping counts as read-only from then on.
    pub fn protect(&mut self, at: usize, length: usize) -> io::Result<()> {
        let start = self.range(at, length);
        // SAFETY: `range` returns a mapped range, which stays mapped and readable.
        unsafe { mm::mprotect(start.cast(), length, MprotectFlags::READ)? };
        self.set_writable(false);
        Ok(())
    }

    /// Makes all of the mapping writable; fails if the file was not opened for writing.
    pub fn unprotect(&mut self) -> io::Result<()> {
        let start = self.range(0, self.len());
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: `range` returns a mapped range, which stays mapped and readable.
        unsafe { mm::mprotect(start.cast(), self.len(), access)? };
        self.set_writable(true);
        Ok(())
    }

    /// Replaces a range of the file by anonymous memory.
    pub fn unmap(&self, at: usize, length: usize) -> io::Result<()> {
        let start = self.range(at, length);
        // SAFETY: `range` returns a range of this mapping, to which no reference exists. It stays
        // mapped, readable and writable, as the type invariant requires.
        let put = unsafe {
            libc::mmap(
                start.cast(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if put == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Reads from a file into a range by one pread(2) call.
    pub fn pread(
        &self,
        file: impl AsFd,
        offset: u64,
        at: usize,
        length: usize,
    ) -> io::Result<usize> {
        let start = self.range_mut(at, length);
        let offset = offset.try_into().map_err(|_| Errno::INVAL)?;
        // SAFETY: `range_mut` returns a mapped, writable range, to which no reference exists.
        result_of(unsafe { libc::pread(file.as_fd().as_raw_fd(), start.cast(), length, offset) })
    }

    /// Writes a range to a file by one pwrite(2) call.
    pub fn pwrite(
        &self,
        file: impl AsFd,
        offset: u64,
        at: usize,
        length: usize,
    ) -> io::Result<usize> {
        let start = self.range(at, length);
        let offset = offset.try_into().map_err(|_| Errno::INVAL)?;
        // SAFETY: `range` returns a mapped range, which the kernel only reads.
        result_of(unsafe { libc::pwrite(file.as_fd().as_raw_fd(), start.cast(), length, offset) })
    }

    /// Splices a range to a pipe by vmsplice(2). The pipe has references to the pages until it is read,
    /// even if the mapping is dropped.
    pub fn vmsplice(&self, pipe: impl AsFd, at: usize, length: usize) -> io::Result<usize> {
        let vector = self.vector(at, length);
        let pipe = pipe.as_fd().as_raw_fd();
        // SAFETY: `vector` describes a mapped range, which the kernel only reads without
        // SPLICE_F_GIFT.
        result_of(unsafe { libc::vmsplice(pipe, &vector, 1, 0) })
    }

    /// Sends a range by send(2) with `MSG_ZEROCOPY`, after [`allow_zerocopy`].
    pub fn send(&self, socket: &TcpStream, at: usize, length: usize) -> io::Result<usize> {
        let start = self.range(at, length);
        // SAFETY: `range` returns a mapped range, which the kernel only reads.
        result_of(unsafe {
            libc::send(socket.as_raw_fd(), start.cast(), length, libc::MSG_ZEROCOPY)
        })
    }

    /// Writes to the mapping at `at` by process_vm_writev(2).
    pub fn process_write(&self, at: usize, bytes: &[u8]) -> io::Result<usize> {
        self.range_mut(at, bytes.len());
        let remote = self.vector(at, bytes.len());
        let local = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: The kernel only reads the local bytes. `range_mut` has verified that the remote
        // range is mapped and writable, and no reference to it exists.
        result_of(unsafe { libc::process_vm_writev(process_id(), &local, 1, &remote, 1, 0) })
    }

    /// Reads from the mapping at `at` by process_vm_readv(2).
    pub fn process_read(&self, at: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let remote = self.vector(at, bytes.len());
        let local = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: `bytes` is a unique reference to the local bytes. `vector` has verified that the
        // remote range is mapped.
        result_of(unsafe { libc::process_vm_readv(process_id(), &local, 1, &remote, 1, 0) })
    }

    fn vector(&self, at: usize, length: usize) -> libc::iovec {
        libc::iovec {
            iov_base: self.range(at, length).cast(),
            iov_len: length,
        }
    }
}

fn process_id() -> libc::pid_t {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Enables [`Mapping::send`] for a socket.
pub fn allow_zerocopy(socket: &TcpStream) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: SO_ZEROCOPY reads an `int`; `on` lives until the call returns.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ZEROCOPY,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    result_of(set as isize).map(drop)
}

/// A notification that calls of [`Mapping::send`] have released their pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// Number of calls since the last notification.
    pub calls: u32,
    /// The kernel copied the bytes after all.
    pub copied: bool,
}

/// Returns the next notification (Documentation/networking/msg_zerocopy.rst), or `WouldBlock` if there
/// is none.
pub fn released(socket: &TcpStream) -> io::Result<Released> {
    /// Room for a control message with a `sock_extended_err` and an address.
    #[repr(C, align(8))]
    struct Control([u8; 256]);
    /// `SO_EE_ORIGIN_ZEROCOPY`, `SO_EE_CODE_ZEROCOPY_COPIED` (include/uapi/linux/errqueue.h).
    const ZEROCOPY: u8 = 5;
    const COPIED: u8 = 1;

    let mut control = Control([0; 256]);
    // SAFETY: `msghdr` has integers and nullable pointers, so zero bytes are valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: The only buffer of `message` is `control`, which lives until the call returns.
    result_of(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_ERRQUEUE) })?;
    // SAFETY: recvmsg(2) succeeded, so `message` describes valid control data in `control`.
    let first = unsafe { libc::CMSG_FIRSTHDR(&message) };
    if first.is_null() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: A message of a socket's error queue has a `sock_extended_err`, and `control` has room
    // for it; an unaligned read needs no alignment.
    let error: libc::sock_extended_err =
        unsafe { ptr::read_unaligned(libc::CMSG_DATA(first).cast()) };
    if error.ee_origin != ZEROCOPY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Released {
        calls: error.ee_data.wrapping_sub(error.ee_info).wrapping_add(1),
        copied: error.ee_code & COPIED != 0,
    })
}

/// A mapping whose pages are pinned as a fixed buffer of an io_uring.
pub struct Pinned<'a> {
    ring: IoUring,
    mapping: &'a Mapping,
}

impl<'a> Pinned<'a> {
    /// Pins all pages. The kernel refuses memory of a file on a file system.
    pub fn new(mapping: &'a Mapping) -> io::Result<Self> {
        let ring = IoUring::new(1)?;
        // SAFETY: `vector` describes a mapped range, and `Self` borrows the mapping, so the range is
        // mapped for as long as the ring lives.
        unsafe {
            ring.submitter()
                .register_buffers(&[mapping.vector(0, mapping.len())])?;
        }
        Ok(Self { ring, mapping })
    }

    /// Reads from a file into a range.
    pub fn read(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        at: usize,
        length: u32,
    ) -> io::Result<usize> {
        let start = self.mapping.range_mut(at, length as usize);
        let file = Fd(file.as_raw_fd());
        let read = opcode::ReadFixed::new(file, start, length, 0).offset(offset);
        self.call(&read.build())
    }

    /// Writes a range to a file.
    pub fn write(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        at: usize,
        length: u32,
    ) -> io::Result<usize> {
        let start = self.mapping.range(at, length as usize);
        let file = Fd(file.as_raw_fd());
        let write = opcode::WriteFixed::new(file, start, length, 0).offset(offset);
        self.call(&write.build())
    }

    fn call(&mut self, entry: &io_uring::squeue::Entry) -> io::Result<usize> {
        // SAFETY: The entry refers to a range of `self.mapping` and to a file that the caller
        // borrows. Both are valid until the request ends, and `submit_and_wait` waits for that.
        unsafe { self.ring.submission().push(entry) }.map_err(|_| Errno::BUSY)?;
        self.ring.submit_and_wait(1)?;
        let end = self.ring.completion().next();
        let value = end.ok_or(io::ErrorKind::UnexpectedEof)?.result();
        usize::try_from(value).map_err(|_| io::Error::from_raw_os_error(-value))
    }
}
