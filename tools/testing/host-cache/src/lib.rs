// SPDX-License-Identifier: GPL-2.0

//! Keeps what an fsync has made durable, for QEMU's virtio-pmem devices with `volatile-cache`.
//!
//! QEMU answers a flush of virtio-pmem by an `fsync(2)` of the device's file. Preloaded into QEMU, this library takes the
//! place of libc's `fsync`: of a file with a copy beside it, FILE.durable, it makes a new copy instead. `pmem-vm` makes the
//! first copy, and goes back to the last one after a power cut (`tools/testing/vm/src/host_cache.rs`).

#![deny(clippy::undocumented_unsafe_blocks)]

use rustix::fs::{self, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

/// Makes the file durable. Returns 0, or -1 if that fails, as fsync(2) does; the caller prints the error.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: RawFd) -> i32 {
    if fd < 0 {
        return -1;
    }
    // SAFETY: It is not -1, and the caller keeps it open. If it is not open, system calls fail with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };

    // rustix makes the system call itself, so that this is not called again.
    match keep(fd).unwrap_or_else(|| fs::fsync(fd)) {
        Ok(()) => 0,
        Err(_) => -1,
    }
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

/// Replaces `durable` by a copy of the file, at once for whoever opens it, even if this process is killed.
fn replace(from: BorrowedFd<'_>, durable: &Path, new: &Path) -> Result<(), Errno> {
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
        // Another thread of QEMU may map the file, but none uses its offset.
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
