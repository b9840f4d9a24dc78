// SPDX-License-Identifier: GPL-2.0

//! Tests on a mapped file whether it has direct access, `MAP_SYNC` and huge pages.

use crate::sysfs::printable;
use abstractions::extents::{self, Fork};
use abstractions::mapping::{Mapping, Options};
use abstractions::sigbus;
use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::Serialize;
use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use units::PAGE;

/// Bytes of a huge page: of a page middle directory (PMD).
pub const HUGE: u64 = 2 << 20;

/// The size of the test file on a mount: two huge pages, one of which is aligned.
const PROBE_SIZE: u64 = 2 * HUGE;

/// The result of a test with a file, or with a test file on a mount.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Probe {
    /// The file or the mount.
    pub path: String,
    /// It is accessed directly: `STATX_ATTR_DAX`.
    pub dax: bool,
    /// `MAP_SYNC` is granted.
    pub map_sync: bool,
    /// 2 MiB were mapped by few page faults; `null` where that was not tried.
    pub huge: Option<bool>,
    pub reason: Option<String>,
}

/// Returns the attributes of a file from statx(2).
pub fn attributes(file: impl AsFd) -> Result<StatxAttributes> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(found.stx_attributes)
}

/// Bytes of a file's device, by where they are in the file.
pub fn pieces(file: impl AsFd) -> Result<Vec<extents::Extent>> {
    let mut pieces = Vec::new();
    extents::of_file(file, Fork::Data, |extent| pieces.push(*extent))
        .context("where its bytes are")?;
    Ok(pieces)
}

/// Page faults of this process so far that read nothing from a disk: `minflt` of `/proc/self/stat`.
fn faults() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    // After the name, which may have blanks: the state is field 3, the faults are field 10.
    let count = text
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(7));
    count
        .context("/proc/self/stat has no count of page faults")?
        .parse()
        .context("/proc/self/stat")
}

/// Maps `range` of a file, which is whole huge pages, and touches each page. Returns whether `MAP_SYNC` was
/// granted, and whether a huge page took few faults.
fn map(file: &File, range: &Range<u64>, writable: bool) -> Result<(bool, Option<bool>)> {
    let length = usize::try_from(range.end - range.start)?;
    let want = |sync| Options {
        writable,
        sync,
        populate: false,
    };
    let (sync, mapping) = match Mapping::new(file, range.start, length, want(true)) {
        Ok(mapping) => (true, mapping),
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            (false, Mapping::new(file, range.start, length, want(false))?)
        }
        Err(error) => return Err(error).context("mmap(2)"),
    };
    sigbus::catch()?;
    if mapping.address() as u64 % HUGE != 0 {
        // The kernel did not place it so that huge pages fit.
        return Ok((sync, None));
    }
    let mut byte = [0];
    let mut huge = false;
    faults()?;
    for start in (0..length).step_by(HUGE as usize) {
        let before = faults()?;
        for at in (start..start + HUGE as usize).step_by(PAGE as usize) {
            // Bad pages are not tested here.
            let _ = match writable {
                true => mapping.try_copy_in(at, &byte),
                false => mapping.try_copy_out(at, &mut byte),
            };
        }
        // One fault for a huge page and a few of the program itself; 512 for small pages.
        huge |= faults()? - before < HUGE / PAGE / 4;
    }
    Ok((sync, Some(huge)))
}

/// Tries a file, by reading: `window` are huge pages of it that can be mapped as such.
pub fn file(path: &Path, file: &File, window: Option<u64>) -> Result<Probe> {
    let dax = attributes(file)?.contains(StatxAttributes::DAX);
    let size = file.metadata()?.len();
    let mut probe = Probe {
        path: printable(path),
        dax,
        map_sync: false,
        huge: None,
        reason: None,
    };
    match window {
        Some(start) if dax => {
            (probe.map_sync, probe.huge) = map(file, &(start..start + HUGE), false)?;
        }
        _ if size == 0 => probe.reason = Some("it is empty".into()),
        _ => {
            let want = Options {
                sync: true,
                ..Options::default()
            };
            probe.map_sync = Mapping::new(file, 0, PAGE as usize, want).is_ok();
            probe.huge = Some(false);
        }
    }
    Ok(probe)
}

/// A file without a name on a mount, of two huge pages; `None` where there is no room, or the file
/// system makes no such file.
fn unnamed(root: &File) -> Result<Option<File>> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(root, ".", flags, Mode::RUSR) {
        Err(Errno::OPNOTSUPP | Errno::ROFS | Errno::NOSPC | Errno::ISDIR) => return Ok(None),
        made => File::from(made.context("a file for a test")?),
    };
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, PROBE_SIZE) {
        Err(Errno::NOSPC | Errno::OPNOTSUPP | Errno::DQUOT) => Ok(None),
        done => done.map(|()| Some(file)).context("fallocate(2)"),
    }
}

/// The result for a mount, and the extents of its test file.
#[derive(Debug)]
pub struct MountProbe {
    pub probe: Probe,
    /// The pieces of the file.
    pub pieces: Vec<extents::Extent>,
    /// It has the flag `FS_XFLAG_DAX`, as its directory gave it.
    pub flagged: bool,
}

/// Tests a mount with an unnamed file in its root, which is gone afterwards; `None` if the file cannot be created.
pub fn mount(root: &File, directory: &Path) -> Result<Option<MountProbe>> {
    let Some(made) = unnamed(root)? else {
        return Ok(None);
    };
    let dax = attributes(&made)?.contains(StatxAttributes::DAX);
    let pieces = pieces(&made)?;
    let flags = abstractions::xattr::flags(&made).unwrap_or(0);
    let (map_sync, huge) = match dax {
        true => map(&made, &(0..PROBE_SIZE), true)?,
        false => (false, Some(false)),
    };
    Ok(Some(MountProbe {
        probe: Probe {
            path: printable(directory),
            dax,
            map_sync,
            huge,
            reason: None,
        },
        pieces,
        flagged: flags & abstractions::xattr::DAX != 0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn page_cache_file_has_no_dax() {
        let mut made = tempfile::NamedTempFile::new().unwrap();
        made.write_all(&[1; 8192]).unwrap();
        let path = made.path().to_owned();
        let probe = file(&path, made.as_file(), None).unwrap();
        assert!(!probe.dax);
        assert!(!probe.map_sync);
        assert_eq!(probe.huge, Some(false));
    }

    #[test]
    fn page_faults_are_counted() {
        let before = faults().unwrap();
        let memory = vec![1_u8; 64 << 20];
        assert!(memory.iter().step_by(4096).all(|byte| *byte == 1));
        assert!(faults().unwrap() > before);
    }
}
