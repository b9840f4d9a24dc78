// SPDX-License-Identifier: GPL-2.0

//! The operations, and their measurement.

use crate::{Outcome, Ticks};
use abstractions::Mapping;
use abstractions::ioctl;
use abstractions::mapping::Options;
use abstractions::pinning::{Advice, advise_huge};
use abstractions::ring::{self, Ring};
use abstractions::sigbus;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use units::PAGE;

const K: usize = 1 << 10;
const M: usize = 1 << 20;
/// Where the kernel has its settings of huge pages, if it has these.
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage";

pub struct Op {
    pub name: &'static str,
    pub samples: usize,
    /// Number of operations in a sample.
    pub each: u64,
    /// Prepares the operation on a path.
    pub prepare: fn(&Path) -> Result<Box<dyn Work>>,
}

impl Op {
    /// Returns whether it lists bad blocks. Overwriting repairs them, if the bus or the driver can.
    pub fn lists_errors(&self) -> bool {
        self.name.ends_with("-bad")
    }
}

/// Warms up, then measures each operation by the clock `now`, which adds `empty` to each interval. An operation that this
/// kind of disk can't do is refused; other failures are errors.
#[inline(always)]
pub fn outcome(op: &Op, path: &Path, now: impl Fn() -> u64, empty: u64) -> Result<Outcome> {
    match measure(op, path, now, empty) {
        Ok(ticks) => Ok(Outcome::Measured(ticks)),
        Err(error) => Ok(Outcome::Refused {
            refused: reason(&error)?,
        }),
    }
}

#[inline(always)]
fn measure(op: &Op, path: &Path, now: impl Fn() -> u64, empty: u64) -> Result<Ticks> {
    let mut work = (op.prepare)(path)?;
    let warm_up = op.samples.div_ceil(8);
    let mut samples = Vec::with_capacity(op.samples);
    for round in 0..warm_up + op.samples {
        work.before(round)?;
        let start = now();
        let done = work.once(round);
        let end = now();
        done?;
        if round >= warm_up {
            samples.push(end - start);
        }
    }
    work.after()?;
    Ticks::of(&samples, empty, op.each).context("no samples")
}

/// Returns why a disk refused an operation, or the error itself if it is unexpected.
fn reason(error: &anyhow::Error) -> Result<String> {
    let errno = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
        .or_else(|| {
            let errno = error
                .chain()
                .find_map(|cause| cause.downcast_ref::<Errno>());
            errno.map(|errno| errno.raw_os_error())
        });
    match errno.map(Errno::from_raw_os_error) {
        Some(Errno::OPNOTSUPP) => Ok("not supported".into()),
        Some(Errno::NOSPC) => Ok("no room".into()),
        _ => bail!("{error:#}"),
    }
}

/// An operation that can be repeated.
pub trait Work {
    /// Prepares the next operation; not measured.
    fn before(&mut self, _round: usize) -> Result<()> {
        Ok(())
    }

    fn once(&mut self, round: usize) -> Result<()>;

