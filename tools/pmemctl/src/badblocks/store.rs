// SPDX-License-Identifier: GPL-2.0

//! Files of saved errors.
//!
//! A file is JSON: the list and its checksum. A file that is invalid in any byte is not used at all. The folder, the
//! files and the lock are root's alone: addresses of memory are not for others, and a lock that others can open is a
//! lock that they can hold.

use crate::badblocks::kernel::offset_and_length;
use crate::badblocks::origin::{Errors, SECTOR, sectors};
use crate::nd::region::{Memory, Region};
use crate::sysfs::{self, printable};
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// The version of the file format. The first one has no id.
const VERSION: u32 = 2;

/// No file is longer: some hundred thousand entries.
const LONGEST: u64 = 64 << 20;

/// The highest number of refused lists of a memory that are put aside.
const ASIDE: u32 = 10;

/// How the name of a file begins that is being written.
const NEW: &str = ".new-";

/// The lock of the folder.
const LOCK: &str = ".lock";

/// How long other processes may keep the lock, such as restores of several disks with long lists. udev waits for a restore,
/// which waits for the lock: for three minutes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a saved list is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// It is not as it was written: cut off, edited, or none at all.
    Damaged,
    /// It has another version.
    Version,
    /// It is of other memory.
    OtherMemory,
    /// It is of this memory when that had another size.
    OtherSize,
    /// The kernel has had it all, and knows better since.
    Stale,
}

/// A saved list that is refused, and why in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub refusal: Refusal,
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refused {}

fn refused(refusal: Refusal, reason: impl Into<String>) -> anyhow::Error {
    let reason = reason.into();
    Refused { refusal, reason }.into()
}

/// The saved errors of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedList {
    pub memory: Memory,
    /// The bytes of the region.
    pub size: u64,
    /// The boot of the kernel that `seen` speaks of.
    pub boot: String,
    /// The disks of that boot whose lists had all of it: errors missing there have been repaired. Other lists
    /// still need it.
    pub seen: Vec<u64>,
    /// Names the list since it was begun, and its copies.
    pub id: String,
    /// How often errors were added or removed since: of two copies, the one with the lower number is older.
    pub generation: u64,
    /// The errors, in sectors of the region.
    pub errors: Errors,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedFile {
    checksum: String,
    list: SavedBody,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedBody {
    version: u32,
    memory: Memory,
    size: u64,
    boot: String,
    disks: Vec<u64>,
    /// Version 1 lacks it, and the next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    generation: u64,
    errors: Vec<SavedEntry>,
}

/// Offset and length in bytes, from the start of the region.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedEntry {
    offset: u64,
    length: u64,
    origin: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl SavedBody {
    fn checksum(&self) -> Result<String> {
        let text = serde_json::to_vec(self)?;
        Ok(format!("crc32:{:08x}", crc32fast::hash(&text)))
    }
}

impl SavedList {
    /// Nothing is known of this memory.
    pub fn none(memory: Memory, size: u64) -> Self {
        Self {
            memory,
            size,
            boot: String::new(),
            seen: Vec::new(),
            id: String::new(),
            generation: 0,
            errors: Errors::default(),
        }
    }

    /// As it stands in the file.
    pub fn to_text(&self) -> Result<String> {
        let entries = self.errors.entries().map(|(origin, range)| {
            let (offset, length) = offset_and_length(range);
            SavedEntry {
                offset,
                length,
                origin: origin.word().to_owned(),
            }
        });
        let list = SavedBody {
            version: VERSION,
            memory: self.memory.clone(),
            size: self.size,
            boot: self.boot.clone(),
            disks: self.seen.clone(),
            id: self.id.clone(),
            generation: self.generation,
            errors: entries.collect(),
        };
        let checksum = list.checksum()?;
        let form = SavedFile { checksum, list };
        Ok(serde_json::to_string_pretty(&form)? + "\n")
    }

    /// Parses a file; fails with [`Refused`] if it is not valid.
    pub fn from_text(text: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            list: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| {
            let how = if error.is_eof() {
                "is cut off"
            } else {
                "makes no sense"
            };
            refused(Refusal::Damaged, format!("the saved list {how}: {error}"))
        };
        let version = serde_json::from_slice::<Versioned>(text)
            .map_err(damaged)?
            .list
            .version;
        if !(1..=VERSION).contains(&version) {
            return Err(refused(
                Refusal::Version,
                format!(
                    "the saved list is of version {version}; this is for versions up to {VERSION}"
                ),
            ));
        }
        let SavedFile { checksum, list } = serde_json::from_slice(text).map_err(damaged)?;
        let right = list.checksum()?;
        if checksum != right {
            return Err(refused(
                Refusal::Damaged,
                format!(
                    "the saved list was changed since it was written: its checksum is {right}, not {:?}",
                    checksum.chars().take(20).collect::<String>()
                ),
            ));
        }
        let entries: Option<Errors> = list
            .errors
            .iter()
            .map(|entry| {
                let range = sectors(entry.offset, entry.length)?;
                let inside = range.end <= list.size / SECTOR;
                Some((entry.origin.parse().ok()?, range)).filter(|_| inside)
            })
            .collect();
        let Some(errors) = entries else {
            let reason = "the saved list has an error that no memory of its size can have";
            return Err(refused(Refusal::Damaged, reason));
        };
        Ok(Self {
            memory: list.memory,
            size: list.size,
            boot: list.boot,
            seen: list.disks,
            id: list.id,
            generation: list.generation,
            errors,
        })
    }

    /// Refuses it where it is not of this memory.
    fn is_of(&self, memory: &Memory, size: u64) -> Result<()> {
        if self.memory != *memory {
            return Err(refused(
                Refusal::OtherMemory,
                format!("the saved list is of {}; this is {memory}", self.memory),
            ));
        }
        if self.size != size {
            return Err(refused(
                Refusal::OtherSize,
                format!(
                    "the saved list is of {} bytes of this memory; it has {size}",
                    self.size
                ),
            ));
        }
        Ok(())
    }
}

/// Reads the saved list of a region without locking the folder: a file is replaced as a whole.
pub fn load(path: &Path, memory: &Memory, region: &Region) -> Result<Option<SavedList>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| printable(path))?,
    };
    let mut text = Vec::new();
    file.take(LONGEST + 1)
        .read_to_end(&mut text)
        .with_context(|| printable(path))?;
    if text.len() as u64 > LONGEST {
        return Err(refused(
            Refusal::Damaged,
            format!("the saved list is longer than {LONGEST} bytes"),
        ));
    }
    let saved = SavedList::from_text(&text)?;
    saved.is_of(memory, region.size)?;
    Ok(Some(saved))
}

