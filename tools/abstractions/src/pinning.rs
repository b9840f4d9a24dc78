// SPDX-License-Identifier: GPL-2.0

//! A mapping's pages in the hands of the kernel: read into, written from, lent to a pipe or a
//! socket, kept for good.
//!
//! What the kernel does to a [`Mapping`]'s bytes is what another process might do at any time.

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

/// What madvise(2) is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// `MADV_HUGEPAGE`.
    Huge,
    /// `MADV_NOHUGEPAGE`.
    NoHuge,
    /// `MADV_DONTNEED`: the next access finds the page anew.
    Forget,
    /// `MADV_HWPOISON`: the memory shall be taken for failed.
    Poison,
}

/// Advises the kernel to have memory of this process in huge pages, or in none. It begins at a page.
pub fn advise_huge(bytes: &mut [u8], huge: bool) -> io::Result<()> {
    let advice = match huge {
        true => mm::Advice::LinuxHugepage,
        false => mm::Advice::LinuxNoHugepage,
    };
    // SAFETY: The bytes are the caller's alone, and in which pages they are changes neither them nor
    // their addresses.
    unsafe { mm::madvise(bytes.as_mut_ptr().cast(), bytes.len(), advice)? };
    Ok(())
}

/// The answer of a call as the C library gives it.
fn answer(value: isize) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::last_os_error())
}

impl Mapping {
    /// Advises the kernel about `length` bytes from `at`, a multiple of the page size.
    pub fn advise(&self, at: usize, length: usize, advice: Advice) -> io::Result<()> {
        let advice = match advice {
            Advice::Huge => mm::Advice::LinuxHugepage,
            Advice::NoHuge => mm::Advice::LinuxNoHugepage,
            Advice::Forget => mm::Advice::LinuxDontNeed,
            Advice::Poison => mm::Advice::LinuxHwPoison,
        };
        let start = self.piece(at, length);
        // SAFETY: The bytes are mapped by the type's invariant, and stay so: none of these unmaps
        // them, and that they may change or be refused is known of all of them.
        Ok(sigbus::in_call(|| unsafe {
            mm::madvise(start.cast(), length, advice)
        })?)
    }

    /// Keeps the pages in memory: mlock(2).
    pub fn lock(&self) -> io::Result<()> {
        let start = self.piece(0, self.len());
        // SAFETY: Locking changes no byte and no address.
        unsafe { mm::mlock(start.cast(), self.len())? };
        Ok(())
    }

    /// Has `length` bytes from `at` read-only; all of the mapping counts as such then.
    pub fn protect(&mut self, at: usize, length: usize) -> io::Result<()> {
        let start = self.piece(at, length);
        // SAFETY: The bytes stay mapped and readable.
        unsafe { mm::mprotect(start.cast(), length, MprotectFlags::READ)? };
        self.set_writable(false);
        Ok(())
    }

    /// Has all of it writable again; an error where the file was not opened so.
    pub fn unprotect(&mut self) -> io::Result<()> {
        let start = self.piece(0, self.len());
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: The bytes stay mapped and readable.
        unsafe { mm::mprotect(start.cast(), self.len(), access)? };
        self.set_writable(true);
        Ok(())
    }