    /// Undoes what remains visible outside.
    fn after(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Disks are used up to this offset.
const AREA: usize = 32 * M;
/// Bad blocks that no operation touches begin here, at this distance.
const BAD: u64 = 48 * M as u64;
const APART: u64 = 16 * K as u64;

/// Operations on a disk.
pub const DISK: &[Op] = &[
    direct("read-512", 400, |path| Direct::new(path, 512, READ)),
    direct("read-4k", 400, |path| Direct::new(path, 4 * K, READ)),
    direct("read-64k", 200, |path| Direct::new(path, 64 * K, READ)),
    direct("read-1m", 32, |path| Direct::new(path, M, READ)),
    direct("read-512-huge", 400, |path| {
        Direct::new(path, 512, READ.huge())
    }),
    direct("read-4k-huge", 400, |path| {
        Direct::new(path, 4 * K, READ.huge())
    }),
    direct("read-64k-huge", 200, |path| {
        Direct::new(path, 64 * K, READ.huge())
    }),
    direct("read-1m-huge", 32, |path| Direct::new(path, M, READ.huge())),
    direct("write-512", 400, |path| Direct::new(path, 512, WRITE)),
    direct("write-4k", 400, |path| Direct::new(path, 4 * K, WRITE)),
    direct("write-64k", 200, |path| Direct::new(path, 64 * K, WRITE)),
    direct("write-1m", 32, |path| Direct::new(path, M, WRITE)),
    direct("write-512-huge", 400, |path| {
        Direct::new(path, 512, WRITE.huge())
    }),
    direct("write-4k-huge", 400, |path| {
        Direct::new(path, 4 * K, WRITE.huge())
    }),
    direct("write-64k-huge", 200, |path| {
        Direct::new(path, 64 * K, WRITE.huge())
    }),
    direct("write-1m-huge", 32, |path| {
        Direct::new(path, M, WRITE.huge())
    }),
    direct("nowait-read-4k", 400, |path| {
        Direct::new(path, 4 * K, READ.flags(ReadWriteFlags::NOWAIT))
    }),
    direct("nowait-write-4k", 400, |path| {
        Direct::new(path, 4 * K, WRITE.flags(ReadWriteFlags::NOWAIT))
    }),
    direct("dsync-write-4k", 400, |path| {
        Direct::new(path, 4 * K, WRITE.flags(ReadWriteFlags::DSYNC))
    }),
    direct("write-fsync-4k", 400, |path| {
        Direct::new(path, 4 * K, WRITE.synced())
    }),
    direct("fsync", 400, |path| Direct::new(path, 0, WRITE.synced())),
    Op {
        name: "zeroout-1m",
        samples: 32,
        each: 1,
        prepare: |path| Ok(Box::new(Zeroes::new(path)?)),
    },
    direct("read-4k-1-bad", 400, |path| {
        Direct::new(path, 4 * K, READ.beside(1))
    }),
    direct("read-4k-16-bad", 400, |path| {
        Direct::new(path, 4 * K, READ.beside(16))
    }),
    direct("read-4k-1024-bad", 400, |path| {
        Direct::new(path, 4 * K, READ.beside(1024))
    }),
    direct("write-4k-1-bad", 400, |path| {
        Direct::new(path, 4 * K, WRITE.beside(1))
    }),
    direct("write-4k-16-bad", 400, |path| {
        Direct::new(path, 4 * K, WRITE.beside(16))
    }),
    direct("write-4k-1024-bad", 400, |path| {
        Direct::new(path, 4 * K, WRITE.beside(1024))
    }),
    direct("read-1m-1-bad", 32, |path| {
        Direct::new(path, M, READ.beside(1))
    }),
    direct("read-1m-16-bad", 32, |path| {
        Direct::new(path, M, READ.beside(16))
    }),
    direct("read-1m-1024-bad", 32, |path| {
        Direct::new(path, M, READ.beside(1024))
    }),
    direct("write-1m-1-bad", 32, |path| {
        Direct::new(path, M, WRITE.beside(1))
    }),
    direct("write-1m-16-bad", 32, |path| {
        Direct::new(path, M, WRITE.beside(16))
    }),
    direct("write-1m-1024-bad", 32, |path| {
        Direct::new(path, M, WRITE.beside(1024))
    }),
    uring("uring-read-4k", 1, |path| Uring::new(path, false, PLAIN)),
    uring("uring-write-4k", 1, |path| Uring::new(path, true, PLAIN)),
    uring("uring-read-4k-registered", 1, |path| {
        Uring::new(path, false, PLAIN.registered())
    }),
    uring("uring-write-4k-registered", 1, |path| {
        Uring::new(path, true, PLAIN.registered())
    }),
    uring("uring-read-4k-x32", 32, |path| {
        Uring::new(path, false, DEEP)
    }),
    uring("uring-write-4k-x32", 32, |path| {
        Uring::new(path, true, DEEP)
    }),
    uring("uring-read-4k-x32-registered", 32, |path| {
        Uring::new(path, false, DEEP.registered())
    }),
    uring("uring-write-4k-x32-registered", 32, |path| {
        Uring::new(path, true, DEEP.registered())
    }),
];

/// Operations on files with DAX.
pub const FILES: &[Op] = &[
    direct("read-4k", 400, |path| {
        Direct::new(&file(path, 32 * M)?, 4 * K, READ.cached())
    }),
    direct("write-4k", 400, |path| {
        Direct::new(&file(path, 32 * M)?, 4 * K, WRITE.cached())
    }),
    Op {
        name: "fault-4k",
        samples: 400,
        each: 1,
        prepare: |path| Ok(Box::new(Faults::new(&file(path, 16 * M)?, PAGE as usize)?)),
    },
    Op {
        name: "fault-2m",
        samples: 64,
        each: 1,
        prepare: |path| Ok(Box::new(Faults::new(&file(path, 64 * M)?, 2 * M)?)),
    },
];

const fn direct(
    name: &'static str,
    samples: usize,
    prepare: fn(&Path) -> Result<Box<dyn Work>>,
) -> Op {
    Op {
        name,
        samples,
        each: 1,
        prepare,
    }
}

const fn uring(name: &'static str, each: u64, prepare: fn(&Path) -> Result<Box<dyn Work>>) -> Op {
    Op {
        name,
        samples: if each == 1 { 400 } else { 64 },
        each,
        prepare,
    }
}

/// How a [`Direct`] does I/O.
#[derive(Clone, Copy)]
struct How {
    write: bool,
    cached: bool,
    huge: bool,
    sync: bool,
    bad: u64,
    flags: ReadWriteFlags,
}

const READ: How = How {
    write: false,
    cached: false,
    huge: false,
    sync: false,
    bad: 0,
    flags: ReadWriteFlags::empty(),
};
const WRITE: How = How {
    write: true,
    ..READ
};

impl How {
    /// With a buffer in a huge page.
    const fn huge(self) -> Self {
        Self { huge: true, ..self }
    }

    /// Followed by fsync(2).
    fn synced(self) -> Self {
        Self { sync: true, ..self }
    }

    /// While this many bad blocks are listed elsewhere.
    const fn beside(self, bad: u64) -> Self {
        Self { bad, ..self }
    }

    /// Without O_DIRECT.
    fn cached(self) -> Self {
        Self {
            cached: true,
            ..self
        }
    }

    fn flags(self, flags: ReadWriteFlags) -> Self {
        Self { flags, ..self }
    }
}

/// Sequential reads or writes.
struct Direct {
    file: File,
    buffer: Pages,
    length: usize,
    how: How,
    bad: Option<BadBlocks>,
}

impl Direct {
    #[expect(clippy::new_ret_no_self, reason = "any work is as good")]
    fn new(path: &Path, length: usize, how: How) -> Result<Box<dyn Work>> {
        let flags = match how.cached {
            true => OFlags::empty(),
            false => OFlags::DIRECT,
        };
        Ok(Box::new(Self {
            file: OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(flags.bits() as i32)
                .open(path)?,
            buffer: Pages::new(length.max(PAGE as usize), how.huge)?,
            length,
            how,
            bad: (how.bad > 0)
                .then(|| BadBlocks::list(path, how.bad))
                .transpose()?,
        }))
    }
}

impl Work for Direct {
    fn once(&mut self, round: usize) -> Result<()> {
        let How {
            write, sync, flags, ..
        } = self.how;
        let length = self.length;
        if length > 0 {
            let offset = (round * length % AREA) as u64;
            let bytes = self.buffer.bytes(length);
            let done = match (flags.is_empty(), write) {
                (true, false) => self.file.read_at(bytes, offset)?,
                (true, true) => self.file.write_at(bytes, offset)?,
                (false, false) => {
                    preadv2(&self.file, &mut [IoSliceMut::new(bytes)], offset, flags)?
                }
                (false, true) => pwritev2(&self.file, &[IoSlice::new(bytes)], offset, flags)?,
            };
            if done != length {
                bail!("{done} bytes of {length}");
            }
        }
        if sync {
            self.file.sync_all()?;
        }
        Ok(())
    }

    fn after(&mut self) -> Result<()> {
        self.bad.as_ref().map_or(Ok(()), BadBlocks::unlist)
    }
}

/// Bad blocks that are listed where no operation touches them.
struct BadBlocks {
    path: PathBuf,
    count: u64,
}

impl BadBlocks {
    fn list(path: &Path, count: u64) -> Result<Self> {
        let bad = Self {
            path: path.to_owned(),
            count,
        };
        let name = path.file_name().context("a disk's name")?;
        let disk = Path::new("/sys/block").join(name);
        // Only pmem disks have a badblocks list that can be written to.
        if !disk.join("badblocks").exists() || !name.to_string_lossy().starts_with("pmem") {
            return Err(io::Error::from(Errno::OPNOTSUPP).into());
        }
        let exact = disk.join("device/errors/list");
        for index in 0..count {
            let start = BAD + index * APART;
            let listed = match exact.exists() {
                true => fs::write(&exact, format!("add {start} {PAGE}")),
                false => fs::write(
                    disk.join("badblocks"),
                    format!("{} {}", start / 512, PAGE / 512),
                ),
            };
            if let Err(error) = listed {
                bad.unlist()?;
                return Err(error.into());
            }
        }
        let text = fs::read_to_string(disk.join("badblocks"))?;
        ensure!(
            !text.is_empty(),
            "the list of {} stays empty",
            path.display()
        );
        Ok(bad)
    }

    /// Zeroing repairs them, with everything that is merged with them when they are many.
    fn unlist(&self) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        let end = BAD + self.count * APART;
        for start in (BAD..end).step_by(M) {
            ioctl::zero_out(&file, start, (end - start).min(M as u64))
                .context("a bad block can't be repaired")?;
        }
        Ok(())
    }
}

/// Zeroing by `BLKZEROOUT`.
struct Zeroes(File);

impl Zeroes {
    fn new(path: &Path) -> Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }
}

