// SPDX-License-Identifier: GPL-2.0

//! What must be true of a disk with bad pages: which page is whose, and what each way to it must
//! answer.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::ops::Range;
use units::PAGE;

/// Sectors of 512 bytes in a page.
pub const SECTORS: u64 = PAGE / 512;

/// A disk, a file system on it, and its files.
#[derive(Debug, Default)]
pub struct Disk {
    /// Its name in /dev.
    pub name: String,
    /// What the file system is called.
    pub system: &'static str,
    /// The physical address of its first byte.
    pub start: u64,
    /// Its length.
    pub pages: u64,
    /// The files, all of them.
    pub files: Vec<Stored>,
    /// The pages that nothing is in.
    pub free: Vec<Range<u64>>,
    /// The pages that failed and are not healed.
    pub bad: BTreeSet<u64>,
}

/// A file of known content.
#[derive(Debug, Default)]
pub struct Stored {
    /// Its path.
    pub path: String,
    /// The pattern that it holds.
    pub seed: u64,
    /// Its length.
    pub pages: u64,
    /// Its number in the file system.
    pub inode: u64,
    /// The processes that have all of it mapped while memory fails.
    pub mapped: Vec<Mapper>,
    /// One of the many of a page, of which only those are looked at one by one that are hit.
    pub small: bool,
    /// Where it is.
    pub extents: Vec<Extent>,
}

/// A process that has a file mapped, in one piece.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapper {
    /// Its number.
    pub pid: u32,
    /// Where it has the file's first byte.
    pub address: u64,
}

/// A piece of a file that is in one piece on the disk, in pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file it begins.
    pub logical: u64,
    /// Where on the disk it begins.
    pub physical: u64,
    /// How long it is.
    pub length: u64,
}

/// What a page of a disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A page of the file of this index.
    File(usize, u64),
    /// Nothing.
    Free,
    /// The file system's own records.
    Records,
}

impl Disk {
    /// What a page is for.
    pub fn owner(&self, page: u64) -> Owner {
        for (index, file) in self.files.iter().enumerate() {
            if let Some(place) = file.place(page) {
                return Owner::File(index, place);
            }
        }
        if self.free.iter().any(|range| range.contains(&page)) {
            return Owner::Free;
        }
        Owner::Records
    }

    /// The bad pages of a file, as it counts them.
    pub fn bad_of(&self, file: &Stored) -> BTreeSet<u64> {
        self.bad
            .iter()
            .filter_map(|&page| file.place(page))
            .collect()
    }

    /// What `pmemctl errors --json` must say of it: of each bad page its place, its file, inode and place
    /// in that, or that it is free.
    pub fn told(&self) -> Result<BTreeSet<Told>> {
        self.bad
            .iter()
            .map(|&page| {
                let file = match self.owner(page) {
                    Owner::File(index, place) => {
                        let file = self.files.get(index).context("a file")?;
                        Some((file.path.clone(), file.inode, place * PAGE))
                    }
                    Owner::Free => None,
                    Owner::Records => bail!("page {page} is the file system's own"),
                };
                Ok(Told { page, file })
            })
            .collect()
    }

    /// The sectors that its list must have, and no others.
    pub fn sectors(&self) -> BTreeSet<u64> {
        self.bad
            .iter()
            .flat_map(|page| page * SECTORS..(page + 1) * SECTORS)
            .collect()
    }
}

impl Stored {
    /// Where in the file a page of the disk is, if it is.
    fn place(&self, page: u64) -> Option<u64> {
        self.extents.iter().find_map(|extent| {
            let within = page.checked_sub(extent.physical)?;
            (within < extent.length).then_some(extent.logical + within)
        })
    }

    /// The runs of good pages between the bad ones.
    fn good(&self, bad: &BTreeSet<u64>) -> Vec<Range<u64>> {
        let mut start = 0;
        let mut runs = Vec::new();
        for &page in bad.iter().chain([&self.pages]) {
            if start < page {
                runs.push(start..page);
            }
            start = page + 1;
        }
        runs
    }
}

