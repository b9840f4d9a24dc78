// SPDX-License-Identifier: GPL-2.0

//! Accesses to each page of a mapping of a file.

use crate::area::{Area, MapOptions};
use crate::pattern::Pattern;
use abstractions::Mapping;
use abstractions::mapping::Options;
use abstractions::sigbus::{self, BusError};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use units::{PAGE, Size};

const PAGE_BYTES: usize = PAGE as usize;

/// A mapping of a file, and the pattern that the file is to hold.
pub struct MappedFile {
    pub mapping: Mapping,
    pub path: PathBuf,
    /// The file offset at which the mapping starts.
    pub offset: u64,
    pub pattern: Pattern,
}

/// The result of an access to each page of a range.
#[derive(Default)]
pub struct Pages {
    count: usize,
    /// Pages at which the access raised SIGBUS.
    refused: usize,
    /// Pages that do not hold the pattern.
    different: usize,
}

impl Pages {
    pub fn failed(&self) -> usize {
        self.refused + self.different
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages", self.count)?;
        if self.failed() > 0 {
            let (refused, different) = (self.refused, self.different);
            write!(f, ", {refused} refused, {different} not the pattern")?;
        }
        Ok(())
    }
}

impl MappedFile {
    /// Maps a range. SIGBUS is handled from then on.
    pub fn new(area: &Area, map: &MapOptions, writable: bool, pattern: Pattern) -> Result<Self> {
        let offset = area.offset.bytes();
        ensure!(
            offset % PAGE == 0,
            "--offset {}: not a multiple of {PAGE}",
            area.offset
        );
        // A shared mapping with PROT_WRITE needs a file that is open for both; MAP_SYNC needs
        // PROT_WRITE.
        let writable = writable || map.sync;
        let file = area.open(writable, false)?;
        let options = Options {
            writable,
            sync: map.sync,
            populate: map.populate,
        };
        let length = area.length_of(&file)?;
        let mapping = Mapping::new(&file, offset, length, options).context("mmap")?;
        sigbus::catch().context("sigaction")?;
        Ok(Self {
            mapping,
            path: area.file.clone(),
            offset,
            pattern,
        })
    }

    pub fn all(&self) -> Range<usize> {
        0..self.mapping.len()
    }

    /// Returns the file offset of the byte at `at` of the mapping.
    pub fn file_offset(&self, at: usize) -> u64 {
        self.offset + at as u64
    }

    /// Accesses each page of a range and prints a line for each SIGBUS.
    ///
    /// `access` gets a buffer for the page and the page's offset in the mapping, and returns how
    /// many differences it found.
    fn each_page(
        &self,
        range: Range<usize>,
        mut access: impl FnMut(&mut [u8], usize) -> Result<usize, BusError>,
    ) -> Pages {
        let mut bytes = [0; PAGE_BYTES];
        let mut pages = Pages::default();
        for at in range.clone().step_by(PAGE_BYTES) {
            let length = PAGE_BYTES.min(range.end - at);
            pages.count += 1;
            match access(&mut bytes[..length], at) {
                Ok(different) => pages.different += different,
                Err(error) => {
                    println!(
                        "page {} code {} lsb {} address {:#x}",
                        at / PAGE_BYTES,
                        error.code,
                        error.lsb,
                        error.address.wrapping_sub(self.mapping.address())
                    );
                    pages.refused += 1;
                }
            }
        }
        pages
    }

    /// Stores the pattern.
    pub fn store(&self, range: Range<usize>) -> Pages {
        self.each_page(range, |bytes, at| {
            self.pattern.fill(bytes, self.file_offset(at));
            self.mapping.try_copy_in(at, bytes).map(|()| 0)
        })
    }