/// Makes a folder that only root can look into. A folder that exists is left as it is: it may be shared.
pub fn make_folder(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| printable(folder))
}

/// Opens a file to lock, which only root can open, and makes it where it is missing.
pub fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

/// An exclusive lock of a file (flock(2)).
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Fails with `WOULDBLOCK` if another process has it.
    pub fn take(file: File) -> Result<Self, Errno> {
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    /// A process that was just forked has a copy of the file until it runs its program; closing ours would leave the lock
    /// to it.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Replaces a file: after a crash at any time it is the old one or the new one. `prefix` is that of the name while it
/// is written.
pub fn replace(path: &Path, prefix: &str, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    // Made with O_EXCL and mode 0600.
    let mut file = tempfile::Builder::new()
        .prefix(prefix)
        .tempfile_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

/// Returns how the name of a file begins while it is written, if others in its directory may be written at the same time.
pub fn partial(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!(".{}.new-", name.to_string_lossy())
}

/// Removes partial files after a crash.
pub fn remove_partial(folder: &Path, prefix: &str) {
    for name in sysfs::names(folder) {
        if name.starts_with(prefix) {
            let _ = fs::remove_file(folder.join(name));
        }
    }
}

/// Says which process has locked the file, by `/proc/locks`.
pub fn lock_owner(file: &File) -> String {
    let pid = || {
        let inode = file.metadata().ok()?.ino();
        lock_holder(&fs::read_to_string("/proc/locks").ok()?, inode)
    };
    pid().map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// A line is `1: FLOCK  ADVISORY  WRITE 812 fd:00:1234 0 EOF`; waiting processes have `->` before the type.
fn lock_holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words.as_slice() else {
            return None;
        };
        let number = place.rsplit(':').next()?;
        (number.parse() == Ok(inode)).then(|| pid.parse().ok())?
    })
}

/// Locks a file, for which it waits no longer than this.
fn lock(file: File, name: &Path, timeout: Duration) -> Result<Lock> {
    let end = Instant::now() + timeout;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() >= end => {
                bail!(
                    "{}: {} has had the lock for {} s; end it, or try again",
                    printable(name),
                    lock_owner(&file),
                    timeout.as_secs()
                );
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => thread::sleep(Duration::from_millis(20)),
            locked => {
                locked.with_context(|| format!("cannot lock {}", printable(name)))?;
                return Ok(Lock(file));
            }
        }
    }
}