/// The ways to a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `read(2)` of a file, and with `O_DIRECT`.
    Read,
    /// A mapping of a file.
    Mapping,
    /// A write of a part of a bad page, of a file or of the disk.
    Write,
    /// The disk.
    Block,
}

/// A command, and its status and all that it must print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// By which way.
    pub way: Way,
    command: String,
    wanted: String,
}

/// What pmem-io says of bad memory.
const EIO: &str = "1 pmem-io: Input/output error (os error 5)";
/// What fs/dax.c makes of a write that its device has not done.
const EFAULT: &str = "1 pmem-io: Bad address (os error 14)";
/// Ends an answer (ASCII's group separator).
const END: char = '\x1d';

/// What each way to the files and to the bad pages must answer.
pub fn claims(disk: &Disk) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut claim = |way, command: String, wanted: String| {
        claims.push(Claim {
            way,
            command,
            wanted,
        });
    };
    for file in &disk.files {
        let Stored { path, seed, .. } = file;
        let bad = disk.bad_of(file);
        if file.small && bad.is_empty() {
            continue;
        }
        for run in file.good(&bad) {
            let (at, length) = (run.start * PAGE, (run.end - run.start) * PAGE);
            for direct in ["", " --direct"] {
                claim(
                    Way::Read,
                    format!("pmem-io pread {path} --offset {at} --length {length}{direct}"),
                    format!("0 {length}"),
                );
            }
            claim(
                Way::Read,
                format!("pmem-io verify {path} --seed {seed} --offset {at} --length {length}"),
                "0".to_owned(),
            );
        }
        for page in &bad {
            let at = page * PAGE;
            claim(
                Way::Read,
                format!("pmem-io pread {path} --offset {at} --length {PAGE}"),
                EIO.to_owned(),
            );
            claim(
                Way::Write,
                format!(
                    "pmem-io pwrite {path} --seed {seed} --offset {} --length 100",
                    at + 100
                ),
                EFAULT.to_owned(),
            );
        }
        claim(
            Way::Mapping,
            format!("pmem-io map-verify {path} --seed {seed}"),
            refusals(&bad, &format!("{} ", if bad.is_empty() { 0 } else { 3 })),
        );
    }
    for &page in &disk.bad {
        let read = |first: u64, pages: u64| {
            format!(
                "pmem-io pread --direct /dev/{} --offset {} --length {}",
                disk.name,
                first * PAGE,
                pages * PAGE
            )
        };
        claim(Way::Block, read(page, 1), EIO.to_owned());
        claim(
            Way::Write,
            format!(
                "pmem-io pwrite --direct /dev/{} --offset {} --length 512",
                disk.name,
                page * PAGE + 512
            ),
            EIO.to_owned(),
        );
        let (before, behind) = (page.checked_sub(1), page + 1);
        if let Some(before) = before.filter(|page| !disk.bad.contains(page)) {
            claim(Way::Block, read(before, 1), format!("0 {PAGE}"));
            claim(Way::Block, read(before, 2), EIO.to_owned());
        }
        if behind < disk.pages && !disk.bad.contains(&behind) {
            claim(Way::Block, read(behind, 1), format!("0 {PAGE}"));
        }
    }
    claims
}

/// What pmem-io prints of these pages of a mapping, after `start`: `BUS_MCEERR_AR` (4), and a page
/// (2 to the power of 12 bytes) is lost.
fn refusals(pages: &BTreeSet<u64>, start: &str) -> String {
    let lines: Vec<_> = pages
        .iter()
        .map(|page| format!("page {page} code 4 lsb 12 address {:#x}", page * PAGE))
        .collect();
    format!("{start}{}", lines.join("\n")).trim().to_owned()
}

