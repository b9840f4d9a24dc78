// SPDX-License-Identifier: GPL-2.0

//! Keeps what an fsync has made durable, for QEMU's virtio-pmem devices with `volatile-cache`.
//!
//! QEMU answers a flush of virtio-pmem by an `fsync(2)` of the device's file. Preloaded into QEMU, this library replaces
//! libc's `fsync`: if there is a FILE.durable beside the file, it makes a new copy there instead. `pmem-vm` makes the first
//! copy, and goes back to the last one after a power cut (`tools/testing/vm/src/host_cache.rs`).

#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "the interface is that of C")]
mod abstractions;

use rustix::fs::{self, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Held while a copy is made: FILE.new has one writer, and each descriptor one user of its offset.
static COPY: Mutex<()> = Mutex::new(());

/// Makes the file durable. rustix makes system calls itself, so that this is not called again.
fn fsync(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    keep(fd).unwrap_or_else(|| fs::fsync(fd))
}

/// Copies the file to FILE.durable, if there is one.
fn keep(fd: BorrowedFd<'_>) -> Option<Result<(), Errno>> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = std::fs::read_link(link).ok()?;
    let beside = |suffix: &str| {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        name
    };
    let durable = beside(".durable");

    Path::new(&durable)
        .exists()
        .then(|| replace(fd, Path::new(&durable), Path::new(&beside(".new"))))
}

/// Replaces `durable` by a copy of the file, at once for every process that opens it, even if this process is killed.
fn replace(from: BorrowedFd<'_>, durable: &Path, new: &Path) -> Result<(), Errno> {
    let _one_at_a_time = COPY.lock().unwrap_or_else(PoisonError::into_inner);
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let to = fs::open(new, flags, Mode::RUSR | Mode::WUSR)?;
    let length = u64::try_from(fs::fstat(from)?.st_size).map_err(|_| Errno::INVAL)?;

    fs::ftruncate(&to, length)?;
    copy_data(from, to.as_fd())?;
    fs::rename(new, durable)
}

/// Copies all data; holes stay holes.
fn copy_data(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut end = 0;

    loop {
        let mut start = match fs::seek(from, SeekFrom::Data(end)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error),
        };
        end = fs::seek(from, SeekFrom::Hole(start))?;
        let mut at = start;

        while start < end {
            let left = usize::try_from(end - start).map_err(|_| Errno::OVERFLOW)?;

            if fs::copy_file_range(from, Some(&mut start), to, Some(&mut at), left)? == 0 {
                return Err(Errno::IO);
            }
        }
    }
}
