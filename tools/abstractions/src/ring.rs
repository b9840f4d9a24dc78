// SPDX-License-Identifier: GPL-2.0

//! Several reads or writes of a file at once, by io_uring.

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

/// How a [`Ring`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Requests at once.
    pub depth: u32,
    /// Bytes of each.
    pub block: u32,
    /// The kernel keeps the buffers' pages and the file.
    pub registered: bool,
    /// Who waits asks the device whether it is done (`IORING_SETUP_IOPOLL`).
    pub polled: bool,
}

impl Options {
    /// With buffers and file registered.
    pub const fn registered(self) -> Self {
        Self {
            registered: true,
            ..self
        }
    }

    /// With ends that are polled for.
    pub const fn polled(self) -> Self {
        Self {
            polled: true,
            ..self
        }
    }
}

/// Requests of one size to one file, from and to buffers of its own.
pub struct Ring {
    ring: IoUring,
    file: File,
    /// Room for the blocks; from `start` on they begin at pages.
    buffer: Vec<u8>,
    start: usize,
    options: Options,
}

/// Blocks begin at multiples of this.
const ALIGN: usize = 4096;

impl Ring {
    /// A ring for this file.
    pub fn new(file: File, options: Options) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        if options.polled {
            builder.setup_iopoll();
        }
        let ring = builder.build(options.depth)?;
        let length = options.depth as usize * options.block as usize;
        let mut buffer = vec![0x5a; length + ALIGN];
        let start = buffer.as_ptr().addr().wrapping_neg() % ALIGN;
        if options.registered {
            let vector = libc::iovec {
                iov_base: buffer[start..].as_mut_ptr().cast(),
                iov_len: length,
            };
            // SAFETY: The bytes are the buffer's, which lives longer than the ring: `drop` ends that
            // first, as it is declared first, and nothing moves or frees the buffer before.
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

    /// Reads, or writes, as many blocks at once as the ring is deep, those of the file from `offset`
    /// on, and waits for all of them. An error, or a block that was not done whole, ends the ring.
    pub fn batch(&mut self, write: bool, offset: u64) -> io::Result<()> {
        let done = self.try_batch(write, offset);
        if done.is_err() {
            // Requests may be under way still: their memory is never used for anything else.
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
            let place = offset + u64::from(index) * u64::from(block);
            let entry = entry(&self.file, self.options, write, place, bytes);
            // SAFETY: The entry's bytes are the buffer's and of nobody else, and its file is open:
            // both until all requests have ended, as this function returns `Ok` only then, and
            // otherwise the buffer is never freed; the kernel itself holds on to the file.
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

/// A request for these bytes, at `offset` of the file.
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
