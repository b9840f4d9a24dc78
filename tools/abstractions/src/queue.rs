// SPDX-License-Identifier: GPL-2.0

//! Many requests of different kinds at once, by io_uring.

use crate::DirectBuffer;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
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
    /// A worker thread of io_uring makes it (`IOSQE_ASYNC`).
    pub by_worker: bool,
}

/// An io_uring for requests of any kind.
pub struct Queue {
    ring: IoUring,
}

impl Queue {
    /// Sets up a queue for at most `depth` requests at once. If it is `polled`, it asks the device for their ends
    /// (`IORING_SETUP_IOPOLL`), and takes no [`Kind::Flush`].
    pub fn new(depth: u32, polled: bool) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        if polled {
            builder.setup_iopoll();
        }
        Ok(Self {
            ring: builder.build(depth)?,
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
        if requests.len() > self.ring.params().sq_entries() as usize {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The vectors have to stay where they are until the end of the requests.
        let mut reads = Vec::new();
        let mut writes = Vec::new();
        for (index, request) in requests.iter_mut().enumerate() {
            let buffers = request.buffers.iter_mut().map(DirectBuffer::bytes);
            match request.kind {
                Kind::Read => {
                    let vector: Vec<_> = buffers.map(IoSliceMut::new).collect();
                    reads.push((
                        index,
                        request.offset,
                        request.flags,
                        request.by_worker,
                        vector,
                    ));
                }
                _ => {
                    let vector: Vec<_> = buffers.map(|bytes| IoSlice::new(bytes)).collect();
                    writes.push((
                        index,
                        request.kind,
                        request.offset,
                        request.flags,
                        request.by_worker,
                        vector,
                    ));
                }
            }
        }
        let fd = types::Fd(file.as_raw_fd());
        let mut entries = Vec::new();
        for (index, offset, flags, by_worker, vector) in &mut reads {
            // An `IoSliceMut` is an `iovec`.
            let (start, count) = (vector.as_mut_ptr().cast(), vector.len() as u32);
            let entry = opcode::Readv::new(fd, start, count)
                .offset(*offset)
                .rw_flags(flags.bits() as i32)
                .build();
            entries.push(finished(entry, *index, *by_worker));
        }
        for (index, kind, offset, flags, by_worker, vector) in &writes {
            let entry = match kind {
                Kind::Flush => opcode::Fsync::new(fd).build(),
                _ => opcode::Writev::new(fd, vector.as_ptr().cast(), vector.len() as u32)
                    .offset(*offset)
                    .rw_flags(flags.bits() as i32)
                    .build(),
            };
            entries.push(finished(entry, *index, *by_worker));
        }
        let count = entries.len();
        // SAFETY: The vectors, their buffers and the file are borrowed until this function returns, which is after
        // all requests have ended, or never.
        unsafe { self.ring.submission().push_multiple(&entries) }
            .unwrap_or_else(|_| process::abort());
        let mut results: Vec<io::Result<usize>> = Vec::new();
        results.resize_with(count, || Ok(0));
        let mut ended = 0;
        while ended < count {
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
        Ok(results)
    }
}

/// Adds what all entries have.
fn finished(entry: squeue::Entry, index: usize, by_worker: bool) -> squeue::Entry {
    let entry = entry.user_data(index as u64);
    match by_worker {
        true => entry.flags(squeue::Flags::ASYNC),
        false => entry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: Kind, offset: u64, lengths: &[usize]) -> Request {
        Request {
            kind,
            offset,
            buffers: lengths
                .iter()
                .map(|&length| DirectBuffer::new(length))
                .collect(),
            flags: ReadWriteFlags::empty(),
            by_worker: false,
        }
    }

    #[test]
    fn each_request_has_its_own_result() {
        let Ok(mut queue) = Queue::new(4, false) else {
            // The kernel may forbid io_uring.
            return;
        };
        let file = tempfile::tempfile().unwrap();
        let mut write = request(Kind::Write, 512, &[512, 1024]);
        write.buffers[1].bytes().fill(7);
        let results = queue.submit(&file, &mut [write, request(Kind::Flush, 0, &[])]);
        assert!(matches!(results.unwrap()[..], [Ok(1536), Ok(0)]));

        let mut requests = [
            request(Kind::Read, 1024, &[1024]),
            request(Kind::Read, 4096, &[512]),
            request(Kind::Read, 1536, &[1024]),
        ];
        let results = queue.submit(&file, &mut requests).unwrap();
        assert!(matches!(results[..], [Ok(1024), Ok(0), Ok(512)]));
        assert!(requests[0].buffers[0].bytes().iter().all(|&byte| byte == 7));
    }
}
