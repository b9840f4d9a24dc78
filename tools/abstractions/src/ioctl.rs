// SPDX-License-Identifier: GPL-2.0

//! ioctl(2) requests to block devices: three of them as functions, and a table of many for tests.
//!
//! The numbers and sizes are those of Linux on 64-bit processors with the common encoding of
//! ioctls (x86-64, arm64): `include/uapi/linux/{fs,blkpg,blktrace_api,blkzoned,hdreg,cdrom,pr}.h`,
//! `include/scsi/{sg,scsi}.h`.

use rustix::ioctl::{Getter, Opcode, Setter, ioctl};
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// `BLKROSET` of linux/fs.h: `_IO(0x12, 93)`.
const BLKROSET: Opcode = 0x125d;

/// `BLKZEROOUT` of linux/fs.h: `_IO(0x12, 127)`.
const BLKZEROOUT: Opcode = 0x127f;

/// `BLKGETDISKSEQ` of linux/fs.h: `_IOR(0x12, 128, __u64)`.
const BLKGETDISKSEQ: Opcode = 0x8008_1280;

/// Zeroes `length` bytes of a block device from `start`, both multiples of the logical block size.
pub fn zero_out(device: impl AsFd, start: u64, length: u64) -> io::Result<()> {
    // SAFETY: BLKZEROOUT only reads two `u64`s at its argument, which `Setter` passes by address;
    // a file that is not a block device fails with ENOTTY.
    unsafe { ioctl(device, Setter::<BLKZEROOUT, [u64; 2]>::new([start, length]))? };
    Ok(())
}

/// Makes a block device read-only, like `blockdev --setro`.
pub fn set_read_only(device: impl AsFd) -> io::Result<()> {
    // SAFETY: BLKROSET only reads an `int` at its argument, which `Setter` passes by address; a
    // file that is not a block device fails with ENOTTY.
    unsafe { ioctl(device, Setter::<BLKROSET, c_int>::new(1))? };
    Ok(())
}

/// Returns the number of a block device's disk that no other disk has had since the boot (`diskseq`).
pub fn disk_sequence(device: impl AsFd) -> io::Result<u64> {
    // SAFETY: BLKGETDISKSEQ writes a `u64` to its argument, which `Getter` passes by address; a file
    // that is not a block device fails with ENOTTY.
    Ok(unsafe { ioctl(device, Getter::<BLKGETDISKSEQ, u64>::new())? })
}

/// The argument of a [`Request`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// The request takes no argument.
    None,
    /// The argument is a number.
    Value,
    /// The kernel writes this many bytes at the argument; they are zero before.
    Get(usize),
    /// The kernel reads this many bytes at the argument.
    Put(usize),
}

/// A request of [`REQUESTS`].
///
/// # Invariants
///
/// The kernel writes at most [`ROOM`] bytes, at the argument. The data that it reads there hold no lengths
/// or further addresses that it writes to: the bytes are zero, or the kernel only reads where they
/// point.
#[derive(Debug)]
pub struct Request {
    /// The name of its macro.
    pub name: &'static str,
    /// The kind of its argument.
    pub argument: Argument,
    number: Opcode,
}

/// Size of the buffer at the argument, which is at least what any request needs.
const ROOM: usize = 4096;

/// An address at which nothing is mapped: see `vm.mmap_min_addr`.
const UNMAPPED: usize = 8;

const fn request(name: &'static str, number: Opcode, argument: Argument) -> Request {
    // INVARIANT: This function is called for the table below only, which was checked against the
    // headers. Block devices reject requests that they don't know, without a write.
    Request {
        name,
        argument,
        number,
    }
}

