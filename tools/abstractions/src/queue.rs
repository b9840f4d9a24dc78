// SPDX-License-Identifier: GPL-2.0

//! Many requests of different kinds at once, by io_uring.

use crate::DirectBuffer;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::FallocateFlags;
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process;

/// What a [`Request`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads into the buffers.
    Read,
    /// Writes the buffers.
    Write,
    /// Makes earlier writes durable.
    Flush,
    /// Does what fallocate(2) does with this mode, to so many bytes.
    Allocate(FallocateFlags, u64),
}

/// A request to a file.
pub struct Request {
    /// What it does.
    pub kind: Kind,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// The vector of its buffers.
    pub buffers: Vec<DirectBuffer>,
    /// The flags of preadv2(2) or pwritev2(2).
    pub flags: ReadWriteFlags,
    /// The memory around its only buffer is registered (`IORING_OP_READ_FIXED`, `IORING_OP_WRITE_FIXED`).
    pub registered: bool,
    /// A worker thread of io_uring makes it (`IOSQE_ASYNC`).
    pub by_worker: bool,
}

impl Request {
    /// Returns a request with buffers of zeroes of these lengths, and without flags.
    pub fn new(kind: Kind, offset: u64, lengths: &[usize]) -> Self {
        Self {
            kind,
            offset,
            buffers: lengths
                .iter()
                .map(|&length| DirectBuffer::new(length))
                .collect(),
            flags: ReadWriteFlags::empty(),
            registered: false,
            by_worker: false,
        }
    }
}

/// An io_uring for requests of any kind.
pub struct Queue {
    ring: IoUring,
}

impl Queue {
    /// Sets up a queue for at most `depth` requests at once.
    pub fn new(depth: u32) -> io::Result<Self> {
        Ok(Self {
            ring: IoUring::new(depth)?,
        })
    }