/// What `pmem-io map FILE load run=… told verify` prints of memory that fails during `run`.
///
/// Returns how many bytes the last notice speaks of, as a power of 2: a page, or 2 MiB where the page
/// was mapped as a part of so many.
pub fn judge_witness(file: &Stored, bad: &BTreeSet<u64>, said: &str) -> Result<Option<u8>> {
    let pages = file.pages;
    let end = match bad.len() {
        0 => format!("verify: {pages} pages"),
        lost => format!("verify: {pages} pages, {lost} refused, 0 not the pattern"),
    };
    let wanted = format!(
        "load: {pages} pages\nrun: ok\n{}",
        refusals(bad, "").trim_end()
    );
    let wanted = format!("{}\n{end}", wanted.trim_end());
    let (told, rest): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.starts_with("told: "));
    // After the first notice in a mapping of 2 MiB, nothing is mapped there for another to be about.
    let fewest: BTreeSet<u64> = bad.iter().map(|page| (page * PAGE) >> 21).collect();
    let told_right = |line: &str| {
        let (count, last) = line.strip_prefix("told: ")?.split_once(" code 5 lsb ")?;
        let right = (fewest.len()..=bad.len()).contains(&count.parse().ok()?);
        right.then_some(last.split(' ').next()?.parse().ok()?)
    };
    let lsb = match told.as_slice() {
        ["told: no"] if bad.is_empty() => Some(None),
        [line] if !bad.is_empty() => told_right(line).map(Some),
        _ => None,
    };
    let lsb = lsb.with_context(|| {
        format!(
            "{}: the process that has it mapped lost {} pages, and was told: {told:?}",
            file.path,
            bad.len()
        )
    })?;
    let rest = rest.join("\n");
    ensure!(
        rest == wanted,
        "{}: the process that has it mapped found\n{rest}\nand not\n{wanted}",
        file.path
    );
    Ok(lsb)
}

/// One command line for all of them, whose answers are for [`judge`].
pub fn script(claims: &[Claim]) -> String {
    let mut script =
        String::from("c() { out=$(\"$@\" 2>&1); printf '%s %s\\035' \"$?\" \"$out\"; }\n");
    for claim in claims {
        script.push_str("c ");
        script.push_str(&claim.command);
        script.push('\n');
    }
    script
}

/// Fails with the first answer that is not as claimed.
pub fn judge(claims: &[Claim], answers: &str) -> Result<()> {
    let answers: Vec<&str> = answers.split_terminator(END).map(str::trim).collect();
    for (claim, answer) in claims.iter().zip(&answers) {
        ensure!(
            claim.wanted == *answer,
            "{}: it must answer \"{}\", and answers \"{answer}\"",
            claim.command,
            claim.wanted
        );
    }
    ensure!(
        claims.len() == answers.len(),
        "{} questions, {} answers",
        claims.len(),
        answers.len()
    );
    Ok(())
}

/// Whose a bad page is: a path, an inode and where in the file, or nobody's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// Where on the disk.
    pub page: u64,
    /// The file.
    pub file: Option<(String, u64, u64)>,
}

/// What `pmemctl errors --json` says, page by page.
pub fn told(said: &str) -> Result<BTreeSet<Told>> {
    let entries: Vec<serde_json::Value> =
        serde_json::from_str(said).context("what pmemctl errors --json says")?;
    let mut told = BTreeSet::new();
    for entry in &entries {
        let number = |value: &serde_json::Value| value.as_u64().with_context(|| entry.to_string());
        let (offset, length) = (number(&entry["disk_offset"])?, number(&entry["length"])?);
        ensure!(
            offset % PAGE == 0 && length % PAGE == 0,
            "these are no whole pages: {entry}"
        );
        let owner = &entry["owner"];
        for index in 0..length / PAGE {
            let file = match owner["kind"].as_str() {
                Some("free") => None,
                Some("file") => {
                    let paths = owner["paths"]
                        .as_array()
                        .with_context(|| entry.to_string())?;
                    let [path] = &paths[..] else {
                        bail!("this has one name: {entry}");
                    };
                    let path = path.as_str().with_context(|| entry.to_string())?;
                    let place = number(&owner["file_offset"])? + index * PAGE;
                    Some((path.to_owned(), number(&owner["inode"])?, place))
                }
                _ => bail!("this is a file's or free: {entry}"),
            };
            let page = offset / PAGE + index;
            ensure!(told.insert(Told { page, file }), "told twice: {entry}");
        }
    }
    Ok(told)
}

/// What `pmemctl monitor` has said of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Whose it is; `None` while that is still being looked for.
    pub told: Option<Told>,
    /// Who has it mapped, by number.
    pub mapped: Vec<Mapper>,
}