/// All requests.
pub static REQUESTS: &[Request] = {
    use Argument::{Get, None, Put, Value};
    &[
        request("BLKROSET", BLKROSET, Put(4)),
        request("BLKROGET", 0x125e, Get(4)),
        request("BLKRRPART", 0x125f, None),
        request("BLKGETSIZE", 0x1260, Get(8)),
        request("BLKFLSBUF", 0x1261, None),
        request("BLKRASET", 0x1262, Value),
        request("BLKRAGET", 0x1263, Get(8)),
        request("BLKFRASET", 0x1264, Value),
        request("BLKFRAGET", 0x1265, Get(8)),
        request("BLKSECTGET", 0x1267, Get(2)),
        request("BLKSSZGET", 0x1268, Get(4)),
        request("BLKPG", 0x1269, Put(24)),
        request("BLKBSZGET", 0x8008_1270, Get(4)),
        request("BLKBSZSET", 0x4008_1271, Put(4)),
        request("BLKGETSIZE64", 0x8008_1272, Get(8)),
        request("BLKTRACESETUP", 0xc048_1273, Put(72)),
        request("BLKTRACESTART", 0x1274, None),
        request("BLKTRACESTOP", 0x1275, None),
        request("BLKTRACETEARDOWN", 0x1276, None),
        request("BLKDISCARD", 0x1277, Put(16)),
        request("BLKIOMIN", 0x1278, Get(4)),
        request("BLKIOOPT", 0x1279, Get(4)),
        request("BLKALIGNOFF", 0x127a, Get(4)),
        request("BLKPBSZGET", 0x127b, Get(4)),
        request("BLKDISCARDZEROES", 0x127c, Get(4)),
        request("BLKSECDISCARD", 0x127d, Put(16)),
        request("BLKROTATIONAL", 0x127e, Get(2)),
        request("BLKZEROOUT", BLKZEROOUT, Put(16)),
        request("BLKREPORTZONE", 0xc010_1282, Get(16)),
        request("BLKRESETZONE", 0x4010_1283, Put(16)),
        request("BLKGETZONESZ", 0x8004_1284, Get(4)),
        request("BLKGETNRZONES", 0x8004_1285, Get(4)),
        request("BLKOPENZONE", 0x4010_1286, Put(16)),
        request("HDIO_GETGEO", 0x0301, Get(16)),
        request("HDIO_GET_IDENTITY", 0x030d, Get(512)),
        request("HDIO_DRIVE_CMD", 0x031f, Get(4)),
        request("CDROMEJECT", 0x5309, None),
        request("CDROM_MEDIA_CHANGED", 0x5325, Value),
        request("CDROM_GET_CAPABILITY", 0x5331, None),
        request("SCSI_IOCTL_SEND_COMMAND", 1, Get(16)),
        request("SCSI_IOCTL_GET_IDLUN", 0x5382, Get(8)),
        request("SG_GET_VERSION_NUM", 0x2282, Get(4)),
        request("SG_IO", 0x2285, Get(88)),
        request("NVME_IOCTL_ID", 0x4e40, None),
        request("IOC_PR_REGISTER", 0x4018_70c8, Put(24)),
        request("IOC_PR_RESERVE", 0x4010_70c9, Put(16)),
        request("IOC_PR_CLEAR", 0x4010_70cd, Put(16)),
        request("IOC_OPAL_GET_STATUS", 0x8008_70ec, Get(8)),
        request("LOOP_GET_STATUS64", 0x4c05, Get(232)),
        request("unknown", 0x12ff, None),
    ]
};

impl Request {
    /// Finds a request by its name.
    pub fn named(name: &str) -> Option<&'static Self> {
        REQUESTS.iter().find(|request| request.name == name)
    }

    /// Returns the bytes at the argument.
    fn buffer(&self, numbers: &[u64]) -> [u8; ROOM] {
        let mut buffer = [0; ROOM];
        if let Argument::Put(length) = self.argument {
            let share = (length / numbers.len().max(1)).max(1);
            for (share, number) in buffer[..length].chunks_exact_mut(share).zip(numbers) {
                let used = share.len().min(size_of_val(number));
                share[..used].copy_from_slice(&number.to_le_bytes()[..used]);
            }
        }
        buffer
    }

    /// Makes the request and returns the bytes that the kernel wrote.
    ///
    /// The first of `numbers` is the argument of [`Argument::Value`]. For [`Argument::Put`] the
    /// kernel reads all of them, each in an equal share of the bytes. Missing numbers are zero.
    pub fn make(&self, file: BorrowedFd<'_>, numbers: &[u64]) -> io::Result<Vec<u8>> {
        let mut buffer = self.buffer(numbers);
        match self.argument {
            Argument::None => self.call(file, 0)?,
            Argument::Value => {
                let value = numbers.first().copied().unwrap_or(0);
                // CAST: usize has 64 bits, as the module documentation requires.
                self.call(file, value as usize)?;
            }
            Argument::Get(_) | Argument::Put(_) => {
                self.call(file, (&raw mut buffer).expose_provenance())?;
            }
        }
        Ok(match self.argument {
            Argument::Get(length) => buffer[..length].to_vec(),
            _ => Vec::new(),
        })
    }

    /// Makes the request with an argument that points to unmapped memory.
    pub fn make_unmapped(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.call(file, UNMAPPED)
    }

    /// Makes the request with a number or [`UNMAPPED`], or with the address of [`ROOM`] writable
    /// bytes if `self.argument` is `Get` or `Put`.
    fn call(&self, file: BorrowedFd<'_>, argument: usize) -> io::Result<()> {
        // SAFETY: The type invariant limits the kernel's writes to `ROOM` bytes at the argument.
        // Those are the caller's buffer, or nothing is mapped there and the call fails.
        let answer = unsafe { libc::ioctl(file.as_raw_fd(), self.number as _, argument) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn names_are_unique() {
        for request in REQUESTS {
            let found = Request::named(request.name).unwrap();
            assert_eq!(found.number, request.number, "{}", request.name);
        }
    }

    #[test]
    fn numbers_share_the_bytes_equally() {
        let bytes = |name, numbers: &[u64]| Request::named(name).unwrap().buffer(numbers);
        let two = bytes("BLKDISCARD", &[0x0102, 3]);
        assert_eq!(two[..16], [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes("BLKROSET", &[1])[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes("BLKPG", &[5])[..24], [&[5][..], &[0; 23]].concat());
        assert!(bytes("SG_IO", &[5]).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn regular_file_rejects_block_requests() {
        let file = File::open("/proc/self/status").unwrap();
        let refused = |error: io::Error| error.raw_os_error() == Some(libc::ENOTTY);
        assert!(zero_out(&file, 0, 4096).is_err_and(refused));
        assert!(set_read_only(&file).is_err_and(refused));
        let request = Request::named("BLKZEROOUT").unwrap();
        assert!(request.make(file.as_fd(), &[0, 4096]).is_err_and(refused));
        assert!(request.make_unmapped(file.as_fd()).is_err_and(refused));
    }
}
