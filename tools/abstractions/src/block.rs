// SPDX-License-Identifier: GPL-2.0

//! Requests to block devices.

use rustix::ioctl::{Opcode, Setter, ioctl};
use std::ffi::c_int;
use std::fs::File;
use std::io;

/// `BLKROSET` of linux/fs.h: `_IO(0x12, 93)`.
const BLKROSET: Opcode = 0x125d;

/// `BLKZEROOUT` of linux/fs.h: `_IO(0x12, 127)`.
const BLKZEROOUT: Opcode = 0x127f;

/// Has `length` bytes from `start` zeroed, in whole sectors.
pub fn zero_out(device: &File, start: u64, length: u64) -> io::Result<()> {
    // SAFETY: BLKZEROOUT takes a pointer to two `u64`s, which it only reads, and which `Setter`
    // passes; files that are no block device know no such request (ENOTTY).
    unsafe { ioctl(device, Setter::<BLKZEROOUT, [u64; 2]>::new([start, length]))? };
    Ok(())
}

/// Makes a block device refuse to be written, as `blockdev --setro` does.
pub fn set_read_only(device: &File) -> io::Result<()> {
    // SAFETY: BLKROSET takes a pointer to an `int`, which it only reads, and which `Setter` passes;
    // files that are no block device know no such request (ENOTTY).
    unsafe { ioctl(device, Setter::<BLKROSET, c_int>::new(1))? };
    Ok(())
}
