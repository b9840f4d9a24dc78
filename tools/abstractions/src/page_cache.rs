// SPDX-License-Identifier: GPL-2.0

//! What the page cache has of a file: cachestat(2).

use std::ffi::c_long;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// The number of the system call, on all architectures; libc does not have it.
const CACHESTAT: c_long = 451;

/// `struct cachestat_range` (linux/mman.h).
#[repr(C)]
struct CachestatRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat`.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Returns the number of pages in a range of the file, in bytes, that the page cache has.
///
/// Linux up to 7.3 crashes if it is asked about a file with direct access (DAX).
///
/// # Errors
///
/// `ENOSYS` before Linux 6.5, `EPERM` if the file is neither writable nor the caller's.
pub fn cached_pages(file: &File, range: &Range<u64>) -> io::Result<u64> {
    if range.is_empty() {
        // A length of 0 would mean up to the end of the file.
        return Ok(0);
    }
    let range = CachestatRange {
        offset: range.start,
        length: range.end - range.start,
    };
    let mut found = Cachestat::default();
    // SAFETY: cachestat(2) reads a `struct cachestat_range` and writes a `struct cachestat`: both pointers are to locals of
    // that layout, which live longer than the call.
    let answer = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut found,
            0,
        )
    };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(found.cached),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn pages_of_a_new_file_are_cached() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 3 * 4096]).unwrap();
        match cached_pages(&file, &(4096..1 << 20)) {
            Ok(pages) => assert_eq!(pages, 2),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOSYS)),
        }
        assert_eq!(cached_pages(&file, &(4096..4096)).unwrap(), 0);
    }
}
