// SPDX-License-Identifier: GPL-2.0

//! A program whose data a power failure must not lose: it writes records and marks the promises of the kernel.

use abstractions::mapping::Options;
use abstractions::{DirectBuffer, Mapping, mark};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use fastrand::Rng;
use persistence::log::operation;
use persistence::record::{self, RECORD};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Records that are written before they are made durable together.
const BATCH: usize = 3;

#[derive(Args)]
pub struct Promise {
    /// A block device or file of the records, or a folder for create and rename
    path: PathBuf,
    /// How the records are made durable
    #[arg(long, value_name = "HOW")]
    how: How,
    /// Number of records
    #[arg(long, value_name = "N", default_value_t = 32)]
    records: u16,
    /// Number of crash images
    #[arg(long, value_name = "N")]
    images: u64,
    /// Seed of the records' order
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Let the memory of each record fail before it is written: the file takes OFFSET+LENGTH
    #[arg(long, value_name = "FILE")]
    poison: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// O_DIRECT writes, then fsync(2)
    Fsync,
    /// Writes to the page cache, or to a DAX file, then fsync(2)
    Write,
    /// O_DIRECT writes with O_DSYNC
    Dsync,
    /// Writes with O_SYNC
    Sync,
    /// Stores to a mapping, then msync(2)
    Msync,
    /// Stores to a mapping with MAP_SYNC, then a write-back of the CPU caches
    MapSync,
    /// Each record is a new file, which is synced with its folder
    Create,
    /// The same under another name, which is then renamed to that of the record
    Rename,
}

impl Promise {
    pub fn run(&self) -> Result<()> {
        let mut writer = Writer::new(self)?;
        let mut rng = Rng::with_seed(self.seed);
        let mut generation = 0;
        while mark(operation::CRASHES, self.images) < self.images {
            generation += 1;
            let batch: Vec<u16> = match self.how {
                // Each record is created once.
                How::Create => match u16::try_from(generation) {
                    Ok(record) if record <= self.records => vec![record - 1],
                    _ => break,
                },
                How::Rename => vec![rng.u16(..self.records)],
                _ => (0..BATCH).map(|_| rng.u16(..self.records)).collect(),
            };
            for &record in &batch {
                mark(operation::BEGUN, record::note(record, generation));
                self.poison(record)?;
                writer.write(record, generation)?;
            }
            writer.sync(&batch)?;
            for &record in &batch {
                mark(operation::PROMISED, record::note(record, generation));
            }
        }
        Ok(())
    }

    fn poison(&self, record: u16) -> Result<()> {
        let Some(file) = &self.poison else {
            return Ok(());
        };
        let range = format!("{}+{RECORD}", usize::from(record) * RECORD);
        fs::write(file, range).with_context(|| file.display().to_string())
    }

    /// Returns the name of a record that is a file.
    fn name(&self, record: u16) -> PathBuf {
        self.path.join(format!("record{record}"))
    }
}

/// Where records go.
struct Writer<'a> {
    promise: &'a Promise,
    /// The file of all records, or the folder.
    file: File,
    mapping: Option<Mapping>,
    buffer: DirectBuffer,
}

impl<'a> Writer<'a> {
    fn new(promise: &'a Promise) -> Result<Self> {
        let path = &promise.path;
        let flags = match promise.how {
            How::Fsync => OFlags::DIRECT,
            How::Dsync => OFlags::DIRECT | OFlags::DSYNC,
            How::Sync => OFlags::SYNC,
            _ => OFlags::empty(),
        };
        let folder = matches!(promise.how, How::Create | How::Rename);
        ensure!(promise.records > 0, "--records 0: at least one");
        let file = OpenOptions::new()
            .read(true)
            .write(!folder)
            .custom_flags(flags.bits() as i32)
            .open(path)
            .with_context(|| path.display().to_string())?;
        let options = Options {
            writable: true,
            sync: promise.how == How::MapSync,
            populate: false,
        };
        let length = usize::from(promise.records) * RECORD;
        let mapping = match promise.how {
            How::Msync | How::MapSync => {
                Some(Mapping::new(&file, 0, length, options).context("mmap")?)
            }
            _ => None,
        };
        Ok(Self {
            promise,
            file,
            mapping,
            buffer: DirectBuffer::new(RECORD),
        })
    }

    fn write(&mut self, record: u16, generation: u32) -> Result<()> {
        let promise = self.promise;
        let bytes = self.buffer.bytes();
        record::fill(bytes, record, generation);
        let at = usize::from(record) * RECORD;
        if let Some(mapping) = &self.mapping {
            mapping.copy_in(at, bytes);
            return Ok(());
        }
        match promise.how {
            How::Create => write_file(&promise.name(record), bytes),
            How::Rename => {
                let new = promise.path.join("new");
                write_file(&new, bytes)?;
                fs::rename(&new, promise.name(record)).context("rename")
            }
            _ => self.file.write_all_at(bytes, at as u64).context("write"),
        }
    }

    fn sync(&self, batch: &[u16]) -> Result<()> {
        match (&self.mapping, self.promise.how) {
            (_, How::Dsync | How::Sync) => {}
            (Some(mapping), How::MapSync) => {
                for &record in batch {
                    mapping.write_back(usize::from(record) * RECORD, RECORD);
                }
            }
            (Some(mapping), _) => mapping.sync(0, mapping.len()).context("msync")?,
            (None, _) => self.file.sync_all().context("fsync")?,
        }
        Ok(())
    }
}

/// Writes a new file and makes its contents durable.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    file.write_all_at(bytes, 0).context("write")?;
    file.sync_all().context("fsync")
}