    /// Makes all requests at once, and waits for them. Returns for each how many bytes were transferred, or its error.
    ///
    /// Ends the process if that fails while requests are under way: they use the buffers.
    pub fn submit(
        &mut self,
        file: &File,
        requests: &mut [Request],
    ) -> io::Result<Vec<io::Result<usize>>> {
        let misregistered = |request: &Request| request.registered && request.buffers.len() != 1;
        if requests.len() > self.ring.params().sq_entries() as usize
            || requests.iter().any(misregistered)
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let registered: Vec<libc::iovec> = requests
            .iter_mut()
            .filter(|request| request.registered)
            .flat_map(|request| &mut request.buffers)
            .map(|buffer| vector(buffer.allocation()))
            .collect();
        // The vectors have to stay where they are until the end of the requests.
        let vectors: Vec<Vec<libc::iovec>> = requests
            .iter_mut()
            .map(|request| request.buffers.iter_mut())
            .map(|buffers| buffers.map(|buffer| vector(buffer.bytes())).collect())
            .collect();
        let mut entries = Vec::new();
        let mut slot = 0;
        for (index, (request, vector)) in requests.iter().zip(&vectors).enumerate() {
            let entry = entry(file, request, vector, slot).user_data(index as u64);
            entries.push(match request.by_worker {
                true => entry.flags(squeue::Flags::ASYNC),
                false => entry,
            });
            slot += u16::from(request.registered);
        }
        if !registered.is_empty() {
            // SAFETY: The allocations are borrowed until this function returns, which is after they are unregistered,
            // or never.
            unsafe { self.ring.submitter().register_buffers(&registered)? };
        }
        // SAFETY: The vectors, their buffers and the file are borrowed until this function returns, which is after
        // all requests have ended, or never.
        unsafe { self.ring.submission().push_multiple(&entries) }
            .unwrap_or_else(|_| process::abort());
        let mut results: Vec<io::Result<usize>> = Vec::new();
        results.resize_with(entries.len(), || Ok(0));
        let mut ended = 0;
        while ended < entries.len() {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => process::abort(),
                _ => {}
            }
            for end in self.ring.completion() {
                ended += 1;
                results[end.user_data() as usize] = match end.result() {
                    bytes @ 0.. => Ok(bytes as usize),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
        }
        if !registered.is_empty() && self.ring.submitter().unregister_buffers().is_err() {
            process::abort();
        }
        Ok(results)
    }
}

fn vector(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// Returns the entry of a request. `slot` is that of its registered buffer.
fn entry(file: &File, request: &Request, vector: &[libc::iovec], slot: u16) -> squeue::Entry {
    let fd = types::Fd(file.as_raw_fd());
    let (offset, flags) = (request.offset, request.flags.bits() as i32);
    let (start, count) = (vector.as_ptr(), vector.len() as u32);
    match (request.kind, request.registered, vector) {
        (Kind::Flush, ..) => opcode::Fsync::new(fd).build(),
        (Kind::Allocate(mode, length), ..) => opcode::Fallocate::new(fd, length)
            .offset(offset)
            .mode(mode.bits() as i32)
            .build(),
        (Kind::Read, true, [one, ..]) => {
            opcode::ReadFixed::new(fd, one.iov_base.cast(), one.iov_len as u32, slot)
                .offset(offset)
                .rw_flags(flags)
                .build()
        }
        (Kind::Write, true, [one, ..]) => {
            opcode::WriteFixed::new(fd, one.iov_base.cast(), one.iov_len as u32, slot)
                .offset(offset)
                .rw_flags(flags)
                .build()
        }
        (Kind::Read, ..) => opcode::Readv::new(fd, start, count)
            .offset(offset)
            .rw_flags(flags)
            .build(),
        (Kind::Write, ..) => opcode::Writev::new(fd, start, count)
            .offset(offset)
            .rw_flags(flags)
            .build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(kind: Kind, offset: u64, length: usize) -> Request {
        Request {
            registered: true,
            ..Request::new(kind, offset, &[length])
        }
    }

    #[test]
    fn each_request_has_its_own_result() {
        let Ok(mut queue) = Queue::new(4) else {
            // The kernel may forbid io_uring.
            return;
        };
        let file = tempfile::tempfile().unwrap();
        let mut write = Request::new(Kind::Write, 512, &[512, 1024]);
        write.buffers[1].bytes().fill(7);
        let results = queue.submit(&file, &mut [write, Request::new(Kind::Flush, 0, &[])]);
        assert!(matches!(results.unwrap()[..], [Ok(1536), Ok(0)]));

        let mut requests = [
            Request::new(Kind::Read, 1024, &[1024]),
            Request::new(Kind::Read, 4096, &[512]),
            Request::new(Kind::Read, 1536, &[1024]),
        ];
        let results = queue.submit(&file, &mut requests).unwrap();
        assert!(matches!(results[..], [Ok(1024), Ok(0), Ok(512)]));
        assert!(requests[0].buffers[0].bytes().iter().all(|&byte| byte == 7));
    }

    #[test]
    fn registered_buffers_are_used_at_their_places() {
        let Ok(mut queue) = Queue::new(4) else {
            return;
        };
        let file = tempfile::tempfile().unwrap();
        let mut writes = [
            registered(Kind::Write, 0, 512),
            Request::new(Kind::Write, 512, &[512]),
            registered(Kind::Write, 1024, 512),
        ];
        for (value, write) in (1..).zip(&mut writes) {
            write.buffers[0].bytes().fill(value);
        }
        let Ok(results) = queue.submit(&file, &mut writes) else {
            // The kernel may limit what is pinned.
            return;
        };
        assert!(matches!(results[..], [Ok(512), Ok(512), Ok(512)]));
        let mut reads = [
            registered(Kind::Read, 1024, 1024),
            registered(Kind::Read, 0, 1024),
        ];
        let results = queue.submit(&file, &mut reads).unwrap();
        assert!(matches!(results[..], [Ok(512), Ok(1024)]));
        let [last, first] = reads.each_mut().map(|read| read.buffers[0].bytes());
        assert_eq!(*last, *[[3; 512], [0; 512]].concat());
        assert_eq!(*first, *[[1; 512], [2; 512]].concat());
        let mut two = [Request::new(Kind::Write, 0, &[512, 512])];
        two[0].registered = true;
        assert!(queue.submit(&file, &mut two).is_err());
    }

    #[test]
    fn range_is_zeroed() {
        let Ok(mut queue) = Queue::new(4) else {
            return;
        };
        let file = tempfile::tempfile().unwrap();
        let mut write = Request::new(Kind::Write, 0, &[4096]);
        write.buffers[0].bytes().fill(7);
        queue.submit(&file, &mut [write]).unwrap();
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let mut zero = [Request::new(Kind::Allocate(mode, 1024), 512, &[])];
        assert!(matches!(
            queue.submit(&file, &mut zero).unwrap()[..],
            [Ok(0)]
        ));
        let mut read = [Request::new(Kind::Read, 0, &[2048])];
        queue.submit(&file, &mut read).unwrap();
        assert_eq!(
            *read[0].buffers[0].bytes(),
            *[[7; 512], [0; 512], [0; 512], [7; 512]].concat()
        );
    }
}
