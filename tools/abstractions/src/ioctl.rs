// SPDX-License-Identifier: GPL-2.0

//! Requests that are made of a block device by ioctl(2).
//!
//! The numbers and the sizes are those of Linux on 64-bit processors with the common encoding of
//! ioctls (x86-64, arm64): `include/uapi/linux/{fs,blkpg,blktrace_api,blkzoned,hdreg,cdrom,pr}.h`,
//! `include/scsi/{sg,scsi}.h`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What is passed along with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// Nothing.
    None,
    /// A number.
    Value,
    /// The address of so many bytes that the kernel writes; before, all of them are zero.
    Get(usize),
    /// The address of so many bytes that the kernel reads.
    Put(usize),
}

/// A request.
///
/// # Invariants
///
/// In answer to it, the kernel writes to no more memory than the first [`ROOM`] bytes behind the
/// argument, if that is an address: either those are zero, without lengths and further addresses, or
/// it only reads from where they lead.
#[derive(Debug)]
pub struct Request {
    /// The name of its macro.
    pub name: &'static str,
    /// What goes with it.
    pub argument: Argument,
    number: u32,
}

/// Bytes behind the address of an argument, however few the request is known to need.
const ROOM: usize = 4096;

/// An address that nothing is mapped at: see `vm.mmap_min_addr`.
const NOWHERE: usize = 8;

const fn request(name: &'static str, number: u32, argument: Argument) -> Request {
    // INVARIANT: Only for the table below, whose lines were held against the headers. A request of a
    // kind that block devices don't know writes nothing.
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
        request("BLKROSET", 0x125d, Put(4)),
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
        request("BLKZEROOUT", 0x127f, Put(16)),
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
    /// The request of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        REQUESTS.iter().find(|request| request.name == name)
    }

    /// Makes it, and gives the kernel's answer: the bytes that it has written, where it writes such.
    ///
    /// `value` is the number where that goes with the request, `bytes` are those that the kernel
    /// reads; what is missing is zero.
    pub fn make(&self, file: BorrowedFd<'_>, value: usize, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut buffer = [0; ROOM];
        let length = bytes.len().min(ROOM);
        buffer[..length].copy_from_slice(&bytes[..length]);

        match self.argument {
            Argument::None => self.call(file, 0)?,
            Argument::Value => self.call(file, value)?,
            Argument::Get(_) | Argument::Put(_) => {
                self.call(file, (&raw mut buffer).expose_provenance())?
            }
        }
        Ok(match self.argument {
            Argument::Get(length) => buffer[..length].to_vec(),
            _ => Vec::new(),
        })
    }

    /// Makes it with an address that nothing is at.
    pub fn make_nowhere(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.call(file, NOWHERE)
    }

    /// `argument` is a number or [`NOWHERE`], or the address of [`ROOM`] bytes, as the request wants.
    fn call(&self, file: BorrowedFd<'_>, argument: usize) -> io::Result<()> {
        // SAFETY: By the type invariant the kernel writes into the bytes at the argument alone, or
        // fails, as nothing is there.
        let answer = unsafe { libc::ioctl(file.as_raw_fd(), self.number as _, argument) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