impl Work for Zeroes {
    fn once(&mut self, round: usize) -> Result<()> {
        let start = (round * M % AREA) as u64;
        Ok(ioctl::zero_out(&self.0, start, M as u64)?)
    }
}

const PLAIN: ring::Options = ring::Options {
    depth: 1,
    block: 4096,
    registered: false,
};
const DEEP: ring::Options = ring::Options { depth: 32, ..PLAIN };
/// Requests by io_uring.
struct Uring {
    ring: Ring,
    write: bool,
    bytes: usize,
}

impl Uring {
    #[expect(clippy::new_ret_no_self, reason = "any work is as good")]
    fn new(path: &Path, write: bool, want: ring::Options) -> Result<Box<dyn Work>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(path)?;
        Ok(Box::new(Self {
            ring: Ring::new(file, want)?,
            write,
            bytes: (want.depth * want.block) as usize,
        }))
    }
}

impl Work for Uring {
    fn once(&mut self, round: usize) -> Result<()> {
        let offset = (round * self.bytes % AREA) as u64;
        Ok(self.ring.batch(self.write, offset)?)
    }
}

/// Page faults: first accesses to a mapping.
struct Faults {
    file: File,
    length: usize,
    step: usize,
    mapping: Option<Mapping>,
    /// Accesses since it was mapped, and the number of faults before.
    touches: usize,
    faults: u64,
}