/// What a line of `pmemctl monitor --json` says of a page of a disk, if it does. Not all of the page need
/// be bad.
pub fn watched(line: &str, disk: &str, page: u64) -> Result<Option<Watched>> {
    let event: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let number = |value: &serde_json::Value| value.as_u64().with_context(|| line.to_owned());
    if event["event"] != "bad" || event["disk"] != disk {
        return Ok(None);
    }
    let (offset, length) = (number(&event["disk_offset"])?, number(&event["length"])?);
    if !(offset / PAGE..(offset + length).div_ceil(PAGE)).contains(&page) {
        return Ok(None);
    }
    let owner = &event["owner"];
    let mut start = 0;
    let file = match owner["kind"].as_str() {
        Some("file") => {
            let path = owner["paths"][0].as_str().unwrap_or_default();
            start = number(&owner["file_offset"])?;
            let place = (start / PAGE + page - offset / PAGE) * PAGE;
            Some((path.to_owned(), number(&owner["inode"])?, place))
        }
        Some("free") => None,
        _ if event["complete"] == false => {
            return Ok(Some(Watched {
                told: None,
                mapped: Vec::new(),
            }));
        }
        _ => bail!("this is a file's or free: {line}"),
    };
    let mut mapped = Vec::new();
    for process in event["processes"].as_array().into_iter().flatten() {
        for address in process["addresses"].as_array().into_iter().flatten() {
            mapped.push(Mapper {
                pid: number(&process["pid"])?.try_into()?,
                address: number(address)?.wrapping_sub(start),
            });
        }
    }
    mapped.sort_unstable();
    Ok(Some(Watched {
        told: Some(Told { page, file }),
        mapped,
    }))
}

/// What `debugfs -f` answers: each request with its lines.
pub fn answers(said: &str) -> Vec<(String, Vec<&str>)> {
    let answers = said.split("debugfs: ").skip(1);
    answers
        .map(|answer| {
            let mut lines = answer.lines();
            let request = lines.next().unwrap_or_default().to_owned();
            (request, lines.collect())
        })
        .collect()
}

/// The sectors of a `badblocks` file: lines of `SECTOR LENGTH`.
pub fn listed(text: &str) -> Result<BTreeSet<u64>> {
    let mut sectors = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let entry = line.split_once(' ').and_then(|(start, length)| {
            let start: u64 = start.parse().ok()?;
            Some(start..start.checked_add(length.trim().parse().ok()?)?)
        });
        sectors.extend(entry.with_context(|| format!("\"{line}\" is no entry of a list"))?);
    }
    Ok(sectors)
}

/// The sectors of a list with every byte: lines of `OFFSET LENGTH ORIGIN`, which may overlap.
pub fn exact(text: &str) -> Result<BTreeSet<u64>> {
    let mut sectors = BTreeSet::new();
    for line in text.lines() {
        let entry = || {
            let mut words = line.split(' ');
            let start: u64 = words.next()?.parse().ok()?;
            let end = start.checked_add(words.next()?.parse().ok()?)?;
            words.next()?;
            Some(start / 512..end.div_ceil(512))
        };
        sectors.extend(entry().with_context(|| format!("\"{line}\" is no entry of a list"))?);
    }
    Ok(sectors)
}

/// The blocks that dd could not read: each `error reading` is followed by how many were read before.
pub fn unread(said: &str) -> Result<BTreeSet<u64>> {
    let mut blocks = BTreeSet::new();
    let mut lines = said.lines();
    while let Some(line) = lines.next() {
        if !line.contains("error reading") {
            continue;
        }
        let records = lines.next().and_then(|line| {
            let (full, partial) = line.strip_suffix(" records in")?.split_once('+')?;
            Some(full.parse::<u64>().ok()? + partial.parse::<u64>().ok()?)
        });
        blocks.insert(records.context("dd does not say how far it came")?);
    }
    Ok(blocks)
}