/// The folder of the saved lists, which this program alone reads and writes as long as this is kept.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    _lock: Lock,
}

impl Store {
    /// The folder, made where it is missing.
    pub fn make(folder: &Path) -> Result<Self> {
        make_folder(folder)?;
        let store = Self::open_within(folder, LOCK_TIMEOUT)?;
        let store = store.with_context(|| printable(folder))?;
        remove_partial(folder, NEW);
        Ok(store)
    }

    /// The folder, if there is one that has lists. Below a mount that is still missing, nothing is made.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.with_context(|| printable(folder))?,
        };
        let is_list = |name: OsString| name.as_bytes().ends_with(b".json");
        match entries.flatten().any(|entry| is_list(entry.file_name())) {
            true => Self::open_within(folder, LOCK_TIMEOUT),
            false => Ok(None),
        }
    }

    fn open_within(folder: &Path, timeout: Duration) -> Result<Option<Self>> {
        let path = folder.join(LOCK);
        let file = match lock_file(&path) {
            // Early at boot the root is read-only, and nobody can write.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                File::open(&path).or_else(|_| File::open(folder))
            }
            file => file,
        };
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| printable(&path))?,
        };
        Ok(Some(Self {
            folder: folder.to_owned(),
            _lock: lock(file, &path, timeout)?,
        }))
    }

    /// The file of a memory.
    pub fn file(&self, memory: &Memory) -> PathBuf {
        self.folder.join(memory.file_name())
    }

    /// Reads the saved list of a region; fails with [`Refused`] if the file is not of this region.
    pub fn load(&self, memory: &Memory, region: &Region) -> Result<Option<SavedList>> {
        load(&self.file(memory), memory, region)
    }

    /// Writes it: after a crash at any time the file is the old one or the new one. Fails if [`load`] would refuse it.
    pub fn save(&self, saved: &SavedList) -> io::Result<()> {
        let text = saved.to_text().map_err(io::Error::other)?;
        if text.len() as u64 > LONGEST {
            return Err(io::Error::other(format!(
                "the list has {} errors, more than fit into {} MiB; the file keeps the old list",
                saved.errors.entries().count(),
                LONGEST >> 20
            )));
        }
        replace(&self.file(&saved.memory), NEW, text.as_bytes())
    }

    /// Puts the file of a memory aside, where it can be looked at, and writes a new list in its place, or none; the file's new
    /// name. If that fails, it stays as it was. Fails if there are [`ASIDE`] such files.
    pub fn replace_refused(&self, memory: &Memory, new: Option<&SavedList>) -> Result<PathBuf> {
        let file = self.file(memory);
        // Not by RENAME_NOREPLACE, which NFS lacks: others of this program wait for the lock.
        let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
        let Some(aside) = aside(&file).find(is_free) else {
            bail!(
                "{}.refused: {ASIDE} lists were put aside before; look at them, and remove some",
                printable(&file)
            );
        };
        // A link, so that the file is there at any time: without it, nothing would be known to be lost. FAT has none.
        fs::hard_link(&file, &aside)
            .or_else(|_| fs::rename(&file, &aside))
            .with_context(|| printable(&file))?;
        let written = match new {
            Some(saved) => self.save(saved),
            None => remove(&file).and_then(|()| File::open(&self.folder)?.sync_all()),
        };
        if written.is_err() {
            let _ = fs::rename(&aside, &file);
            // Two names of one file are left as they are.
            let _ = fs::remove_file(&aside);
        }
        written.with_context(|| printable(&self.folder))?;
        Ok(aside)
    }
}

/// Removes a file, if it is there.
pub fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Returns when a file was written last, in milliseconds since 1970.
pub fn modified_ms(file: &Path) -> Option<u64> {
    let time = fs::metadata(file).ok()?.modified().ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_millis() as u64)
}