impl Faults {
    fn new(path: &Path, step: usize) -> Result<Self> {
        sigbus::catch()?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = usize::try_from(file.metadata()?.len())?;
        Ok(Self {
            file,
            length,
            step,
            mapping: None,
            touches: 0,
            faults: 0,
        })
    }

    /// Checks that each access was a fault that mapped a page of the expected size.
    fn check(&self) -> Result<()> {
        /// Faults that have other causes.
        const OTHERS: u64 = 16;
        let Some(mapping) = &self.mapping else {
            return Ok(());
        };
        for at in (0..self.touches * self.step).step_by(PAGE as usize) {
            mapping.copy_in(at, &[1]);
        }
        let (faults, touches) = (minor_faults()? - self.faults, self.touches as u64);
        ensure!(
            (touches..touches + OTHERS).contains(&faults),
            "{touches} touches of {} bytes each, {faults} faults",
            self.step
        );
        Ok(())
    }
}

/// Returns the minor faults of this process (proc_pid_stat(5), field 10).
fn minor_faults() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(')').context("/proc/self/stat")?;
    let count = fields.split_whitespace().nth(7);
    Ok(count.context("/proc/self/stat")?.parse()?)
}

impl Work for Faults {
    fn before(&mut self, round: usize) -> Result<()> {
        if round * self.step % self.length == 0 {
            self.check()?;
            let want = Options {
                writable: true,
                sync: false,
                populate: false,
            };
            self.mapping = None;
            let mapping = Mapping::new(&self.file, 0, self.length, want)?;
            if self.step < 2 * M {
                mapping.advise(0, self.length, Advice::NoHuge)?;
            }
            self.mapping = Some(mapping);
            self.touches = 0;
            self.faults = minor_faults()?;
        }
        self.touches += 1;
        Ok(())
    }

