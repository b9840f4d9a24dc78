// SPDX-License-Identifier: GPL-2.0

//! Parallel reads or writes of a file by io_uring.

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

/// Options of a [`Ring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Number of parallel requests.
    pub depth: u32,
    /// Bytes of each request.
    pub block: u32,
    /// Register the buffers and the file with the kernel.
    pub registered: bool,
}

impl Options {
    /// Enables registered buffers and files.
    pub const fn registered(self) -> Self {
        Self {
            registered: true,
            ..self
        }
    }
}

/// An io_uring for requests of one size to one file, with its own buffers.
pub struct Ring {
    ring: IoUring,
    file: File,
    /// The blocks, aligned from `start` on.
    buffer: Vec<u8>,
    start: usize,
    options: Options,
}

/// Alignment of the first block.
const ALIGN: usize = 4096;

impl Ring {
    /// Sets up a ring for a file.
    pub fn new(file: File, options: Options) -> io::Result<Self> {
        let ring = IoUring::new(options.depth)?;
        let length = options.depth as usize * options.block as usize;
        let mut buffer = vec![0x5a; length + ALIGN];
        let start = buffer.as_ptr().addr().wrapping_neg() % ALIGN;
        if options.registered {
            let vector = libc::iovec {
                iov_base: buffer[start..].as_mut_ptr().cast(),
                iov_len: length,
            };
            // SAFETY: `buffer` owns the bytes and is dropped after `ring`, because it is declared
            // after it; nothing reallocates it before.
            unsafe { ring.submitter().register_buffers(&[vector])? };
            ring.submitter().register_files(&[file.as_raw_fd()])?;
        }
        Ok(Self {
            ring,
            file,
            buffer,
            start,
            options,
        })
    }

    /// Reads or writes `depth` consecutive blocks of the file from `offset` in parallel, and waits.
    ///
    /// The ring can't be used after an error or a short transfer.
    pub fn batch(&mut self, write: bool, offset: u64) -> io::Result<()> {
        let done = self.try_batch(write, offset);
        if done.is_err() {
            // Requests may still be in flight, so their memory must never be reused: leak it.
            mem::forget(mem::take(&mut self.buffer));
        }
        done
    }

    fn try_batch(&mut self, write: bool, offset: u64) -> io::Result<()> {
        let Options { depth, block, .. } = self.options;
        if self.buffer.is_empty() {
            return Err(Errno::BADF.into());
        }
        for index in 0..depth {
            let at = self.start + index as usize * block as usize;
            let bytes = &mut self.buffer[at..at + block as usize];
            let position = offset + u64::from(index) * u64::from(block);
            let entry = entry(&self.file, self.options, write, position, bytes);
            // SAFETY: `entry` refers to bytes of `buffer`, which no other request uses, and to
            // `file`. Both are valid until all requests have ended: this function returns `Ok` only
            // then, otherwise `batch` leaks the buffer, and the kernel has a reference to the file.
            unsafe { self.ring.submission().push(&entry) }.map_err(|_| Errno::BUSY)?;
        }
        self.ring.submit_and_wait(depth as usize)?;
        let mut failed = None;
        let mut ended = 0;
        while ended < depth {
            let Some(end) = self.ring.completion().next() else {
                self.ring.submit_and_wait(1)?;
                continue;
            };
            ended += 1;
            let result = end.result();
            if result != block as i32 {
                failed = Some(match result {
                    0.. => io::ErrorKind::UnexpectedEof.into(),
                    errno => io::Error::from_raw_os_error(-errno),
                });
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Creates a request to transfer `bytes` at `offset` of the file.
fn entry(
    file: &File,
    options: Options,
    write: bool,
    offset: u64,
    bytes: &mut [u8],
) -> squeue::Entry {
    let (start, length) = (bytes.as_mut_ptr(), options.block);
    let fd = types::Fd(file.as_raw_fd());
    let fixed = types::Fixed(0);
    match (options.registered, write) {
        (false, false) => opcode::Read::new(fd, start, length).offset(offset).build(),
        (false, true) => opcode::Write::new(fd, start, length).offset(offset).build(),
        (true, false) => opcode::ReadFixed::new(fixed, start, length, 0)
            .offset(offset)
            .build(),
        (true, true) => opcode::WriteFixed::new(fixed, start, length, 0)
            .offset(offset)
            .build(),
    }
}