/// Returns the names for the refused lists of a memory, beside its file.
pub fn aside(file: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let file = file.to_owned();
    (0..ASIDE).map(move |number| match number {
        0 => file.with_extension("json.refused"),
        number => file.with_extension(format!("json.refused-{number}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::badblocks::origin::tests::some;
    use proptest::prelude::*;

    fn place() -> Memory {
        Memory::Place {
            provider: "e820".into(),
            machine: "0123456789abcdef0123456789abcdef".into(),
            start: 0x2000_0000,
        }
    }

    fn saved(errors: Errors) -> SavedList {
        SavedList {
            memory: place(),
            size: 32 << 20,
            boot: "b0".into(),
            seen: vec![12, 15],
            id: "3b241101-e2bb-4255-8caf-4136c566a962".into(),
            generation: 7,
            errors,
        }
    }

    fn one() -> SavedList {
        saved("1052672 4096 machine-check\n".parse().unwrap())
    }

    fn refusal(text: &[u8]) -> Refusal {
        let error = SavedList::from_text(text).expect_err("it was taken");
        error.downcast_ref::<Refused>().unwrap().refusal
    }

    /// Returns the text with a valid checksum.
    fn signed(list: serde_json::Value) -> String {
        let body: SavedBody = serde_json::from_value(list).unwrap();
        let checksum = body.checksum().unwrap();
        serde_json::to_string(&SavedFile {
            checksum,
            list: body,
        })
        .unwrap()
    }

    fn list_of(text: &str) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(text).unwrap()["list"].take()
    }

    #[test]
    fn saved_text_is_readable() {
        let text = one().to_text().unwrap();
        assert!(text.contains("\"offset\": 1052672,"), "{text}");
        assert!(text.contains("\"origin\": \"machine-check\""), "{text}");
        // Additional whitespace is no change.
        let blank = text.replace("\"size\": ", "\"size\":   ");
        assert_eq!(SavedList::from_text(blank.as_bytes()).unwrap(), one());
    }

    #[test]
    fn file_of_version_1_is_read() {
        let mut old = list_of(&one().to_text().unwrap());
        let fields = old.as_object_mut().unwrap();
        fields["version"] = 1.into();
        fields.remove("id").unwrap();
        fields.remove("generation").unwrap();
        let read = SavedList::from_text(signed(old).as_bytes()).unwrap();
        assert_eq!((read.id.as_str(), read.generation), ("", 0));
        assert_eq!(read.errors, one().errors);
    }

    #[test]
    fn truncated_text_is_refused() {
        let text = one().to_text().unwrap();
        for length in 0..text.len() - 1 {
            let cut = &text.as_bytes()[..length];
            assert_eq!(refusal(cut), Refusal::Damaged, "{length} bytes");
        }
    }

    #[test]
    fn edited_text_is_refused() {
        let text = one().to_text().unwrap();
        for (old, new) in [
            ("1052672", "1056768"),
            ("4096", "8192"),
            ("machine-check", "user"),
            ("e820", "e821"),
            ("\"b0\"", "\"b1\""),
            ("33554432", "67108864"),
            ("12,", "13,"),
            ("\"size\"", "\"more\": 1, \"size\""),
            ("crc32:", "crc33:"),
            ("}\n", "} x\n"),
        ] {
            let edited = text.replacen(old, new, 1);
            assert_ne!(edited, text, "{old}");
            assert_eq!(refusal(edited.as_bytes()), Refusal::Damaged, "{old}");
        }
        let newer = text.replace("\"version\": 2", "\"version\": 3");
        assert_eq!(refusal(newer.as_bytes()), Refusal::Version);
        assert_eq!(refusal(&[0xff; 100]), Refusal::Damaged);
        assert_eq!(refusal(b"[]"), Refusal::Damaged);
    }

    #[test]
    fn invalid_values_with_valid_checksum_are_refused() {
        let good = list_of(&one().to_text().unwrap());
        assert!(SavedList::from_text(signed(good.clone()).as_bytes()).is_ok());
        for (key, value) in [
            ("offset", 100_u64.into()),
            ("offset", (32_u64 << 20).into()),
            ("offset", u64::MAX.into()),
            ("offset", (u64::MAX - 511).into()),
            ("length", 0_u64.into()),
            ("length", 100_u64.into()),
            ("length", (1_u64 << 63).into()),
            ("origin", serde_json::Value::from("no word\n")),
        ] {
            let mut bad = good.clone();
            bad["errors"][0][key] = value;
            let text = signed(bad.clone());
            assert_eq!(refusal(text.as_bytes()), Refusal::Damaged, "{bad}");
        }
    }

    #[test]
    fn list_of_other_memory_is_refused() {
        let why = |memory: &Memory, size| {
            let error = one().is_of(memory, size).expect_err("it was taken");
            error.downcast::<Refused>().unwrap().refusal
        };
        assert!(one().is_of(&place(), 32 << 20).is_ok());
        assert_eq!(why(&place(), 64 << 20), Refusal::OtherSize);
        let moved = Memory::Place {
            provider: "e820".into(),
            machine: "ff23456789abcdef0123456789abcdef".into(),
            start: 0x2000_0000,
        };
        assert_eq!(why(&moved, 32 << 20), Refusal::OtherMemory);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn store_is_closed_to_others() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("var/lib");
        let store = Store::make(&folder).unwrap();
        store.save(&one()).unwrap();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&store.file(&place())), 0o600);
        assert_eq!(mode(&folder.join(LOCK)), 0o600);
    }

    #[test]
    fn each_refused_list_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::make(folder.path()).unwrap();
        let refuse = |text: &str| {
            fs::write(store.file(&place()), text).unwrap();
            store.replace_refused(&place(), None)
        };
        for number in 0..ASIDE {
            let text = number.to_string();
            let aside = refuse(&text).unwrap();
            assert_eq!(fs::read_to_string(aside).unwrap(), text);
        }
        assert!(folder.path().join("e820-20000000.json.refused-1").exists());
        let error = refuse("x").unwrap_err().to_string();
        assert!(error.contains("remove some"), "{error}");
        assert_eq!(fs::read(store.file(&place())).unwrap(), b"x");
        let first = folder.path().join("e820-20000000.json.refused");
        assert_eq!(fs::read(first).unwrap(), b"0");
    }

    #[test]
    fn refused_list_stays_if_no_other_can_be_saved() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::make(folder.path()).unwrap();
        let file = store.file(&place());
        fs::write(&file, "x").unwrap();
        let mut long = one();
        long.boot = "b".repeat(LONGEST as usize);
        store.replace_refused(&place(), Some(&long)).unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), b"x");
        assert!(aside(&file).all(|aside| !aside.exists()));
        let aside = store.replace_refused(&place(), Some(&one())).unwrap();
        assert_eq!(fs::read(aside).unwrap(), b"x");
        let text = fs::read(&file).unwrap();
        assert_eq!(SavedList::from_text(&text).unwrap(), one());
    }

    #[test]
    fn list_that_would_be_refused_is_not_saved() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::make(folder.path()).unwrap();
        store.save(&one()).unwrap();
        let mut long = one();
        long.boot = "b".repeat(LONGEST as usize);
        let error = store.save(&long).unwrap_err().to_string();
        assert!(error.contains("more than fit into 64 MiB"), "{error}");
        let text = fs::read(store.file(&place())).unwrap();
        assert_eq!(SavedList::from_text(&text).unwrap(), one());
    }

    #[test]
    fn lock_ends_with_its_owner_although_the_file_is_open_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = lock_file(&path).unwrap();
        let _copy = file.try_clone().unwrap();
        let lock = Lock::take(file).unwrap();
        let other = || Lock::take(lock_file(&path).unwrap());
        assert_eq!(other().err(), Some(Errno::WOULDBLOCK));
        drop(lock);
        assert!(other().is_ok());
    }

    #[test]
    fn lock_has_a_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::make(folder.path()).unwrap();
        let begun = Instant::now();
        let error = Store::open_within(folder.path(), Duration::from_millis(100)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5));
        let text = error.to_string();
        assert!(text.contains("has had the lock"), "{text}");
        store.save(&one()).unwrap();
        drop(store);
        assert!(Store::open(folder.path()).unwrap().is_some());
    }

    #[test]
    fn nothing_is_made_where_nothing_is_saved() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Store::open(folder.path()).unwrap().is_none());
        assert!(Store::open(&folder.path().join("x")).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn lock_of_the_folder_itself_does_not_count() {
        // Another user can take this one if the folder is 0755.
        let folder = tempfile::tempdir().unwrap();
        let other = File::open(folder.path()).unwrap();
        flock(&other, FlockOperation::LockExclusive).unwrap();
        assert!(Store::make(folder.path()).is_ok());
    }

    #[test]
    fn lock_is_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::os::unix::fs::symlink(&target, folder.path().join(LOCK)).unwrap();
        assert!(Store::make(folder.path()).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn lock_holder_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fd:00:1234 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 812 fd:00:1234 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 813 fd:00:1234 0 EOF\n";
        assert_eq!(lock_holder(locks, 1234), Some(812));
        assert_eq!(lock_holder(locks, 123), None);
        assert_eq!(lock_holder("x", 1), None);
    }

    proptest! {
        #[test]
        fn saved_list_reads_back(errors in some()) {
            let list = saved(errors);
            let text = list.to_text().unwrap();
            prop_assert_eq!(SavedList::from_text(text.as_bytes()).unwrap(), list);
        }

        #[test]
        fn changed_byte_is_refused(errors in some(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let list = saved(errors);
            let mut text = list.to_text().unwrap().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            // Refused, or the same list if only whitespace has changed.
            if let Ok(read) = SavedList::from_text(&text) {
                prop_assert_eq!(read, list);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = SavedList::from_text(&bytes);
        }
    }
}