    fn once(&mut self, round: usize) -> Result<()> {
        let at = round * self.step % self.length;
        let mapping = self.mapping.as_ref().context("a mapping")?;
        mapping.copy_in(at, &[round as u8]);
        Ok(())
    }

    fn after(&mut self) -> Result<()> {
        self.check()
    }
}

/// Makes a file and writes all of it.
fn file(folder: &Path, length: usize) -> Result<PathBuf> {
    let path = folder.join(format!("file-{}m", length / M));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?;
    if file.metadata()?.len() == 0 {
        fallocate(&file, FallocateFlags::empty(), 0, length as u64)?;
        let bytes = vec![0x5a; M];
        for at in (0..length).step_by(M) {
            file.write_all_at(&bytes, at as u64)?;
        }
        file.sync_all()?;
    }
    Ok(path)
}

/// Memory of this process in pages of a known kind.
struct Pages {
    bytes: Vec<u8>,
    start: usize,
}

impl Pages {
    /// Maps and touches memory that begins at a page or at a huge page.
    fn new(length: usize, huge: bool) -> Result<Self> {
        let align = 2 * M;
        // Memory of this size always comes from mmap(2).
        let mut bytes = vec![0; length.next_multiple_of(align) + 64 * M];
        let start = bytes.as_ptr().addr().wrapping_neg() % align;
        let end = start + length.next_multiple_of(if huge { align } else { PAGE as usize });
        match Path::new(HUGE_PAGES).exists() {
            true => advise_huge(&mut bytes[start..end], huge).context(HUGE_PAGES)?,
            // All pages are small, and advice is EINVAL.
            false if huge => return Err(Errno::OPNOTSUPP).context(HUGE_PAGES),
            false => (),
        }
        bytes[start..end].fill(0x5a);
        let pages = Self { bytes, start };
        let found = field(pages.bytes[start..].as_ptr().addr(), "AnonHugePages")? > 0;
        ensure!(
            found == huge,
            "the memory is not in pages of the kind that is wanted"
        );
        Ok(pages)
    }

    fn bytes(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + length]
    }
}

/// Returns a field of /proc/self/smaps, in bytes, of the mapping at this address.
fn field(address: usize, name: &str) -> Result<usize> {
    let text = fs::read_to_string("/proc/self/smaps")?;
    let mut inside = false;
    for line in text.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        let range = range.and_then(|(start, end)| {
            let number = |text| usize::from_str_radix(text, 16).ok();
            Some(number(start)?..number(end)?)
        });
        if let Some(range) = range {
            inside = range.contains(&address);
        } else if let Some(rest) = line.strip_prefix(name).filter(|_| inside) {
            let number = rest.trim_start_matches(':').trim().trim_end_matches(" kB");
            return Ok(number.parse::<usize>().context("a number of smaps")? * K);
        }
    }
    bail!("no {name} at {address:#x}")
}
