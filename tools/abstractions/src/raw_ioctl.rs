// SPDX-License-Identifier: GPL-2.0

//! ioctl(2) requests to disks and to the buses and DIMMs of libnvdimm, with any argument, for tests.

use rustix::fs::{FileType, fstat, major, minor};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use rustix::mm::{madvise, mmap_anonymous, mprotect, munmap};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::{self, NonNull};

/// Bytes of an [`Area`]: more than `ND_IOCTL_MAX_BUFLEN` (`include/linux/nd.h`), which no request exceeds.
const ROOM: usize = (4 << 20) + (64 << 10);

/// A disk, or a bus or DIMM of libnvdimm.
///
/// # Invariants
///
/// `file` is a block device and `letter` is 0x12, or `file` is a character device of libnvdimm and `letter` is `N`.
#[derive(Debug)]
pub struct Device {
    file: File,
    letter: u8,
}

impl Device {
    /// Takes a file of such a device. [`io::ErrorKind::Unsupported`] if it is another.
    pub fn new(file: File) -> io::Result<Self> {
        let stat = fstat(&file)?;
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let link = format!("/sys/dev/char/{major}:{minor}/subsystem");
        let is_nd = || fs::read_link(link).is_ok_and(|path| path.ends_with(Path::new("nd")));
        let letter = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => 0x12,
            FileType::CharacterDevice if is_nd() => b'N',
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        // INVARIANT: This is checked above.
        Ok(Self { file, letter })
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Where the argument of a request points to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Memory for the longest request.
    Room,
    /// The same, read-only.
    ReadOnly,
    /// So many bytes in front of memory that is not accessible.
    End(u16),
    /// This number, at which nothing is mapped if it is less than 4096.
    Low(u16),
    /// An address of the kernel.
    Kernel,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The number of the request within its letter (`_IOC_NR`).
    pub number: u8,
    /// Size and direction that the number encodes: the bits above the letter.
    pub encoded: u16,
    /// What the argument points to; more is zero.
    pub bytes: Vec<u8>,
    /// The offset of an address of the bytes behind it.
    pub link: Option<usize>,
    /// Where the argument points to.
    pub place: Place,
}

impl Request {
    /// Whether the kernel writes at the argument only, if `letter` is that of disks. `BLKTRACESETUP` is left out because it
    /// allocates as much memory as requested, and `BLKCRYPTO*` (137 to 139) because they have further addresses.
    pub const fn is_disk_number(number: u8) -> bool {
        number < 137 && number != 115
    }
}

/// Memory for arguments.
///
/// # Invariants
///
/// `ROOM` bytes at `base` are mapped readable and writable, and as many behind them are mapped without access, until the
/// value is dropped.
#[derive(Debug)]
pub struct Area {
    base: NonNull<u8>,
}

impl Area {
    /// Maps the memory.
    pub fn new() -> io::Result<Self> {
        let (none, flags) = (ProtFlags::empty(), MapFlags::PRIVATE);
        // SAFETY: The kernel chooses the address, so the mapping replaces no other.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), 2 * ROOM, none, flags)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut area = Self { base };
        // INVARIANT: Both halves were mapped above without access, and this gives access to the first.
        area.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
        Ok(area)
    }

    fn protect(&mut self, flags: MprotectFlags) -> io::Result<()> {
        // SAFETY: The memory is mapped by `new`, and no reference to it exists.
        unsafe { mprotect(self.base.as_ptr().cast(), ROOM, flags)? };
        Ok(())
    }

    /// Makes a request; returns its errno, or what is at the argument afterwards, as many bytes as before.
    ///
    /// The outer error is one of the memory.
    ///
    /// # Panics
    ///
    /// If the number is one that [`Request::is_disk_number`] leaves out, of a disk.
    pub fn request(
        &mut self,
        device: &Device,
        request: &Request,
    ) -> io::Result<Result<Vec<u8>, i32>> {
        assert!(device.letter != 0x12 || Request::is_disk_number(request.number));
        let room = match request.place {
            Place::End(room) => usize::from(room),
            _ => ROOM,
        };
        let at = self.base.as_ptr().wrapping_add(ROOM - room);
        let argument = match request.place {
            Place::Low(number) => usize::from(number) % 4096,
            Place::Kernel => usize::MAX - 4095,
            _ => at.expose_provenance(),
        };
        let mut bytes = request.bytes.clone();
        if let Some(link) = request.link {
            let behind = (argument + link + 8) as u64;
            bytes[link..link + 8].copy_from_slice(&behind.to_le_bytes());
        }
        bytes.truncate(room);
        // SAFETY: The last `room` of `ROOM` bytes begin at `at`, and are mapped writable by the type invariant.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        if request.place == Place::ReadOnly {
            self.protect(MprotectFlags::READ)?;
        }
        let letter = u32::from(device.letter) << 8;
        let number = (u32::from(request.encoded) << 16) | letter | u32::from(request.number);
        // SAFETY: By the type invariant of `Device`, the file is a block device, for which the numbers that the assertion
        // permits write at the argument only, or one of libnvdimm, all of whose requests do. They write at most `ROOM`
        // bytes, without gaps: into this area and the inaccessible memory behind it, or where nothing is mapped.
        let failed = unsafe { libc::ioctl(device.file.as_raw_fd(), number as _, argument) } < 0;
        let error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        self.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
        // SAFETY: As for the copy to `at`. The kernel has written, if at all, before the call returned.
        unsafe { ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), bytes.len()) };
        if let Some(link) = request.link {
            bytes
                .iter_mut()
                .skip(link)
                .take(8)
                .for_each(|byte| *byte = 0);
        }
        // SAFETY: The memory is mapped by the type invariant, and no reference to it exists. It is zero afterwards.
        unsafe { madvise(self.base.as_ptr().cast(), ROOM, Advice::LinuxDontNeed)? };
        Ok(if failed { Err(error) } else { Ok(bytes) })
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: The memory is mapped by the type invariant, and no reference to it exists.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), 2 * ROOM) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused() {
        for path in ["/dev/null", "/proc/self/status", "/"] {
            let device = Device::new(File::open(path).unwrap());
            let refused = |error: io::Error| error.kind() == io::ErrorKind::Unsupported;
            assert!(device.is_err_and(refused), "{path}");
        }
    }

    #[test]
    fn area_is_mapped() {
        Area::new().unwrap();
    }
}