/// Where `filefrag -v -b4096` says that each of the files is, by its path.
pub fn extents(said: &str) -> Result<Vec<(String, Vec<Extent>)>> {
    let mut files: Vec<(String, Vec<Extent>)> = Vec::new();
    for line in said.lines() {
        if let Some(rest) = line.strip_prefix("File size of ") {
            let path = rest.split(" is ").next().unwrap_or_default();
            files.push((path.to_owned(), Vec::new()));
            continue;
        }
        let mut fields = line.split(':').map(str::trim);
        if fields
            .next()
            .is_none_or(|number| number.parse::<u32>().is_err())
        {
            continue;
        }
        let extent = || {
            let first = |field: Option<&str>| field?.split_once("..")?.0.trim().parse().ok();
            Some(Extent {
                logical: first(fields.next())?,
                physical: first(fields.next())?,
                length: fields.next()?.parse().ok()?,
            })
        };
        let extent = { extent }().with_context(|| format!("filefrag: \"{line}\""))?;
        files
            .last_mut()
            .context("filefrag names no file")?
            .1
            .push(extent);
    }
    Ok(files)
}

/// What `xfs_io -c fsmap` says: which sectors are what.
pub fn space(said: &str) -> Result<Vec<(Range<u64>, String)>> {
    said.lines()
        .map(|line| {
            let entry = || {
                let (range, what) = line.split_once('[')?.1.split_once("]: ")?;
                let (first, last) = range.split_once("..")?;
                let range = first.parse().ok()?..last.parse::<u64>().ok()? + 1;
                Some((range, what.to_owned()))
            };
            entry().with_context(|| format!("fsmap: \"{line}\""))
        })
        .collect()
}

/// The whole pages that are free.
pub fn free(space: &[(Range<u64>, String)]) -> Vec<Range<u64>> {
    space
        .iter()
        .filter(|(_, what)| what.starts_with("free space"))
        .map(|(range, _)| range.start.div_ceil(SECTORS)..range.end / SECTORS)
        .collect()
}