    /// Stores a text and a newline at the start of the file, as far as the mapping reaches.
    fn store_text(&self, text: &str) -> Pages {
        let line: Vec<u8> = text.bytes().chain([b'\n']).collect();
        self.each_page(self.all(), |bytes, at| {
            let skipped = line.len().min(self.file_offset(at) as usize);
            let part = &line[skipped..];
            let part = &part[..part.len().min(bytes.len())];
            match part.is_empty() {
                true => Ok(0),
                false => self.mapping.try_copy_in(at, part).map(|()| 0),
            }
        })
    }

    /// Loads from each page.
    pub fn load(&self, range: Range<usize>) -> Pages {
        self.each_page(range, |bytes, at| {
            self.mapping.try_copy_out(at, bytes).map(|()| 0)
        })
    }

    /// Compares each page with the pattern.
    pub fn verify(&self, range: Range<usize>) -> Pages {
        self.each_page(range, |bytes, at| {
            self.mapping.try_copy_out(at, bytes)?;
            Ok(differences(&self.pattern, bytes, self.file_offset(at)))
        })
    }
}

/// Compares bytes at `offset` of a file with the pattern and prints the first that differs.
///
/// Returns 1 if one differs, otherwise 0.
pub fn differences(pattern: &Pattern, bytes: &[u8], offset: u64) -> usize {
    let Some(index) = pattern.first_difference(bytes, offset) else {
        return 0;
    };
    println!(
        "byte {} is {:#04x}, not {:#04x}",
        offset + index as u64,
        bytes[index],
        pattern.byte(offset + index as u64)
    );
    1
}

/// How `pmem-io map-write` makes the stores durable.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Durable {
    /// Not at all
    None,
    /// Write the CPU caches back, without a system call; needs --sync
    Flush,
    /// msync(2)
    Msync,
    /// fsync(2)
    Fsync,
}

/// Stores the text or the pattern to all of the area; returns how many pages refused it.
pub fn map_write(
    area: &Area,
    map: &MapOptions,
    pattern: Pattern,
    text: Option<&str>,
    durable: Durable,
) -> Result<usize> {
    ensure!(
        durable != Durable::Flush || map.sync,
        "--durable flush: without --sync the file system's metadata may be lost"
    );
    let file = MappedFile::new(area, map, true, pattern)?;
    let mapping = &file.mapping;
    let pages = match text {
        Some(text) => file.store_text(text),
        None => file.store(file.all()),
    };
    match durable {
        Durable::None => {}
        Durable::Flush => println!("flushed by {}", mapping.write_back(0, mapping.len())),
        Durable::Msync => mapping.sync(0, mapping.len()).context("msync")?,
        Durable::Fsync => area.open(true, false)?.sync_all().context("fsync")?,
    }
    Ok(pages.failed())
}

/// Returns the physical address of the first byte of the area.
pub fn physical_address(area: &Area) -> Result<u64> {
    /// The page is in RAM (Documentation/admin-guide/mm/pagemap.rst).
    const PRESENT: u64 = 1 << 63;
    const PFN: u64 = (1 << 55) - 1;

    let in_page = area.offset.bytes() % PAGE;
    let page = Area {
        file: area.file.clone(),
        offset: Size::from_bytes(area.offset.bytes() - in_page),
        length: Some(Size::from_bytes(PAGE)),
    };
    let map = MapOptions {
        sync: false,
        populate: false,
    };
    let file = MappedFile::new(&page, &map, false, Pattern::new(0))?;
    if let Err(error) = file.mapping.try_copy_out(0, &mut [0]) {
        bail!("access to the page failed: SIGBUS, code {}", error.code);
    }
    let mut entry = [0; 8];
    let pagemap = File::open("/proc/self/pagemap").context("/proc/self/pagemap")?;
    pagemap
        .read_exact_at(&mut entry, file.mapping.address() as u64 / PAGE * 8)
        .context("/proc/self/pagemap")?;
    let entry = u64::from_ne_bytes(entry);
    ensure!(entry & PRESENT != 0, "the page is not present");
    ensure!(
        entry & PFN != 0,
        "/proc/self/pagemap hides the page frame number (try as root)"
    );
    Ok((entry & PFN) * PAGE + in_page)
}