    /// Unmaps `length` bytes from `at` from the file; memory of its own takes their place.
    pub fn unmap(&self, at: usize, length: usize) -> io::Result<()> {
        let start = self.piece(at, length);
        // SAFETY: The bytes belong to this mapping and are only ever copied, so that no reference to
        // them exists; they are mapped, readable and writable as before.
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

    /// One pread(2) of the file into `length` bytes from `at`.
    pub fn pread(
        &self,
        file: impl AsFd,
        offset: u64,
        at: usize,
        length: usize,
    ) -> io::Result<usize> {
        let start = self.piece_to_write(at, length);
        let offset = offset.try_into().map_err(|_| Errno::INVAL)?;
        // SAFETY: The bytes are mapped and writable by the type's invariant, no reference to them
        // exists.
        answer(unsafe { libc::pread(file.as_fd().as_raw_fd(), start.cast(), length, offset) })
    }

    /// One pwrite(2) to the file of `length` bytes from `at`.
    pub fn pwrite(
        &self,
        file: impl AsFd,
        offset: u64,
        at: usize,
        length: usize,
    ) -> io::Result<usize> {
        let start = self.piece(at, length);
        let offset = offset.try_into().map_err(|_| Errno::INVAL)?;
        // SAFETY: The bytes are mapped by the type's invariant.
        answer(unsafe { libc::pwrite(file.as_fd().as_raw_fd(), start.cast(), length, offset) })
    }

    /// Lends `length` bytes from `at` to a pipe: vmsplice(2). The pipe holds their pages until they
    /// are read from it, whatever becomes of the mapping.
    pub fn vmsplice(&self, pipe: impl AsFd, at: usize, length: usize) -> io::Result<usize> {
        let piece = self.vector(at, length);
        let pipe = pipe.as_fd().as_raw_fd();
        // SAFETY: The bytes are mapped by the type's invariant; without SPLICE_F_GIFT the kernel
        // only reads them.
        answer(unsafe { libc::vmsplice(pipe, &piece, 1, 0) })
    }

    /// Sends `length` bytes from `at` without a copy where the network can: send(2) with
    /// `MSG_ZEROCOPY`, after [`allow_zerocopy`].
    pub fn send(&self, socket: &TcpStream, at: usize, length: usize) -> io::Result<usize> {
        let start = self.piece(at, length);
        // SAFETY: The bytes are mapped by the type's invariant.
        answer(unsafe { libc::send(socket.as_raw_fd(), start.cast(), length, libc::MSG_ZEROCOPY) })
    }

    /// Writes to the mapping from `at` on as to another process's: process_vm_writev(2).
    pub fn process_write(&self, at: usize, bytes: &[u8]) -> io::Result<usize> {
        self.piece_to_write(at, bytes.len());
        let remote = self.vector(at, bytes.len());
        let local = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: The local bytes are only read; the others are mapped and writable by the type's
        // invariant, and no reference to them exists.
        answer(unsafe { libc::process_vm_writev(process_id(), &local, 1, &remote, 1, 0) })
    }

    /// Reads from the mapping from `at` on as from another process's: process_vm_readv(2).
    pub fn process_read(&self, at: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let remote = self.vector(at, bytes.len());
        let local = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: The local bytes are this call's alone; the others are mapped by the type's
        // invariant.
        answer(unsafe { libc::process_vm_readv(process_id(), &local, 1, &remote, 1, 0) })
    }

    fn vector(&self, at: usize, length: usize) -> libc::iovec {
        libc::iovec {
            iov_base: self.piece(at, length).cast(),
            iov_len: length,
        }
    }
}

fn process_id() -> libc::pid_t {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Has the kernel take a socket's [`Mapping::send`].
pub fn allow_zerocopy(socket: &TcpStream) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: The option is an `int`, which lives until the call returns.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ZEROCOPY,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    answer(set as isize).map(drop)
}

/// Which calls of [`Mapping::send`] have let go of their pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// How many, since the last answer.
    pub calls: u32,
    /// They were copied in the end.
    pub copied: bool,
}

/// The next notice of released pages, if one has come (Documentation/networking/msg_zerocopy.rst);
/// else the error is `WouldBlock`.
pub fn released(socket: &TcpStream) -> io::Result<Released> {
    /// A control message's header, and what IP_RECVERR has in it.
    #[repr(C, align(8))]
    struct Control([u8; 256]);
    /// `SO_EE_ORIGIN_ZEROCOPY`, `SO_EE_CODE_ZEROCOPY_COPIED` (include/uapi/linux/errqueue.h).
    const ZEROCOPY: u8 = 5;
    const COPIED: u8 = 1;

    let mut control = Control([0; 256]);
    // SAFETY: All zeros is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: The message has room for control data only, which lives until the call returns.
    answer(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_ERRQUEUE) })?;
    // SAFETY: The kernel has filled in the message.
    let first = unsafe { libc::CMSG_FIRSTHDR(&message) };
    if first.is_null() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: It holds this structure, as a socket's error queue always does; the copy needs no
    // alignment.
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

/// A mapping whose pages the kernel keeps, as a fixed buffer of an io_uring.
pub struct Pinned<'a> {
    ring: IoUring,
    mapping: &'a Mapping,
}

impl<'a> Pinned<'a> {
    /// Keeps all of it; memory that belongs to a file system's file is refused.
    pub fn new(mapping: &'a Mapping) -> io::Result<Self> {
        let ring = IoUring::new(1)?;
        // SAFETY: The bytes are mapped by the type's invariant for as long as the ring lives.
        unsafe {
            ring.submitter()
                .register_buffers(&[mapping.vector(0, mapping.len())])?;
        }
        Ok(Self { ring, mapping })
    }

    /// Reads of the file into `length` bytes from `at`.
    pub fn read(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        at: usize,
        length: u32,
    ) -> io::Result<usize> {
        let start = self.mapping.piece_to_write(at, length as usize);
        let file = Fd(file.as_raw_fd());
        let read = opcode::ReadFixed::new(file, start, length, 0).offset(offset);
        self.call(&read.build())
    }

    /// Writes `length` bytes from `at` to the file.
    pub fn write(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        at: usize,
        length: u32,
    ) -> io::Result<usize> {
        let start = self.mapping.piece(at, length as usize);
        let file = Fd(file.as_raw_fd());
        let write = opcode::WriteFixed::new(file, start, length, 0).offset(offset);
        self.call(&write.build())
    }

    fn call(&mut self, entry: &io_uring::squeue::Entry) -> io::Result<usize> {
        // SAFETY: The entry's bytes are of the mapping, and its file is open: both until the call,
        // which is waited for, has ended.
        unsafe { self.ring.submission().push(entry) }.map_err(|_| Errno::BUSY)?;
        self.ring.submit_and_wait(1)?;
        let end = self.ring.completion().next();
        let value = end.ok_or(io::ErrorKind::UnexpectedEof)?.result();
        usize::try_from(value).map_err(|_| io::Error::from_raw_os_error(-value))
    }
}