/// Whose a page is by XFS's own record of owners: an inode and the page within it, or none.
pub fn owner_by_map(space: &[(Range<u64>, String)], page: u64) -> Result<Option<(u64, u64)>> {
    let sector = page * SECTORS;
    let (range, what) = space
        .iter()
        .find(|(range, _)| range.contains(&sector))
        .with_context(|| format!("fsmap knows no sector {sector}"))?;
    if what.starts_with("free space") {
        return Ok(None);
    }
    // "inode 131 data 0..8191 8192"
    let words: Vec<&str> = what.split_whitespace().collect();
    match words.as_slice() {
        ["inode", inode, "data", sectors, _] => {
            let first = sectors.split("..").next().unwrap_or_default();
            let first: u64 = first.parse().context("fsmap's offset")?;
            let within = first + sector - range.start;
            Ok(Some((
                inode.parse().context("fsmap's inode")?,
                within / SECTORS,
            )))
        }
        _ => bail!("fsmap has \"{what}\" at sector {sector}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        let file = |name: &str, extents: &[(u64, u64, u64)]| Stored {
            path: name.into(),
            seed: 7,
            pages: extents.iter().map(|extent| extent.2).sum(),
            extents: extents
                .iter()
                .map(|&(logical, physical, length)| Extent {
                    logical,
                    physical,
                    length,
                })
                .collect(),
            ..Stored::default()
        };
        Disk {
            name: "pmem0".into(),
            pages: 1000,
            files: vec![
                file("/a", &[(0, 100, 10), (10, 200, 5)]),
                file("/b", &[(0, 110, 8)]),
            ],
            free: vec![300..400, 400..1000],
            ..Disk::default()
        }
    }

    #[test]
    fn what_watch_says() {
        let line = r#"{"event":"bad","complete":true,"disk":"pmem0","disk_offset":8704,"length":4096,
            "owner":{"kind":"file","paths":["/a"],"inode":12,"file_offset":4608},
            "processes":[{"pid":2,"addresses":[69632,4608]},{"pid":1,"addresses":[4608]},{"pid":3,"addresses":[]}]}"#;
        let mapped = [(1, 0), (2, 0), (2, 65024)];
        let mapped = mapped.map(|(pid, address)| Mapper { pid, address });
        let wanted = |page, offset| {
            let file = Some(("/a".to_owned(), 12, offset));
            let told = Some(Told { page, file });
            let mapped = mapped.to_vec();
            Some(Watched { told, mapped })
        };
        let told = |page| watched(line, "pmem0", page).unwrap();
        assert_eq!(told(2), wanted(2, 4096));
        assert_eq!(told(3), wanted(3, 8192));
        assert_eq!(told(4), None);
        assert_eq!(watched(line, "pmem1", 2).unwrap(), None);
        let watching = r#"{"event":"watching","disks":["pmem0"]}"#;
        assert_eq!(watched(watching, "pmem0", 2).unwrap(), None);
        assert!(watched("so", "pmem0", 2).is_err());
        let unknown = r#"{"event":"bad","complete":true,"disk":"pmem0","disk_offset":8192,"length":4096,
            "reason":"so","processes":[]}"#;
        assert!(watched(unknown, "pmem0", 2).is_err());
        let first = watched(&unknown.replace("true", "false"), "pmem0", 2).unwrap();
        assert_eq!(first.unwrap().told, None);
    }

    #[test]
    fn owners() {
        let disk = disk();
        assert_eq!(disk.owner(100), Owner::File(0, 0));
        assert_eq!(disk.owner(204), Owner::File(0, 14));
        assert_eq!(disk.owner(205), Owner::Records);
        assert_eq!(disk.owner(110), Owner::File(1, 0));
        assert_eq!(disk.owner(999), Owner::Free);
    }

    #[test]
    fn what_pmemctl_must_say() {
        let mut disk = disk();
        disk.files[0].inode = 12;
        disk.bad = [100, 101, 202, 500].into();
        let said = r#"[
            { "disk_offset": 409600, "length": 8192,
              "owner": { "kind": "file", "paths": ["/a"], "inode": 12, "file_offset": 0 } },
            { "disk_offset": 827392, "length": 4096,
              "owner": { "kind": "file", "paths": ["/a"], "inode": 12, "file_offset": 49152 } },
            { "disk_offset": 2048000, "length": 4096, "owner": { "kind": "free" } } ]"#;
        assert_eq!(told(said).unwrap(), disk.told().unwrap());
        for (from, to) in [
            ("/a", "/b"),
            ("49152", "45056"),
            ("827392", "831488"),
            (": 12", ": 13"),
            ("8192", "4096"),
        ] {
            assert_ne!(
                told(&said.replace(from, to)).unwrap(),
                disk.told().unwrap(),
                "{to}"
            );
        }
        for (from, to) in [
            ("free", "unknown"),
            ("409600", "409088"),
            ("[\"/a\"]", "[]"),
            ("]", ""),
        ] {
            told(&said.replace(from, to)).unwrap_err();
        }
        disk.bad = [205].into();
        disk.told().unwrap_err();
    }

    #[test]
    fn runs_of_good_pages() {
        let file = &disk().files[0];
        let runs = |bad: &[u64]| file.good(&bad.iter().copied().collect());
        assert!(runs(&[]).into_iter().flatten().eq(0..15));
        assert_eq!(runs(&[1]), [0..1, 2..15]);
        assert_eq!(runs(&[0, 5, 6, 14]), [1..5, 7..14]);
    }

    fn honest(claims: &[Claim]) -> String {
        claims
            .iter()
            .flat_map(|claim| [claim.wanted.clone(), END.to_string()])
            .collect()
    }

    #[test]
    fn each_claim_can_fail() {
        let mut disk = disk();
        disk.bad = [100, 202, 500].into();
        let claims = claims(&disk);
        for way in [Way::Read, Way::Mapping, Way::Write, Way::Block] {
            assert!(claims.iter().any(|claim| claim.way == way), "{way:?}");
        }
        let answers = honest(&claims);
        judge(&claims, &answers).unwrap();
        for index in 0..claims.len() {
            let mut wrong = claims.clone();
            wrong[index].wanted.push('!');
            judge(&claims, &honest(&wrong)).unwrap_err();
        }
        let cut = answers.len() - claims.last().unwrap().wanted.len() - 1;
        judge(&claims, &answers[..cut]).unwrap_err();
    }

    #[test]
    fn a_bad_page_more_or_less_is_another_claim() {
        let mut disk = disk();
        let mut seen = BTreeSet::new();
        for bad in [&[][..], &[100], &[101], &[101, 202], &[500]] {
            disk.bad = bad.iter().copied().collect();
            assert!(seen.insert(honest(&claims(&disk))), "{bad:?}");
        }
    }

    #[test]
    fn witnesses() {
        let file = &disk().files[1];
        let bad: BTreeSet<u64> = [3].into();
        let said = "load: 8 pages\nrun: ok\ntold: 1 code 5 lsb 12 address 0x3000\n\
                    page 3 code 4 lsb 12 address 0x3000\nverify: 8 pages, 1 refused, 0 not the pattern\n";
        assert_eq!(judge_witness(file, &bad, said).unwrap(), Some(12));
        judge_witness(file, &BTreeSet::new(), said).unwrap_err();
        judge_witness(file, &[4].into(), said).unwrap_err();
        judge_witness(file, &bad, &said.replace("code 5", "code 4")).unwrap_err();
        judge_witness(file, &bad, &said.replace("1 code 5", "2 code 5")).unwrap_err();
        judge_witness(file, &bad, &said.replace("1 code 5", "0 code 5")).unwrap_err();
        judge_witness(file, &bad, &said.replace("0 not", "1 not")).unwrap_err();
        let none = "load: 8 pages\nrun: ok\ntold: no\nverify: 8 pages\n";
        assert_eq!(judge_witness(file, &BTreeSet::new(), none).unwrap(), None);
        judge_witness(file, &bad, none).unwrap_err();
    }

    #[test]
    fn what_tools_say() {
        let said = "dd: error reading '/dev/pmem0': Input/output error\n3241+0 records in\n3241+0 records out\n\
                    13275136 bytes (13 MB, 13 MiB) copied, 0.1 s, 113 MB/s\n\
                    dd: error reading '/dev/pmem0': Input/output error\n16383+1 records in\n16384+0 records out\n\
                    24574+2 records in\n24576+0 records out\n";
        assert_eq!(unread(said).unwrap(), [3241, 16384].into());

        let said = "Filesystem type is: ef53\nFile size of /mnt/a is 4194304 (1024 blocks of 4096 bytes)\n \
                    ext:     logical_offset:        physical_offset: length:   expected: flags:\n   \
                    0:        0..    1000:       1093..      2093:   1001:\n   \
                    1:     1001..    1023:       3000..      3022:     23:       2094: last,eof\n\
                    /mnt/a: 2 extents found\n";
        let files = extents(said).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].0, "/mnt/a");
        let second = Extent {
            logical: 1001,
            physical: 3000,
            length: 23,
        };
        assert_eq!(files[0].1[1], second);

        let said = "debugfs: icheck 7 8\nBlock\tInode number\n7\t12\n8\t<block not found>\n\
                    debugfs: testb 8\nBlock 8 not in use\n";
        let wanted = [
            (
                "icheck 7 8".to_owned(),
                vec!["Block\tInode number", "7\t12", "8\t<block not found>"],
            ),
            ("testb 8".to_owned(), vec!["Block 8 not in use"]),
        ];
        assert_eq!(answers(said), wanted);

        let said = "\t0: 259:1 [0..31]: static fs metadata 32\n\t1: 259:1 [32..8191]: inode 131 data 800..8959 8160\n\
                    \t2: 259:1 [8192..8199]: free space 8\n";
        let space = space(said).unwrap();
        assert!(free(&space).into_iter().flatten().eq([1024]));
        assert_eq!(owner_by_map(&space, 5).unwrap(), Some((131, 101)));
        assert_eq!(owner_by_map(&space, 1024).unwrap(), None);
        owner_by_map(&space, 0).unwrap_err();
        owner_by_map(&space, 2000).unwrap_err();

        assert_eq!(listed("8 2\n").unwrap(), [8, 9].into());
        listed("8\n").unwrap_err();
        let exact_list = "4096 4096 memory-failure\n4160 64 machine-check\n0 512 user\n";
        let wanted = [0, 8, 9, 10, 11, 12, 13, 14, 15].into();
        assert_eq!(exact(exact_list).unwrap(), wanted);
        exact("4096 4096\n").unwrap_err();
    }
}
