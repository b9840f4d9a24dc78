// SPDX-License-Identifier: GPL-2.0

//! The geometry of XFS, and the owners of blocks on an unmounted XFS, read with xfsprogs.
//!
//! `xfs_db -r` and `xfs_logprint -t` write nothing.

use crate::block::remap::{Span, Spans};
use crate::fs::walk::{self, DirEntry, DirVisitor};
use crate::fs::{Owned, Owner, OwnersFound, Space, SpaceKind};
use crate::programs::sandboxed::{self, run};
use crate::ranges::Ranges;
use abstractions::extents::XfsGeometry;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, Seek, SeekFrom};
use std::ops::Range;

const PACKAGE: &str = "xfsprogs";

/// The layout of an XFS on its data device, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    block: u64,
    /// The size of an allocation group; the last one may be shorter.
    group: u64,
    groups: u64,
    /// At the start of each group: superblock, AGF, AGI and AGFL.
    headers: u64,
    /// The log, if it is on this device.
    log: Option<Range<u64>>,
}

impl Geometry {
    /// Converts the kernel's structure.
    pub fn of(result: &XfsGeometry) -> Result<Self> {
        Self::new(
            [
                result.block_size,
                result.sector_size,
                result.group_blocks,
                result.groups,
            ]
            .map(u64::from),
            result.log_start..result.log_start.saturating_add(result.log_blocks.into()),
        )
    }

    /// `log` is in filesystem block numbers; it starts at 0 if it is external.
    fn new([block, sector, group_blocks, groups]: [u64; 4], log: Range<u64>) -> Result<Self> {
        let headers = sector.saturating_mul(4).next_multiple_of(block.max(1));
        let sane = block.is_power_of_two()
            && (512..=65536).contains(&block)
            && sector <= 32768
            && group_blocks > 0
            && group_blocks < 1 << 32
            && groups < 1 << 32;
        ensure!(sane, "the geometry of XFS makes no sense");
        let mut geometry = Self {
            block,
            group: block * group_blocks,
            groups,
            headers,
            log: None,
        };
        if log.start != 0 {
            let start = geometry.byte(log.start);
            geometry.log = Some(start..start + (log.end - log.start).saturating_mul(block));
        }
        Ok(geometry)
    }

    /// Parses the superblock as xfs_db prints it: `name = value`.
    fn parse(text: &str) -> Result<Self> {
        let number = |name| number(text, name);
        let start = number("logstart")?;
        Self::new(
            [
                number("blocksize")?,
                number("sectsize")?,
                number("agblocks")?,
                number("agcount")?,
            ],
            start..start.saturating_add(number("logblocks")?),
        )
    }

    /// Returns whether a device of `size` bytes has room for the groups.
    fn fits(&self, size: u64) -> bool {
        self.groups <= size.div_ceil(self.group)
    }

    /// The number of bits of a block number within the group.
    fn shift(&self) -> u32 {
        (self.group / self.block)
            .next_power_of_two()
            .trailing_zeros()
    }

    fn byte(&self, number: u64) -> u64 {
        let shift = self.shift();
        let within = number & ((1 << shift) - 1);
        (number >> shift).saturating_mul(self.group) + within * self.block
    }

    /// Returns the number of the block with a byte.
    fn number(&self, byte: u64) -> u64 {
        ((byte / self.group) << self.shift()) | (byte % self.group / self.block)
    }

    /// Returns the allocation group of a byte, if it has one.
    pub fn group_of(&self, byte: u64) -> Option<u64> {
        Some(byte / self.group).filter(|group| *group < self.groups)
    }

    /// Splits a span by allocation groups.
    fn groups(&self, span: Span) -> impl Iterator<Item = (u64, Span)> {
        let last = span.range().end.saturating_sub(1) / self.group;
        (span.offset / self.group..=last.min(self.groups.saturating_sub(1))).filter_map(
            move |group| {
                let start = group * self.group;
                Some((group, span.cut(&(start..start + self.group))?))
            },
        )
    }

    fn headers(&self, group: u64) -> Range<u64> {
        let start = group * self.group;
        start..start + self.headers
    }

    /// Removes metadata at fixed places, which are the group headers and the log, from `left`, and returns it.
    pub fn take(&self, left: &mut Spans) -> Vec<Owned> {
        let groups = left.iter().flat_map(|span| self.groups(span));
        let groups: BTreeSet<u64> = groups.map(|(group, _)| group).collect();
        let headers = groups
            .into_iter()
            .map(|group| (self.headers(group), "superblock", Some(group)));
        let log = self.log.iter().map(|log| (log.clone(), "journal", None));
        let mut owned = Vec::new();
        for (range, what, group) in headers.chain(log) {
            owned.extend(left.take(&range).into_iter().map(|span| Owned {
                span,
                owner: Owner::Metadata { what, group },
            }));
        }
        owned
    }

    /// Returns the bytes of the blocks that have any of `spans`: consecutive blocks are one range, so that each is queried
    /// once.
    fn blocks(&self, spans: &Spans) -> Ranges {
        let blocks = spans.iter().map(|span| span.range());
        blocks
            .map(|range| {
                range.start / self.block * self.block..range.end.next_multiple_of(self.block)
            })
            .collect()
    }

    /// Returns the first block and the number of blocks to query for a part of a group. It starts at a readable
    /// block, because xfs_db reads the first one.
    fn around(&self, group: u64, part: &Span, bad: &Spans) -> (u64, u64) {
        let start = group * self.group;
        let mut first = (part.offset - start) / self.block;
        let is_bad = |block: u64| {
            let range = start + block * self.block..start + (block + 1) * self.block;
            bad.within(&range).next().is_some()
        };
        while first > 0 && is_bad(first) {
            first -= 1;
        }
        let end = (part.range().end - start).div_ceil(self.block);
        (self.number(start + first * self.block), end - first)
    }

    /// Returns the metadata at fixed places.
    pub(crate) fn fixed(&self) -> Ranges {
        (0..self.groups)
            .map(|group| self.headers(group))
            .chain(self.log.clone())
            .collect()
    }

    /// Returns spans without known owner, split by group.
    pub fn by_group(&self, spans: &Spans) -> Vec<Owned> {
        let owned = |group, span| Owned {
            span,
            owner: Owner::Unknown { group },
        };
        let end = self.groups.saturating_mul(self.group);
        let behind = spans.within(&(end..u64::MAX));
        spans
            .iter()
            .flat_map(|span| self.groups(span))
            .map(|(group, span)| owned(Some(group), span))
            .chain(behind.map(|span| owned(None, span)))
            .collect()
    }
}

/// Parses a number of the superblock.
fn number(text: &str, name: &str) -> Result<u64> {
    let line = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(" = ")?
            .trim()
            .parse()
            .ok()
    };
    text.lines()
        .find_map(line)
        .with_context(|| format!("xfs_db does not say {name}"))
}

/// The use of a block according to `blockuse`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BlockUse {
    number: u64,
    kind: String,
    inode: Option<u64>,
}

/// `block 24 (0/24) type rldata inode 132`.
fn uses(text: &str) -> Vec<BlockUse> {
    let one = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["block", number, _, "type", kind, rest @ ..] = &words[..] else {
            return None;
        };
        Some(BlockUse {
            number: number.parse().ok()?,
            kind: (*kind).to_owned(),
            inode: match rest {
                ["inode", inode, ..] => Some(inode.parse().ok()?),
                _ => None,
            },
        })
    };
    text.lines().filter_map(one).collect()
}

impl BlockUse {
    /// Returns the owner of a block without inode.
    fn owner(&self, group: Option<u64>) -> Owner {
        let what = match self.kind.as_str() {
            "free1" | "free2" => return Owner::Free,
            "sb" | "agf" | "agi" | "agfl" => "superblock",
            "btbno" | "btcnt" | "btrmap" | "freelist" => "metadata",
            "btino" | "btfino" => "inode index",
            "btrefcnt" => "reference counts",
            "inode" => "inode table",
            "cowdata" => "copy-on-write staging",
            "log" => {
                return Owner::Metadata {
                    what: "journal",
                    group: None,
                };
            }
            _ => return Owner::Unknown { group },
        };
        Owner::Metadata { what, group }
    }

    /// Returns the purpose of an inode that is not a file.
    fn hidden(&self) -> Option<&'static str> {
        match self.kind.as_str() {
            "quota" => Some("quota"),
            "rtbitmap" => Some("realtime bitmap"),
            "rtsummary" => Some("realtime summary"),
            _ => None,
        }
    }
}

/// Blocks of an inode, with their block number in the file; `None` for attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InodeExtent {
    inode: u64,
    number: u64,
    count: u64,
    logical: Option<u64>,
}

impl InodeExtent {
    fn numbers(&self) -> Range<u64> {
        self.number..self.number.saturating_add(self.count)
    }
}

/// Parses `data offset 0 startblock 24 (0/24) count 733 flag 0` and `attr offset …` after the inode number.
fn pieces(text: &str) -> Vec<InodeExtent> {
    let mut inode = 0;
    let mut pieces = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match &words[..] {
            ["INODE", number] => inode = number.parse().unwrap_or(0),
            [
                fork,
                "offset",
                logical,
                "startblock",
                number,
                _,
                "count",
                count,
                ..,
            ] => {
                if let (Ok(logical), Ok(number), Ok(count)) =
                    (logical.parse(), number.parse(), count.parse())
                {
                    pieces.push(InodeExtent {
                        inode,
                        number,
                        count,
                        logical: Some(logical).filter(|_| *fork == "data"),
                    });
                }
            }
            _ => {}
        }
    }
    pieces
}

/// Parses all owners of shared blocks: `inode 131 block 24 at offset 0`.
fn sharers(text: &str) -> Vec<InodeExtent> {
    let one = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["inode", inode, "block", number, "at", "offset", logical] = &words[..] else {
            return None;
        };
        Some(InodeExtent {
            inode: inode.parse().ok()?,
            number: number.parse().ok()?,
            count: 1,
            logical: Some(logical.parse().ok()?),
        })
    };
    text.lines().filter_map(one).collect()
}

/// A record of the reverse map, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mapping {
    group: u64,
    /// The first block in the group.
    block: u64,
    count: u64,
    /// An inode, or a purpose (`XFS_RMAP_OWN_…` of xfs_format.h).
    owner: i64,
    /// The first block in the file.
    offset: u64,
    /// It maps data of a file: neither a block of its extent tree nor of its attributes.
    data: bool,
}

impl Mapping {
    /// Parses the output of `fsmap`, one record for each line; `None` if it is anything else, such as an error of a
    /// block that cannot be read.
    fn parse(text: &str) -> Option<BTreeSet<Self>> {
        text.lines().map(Self::line).collect()
    }

    /// `6: 0/16 len 8 owner -7 offset 0 bmbt 0 attrfork 0 extflag 0`.
    fn line(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [
            _,
            start,
            "len",
            count,
            "owner",
            owner,
            "offset",
            offset,
            "bmbt",
            tree,
            "attrfork",
            attributes,
            ..,
        ] = words[..]
        else {
            return None;
        };
        let (group, block) = start.split_once('/')?;
        Some(Self {
            group: group.parse().ok()?,
            block: block.parse().ok()?,
            count: count.parse().ok()?,
            owner: owner.parse().ok()?,
            offset: offset.parse().ok()?,
            data: tree == "0" && attributes == "0",
        })
    }

    fn range(&self, geometry: &Geometry) -> Range<u64> {
        let start = self
            .group
            .saturating_mul(geometry.group)
            .saturating_add(self.block.saturating_mul(geometry.block));
        start..start.saturating_add(self.count.saturating_mul(geometry.block))
    }

    fn inode(&self) -> Option<u64> {
        u64::try_from(self.owner).ok()
    }

    /// Returns the owner of blocks without inode.
    fn special(&self) -> Owner {
        let group = Some(self.group);
        let what = match self.owner {
            -3 => "superblock",
            -4 => {
                return Owner::Metadata {
                    what: "journal",
                    group: None,
                };
            }
            -5 => "metadata",
            -6 => "inode index",
            -7 => "inode table",
            -8 => "reference counts",
            -9 => "copy-on-write staging",
            _ => return Owner::Unknown { group },
        };
        Owner::Metadata { what, group }
    }
}

/// A file system that `xfs_db` may read.
struct Database<'a> {
    node: &'a str,
    geometry: Geometry,
    /// The inode of its root.
    root: u64,
    /// It has a reverse map.
    reverse_map: bool,
    /// Inodes without names, with their purpose.
    hidden: BTreeMap<u64, &'static str>,
}

/// `XFS_SB_FEAT_RO_COMPAT_RMAPBT`.
const REVERSE_MAP: u64 = 1 << 1;
/// The bit of files that share blocks.
const REFLINK: u64 = 1 << 2;

/// Returns whether the superblock says that there is a reverse map.
fn has_feature(text: &str, feature: u64) -> bool {
    let features = text
        .lines()
        .find_map(|line| line.strip_prefix("features_ro_compat = 0x"));
    features
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .is_some_and(|features| features & feature != 0)
}

/// Returns whether files can share blocks.
pub fn shares_blocks(node: &str) -> Result<bool> {
    let superblock = "sb 0\nprint features_ro_compat\n";
    let output = run("xfs_db", PACKAGE, &["-r"], node, superblock)?;
    ensure!(output.success, "{}", output.reason("xfs_db"));
    Ok(has_feature(&output.text(), REFLINK))
}

/// Returns the inodes of the superblock that are no files; 0 is none.
fn hidden_inodes(text: &str) -> BTreeMap<u64, &'static str> {
    let fields = [
        ("rbmino", "realtime bitmap"),
        ("rsumino", "realtime summary"),
        ("uquotino", "quota"),
        ("gquotino", "quota"),
        ("pquotino", "quota"),
    ];
    fields
        .into_iter()
        .filter_map(|(field, what)| Some((number(text, field).ok()?, what)))
        .filter(|(inode, _)| *inode != 0)
        .collect()
}

impl<'a> Database<'a> {
    /// Opens a file system, or returns why it must not be read.
    fn open(node: &'a str) -> Result<std::result::Result<Self, String>> {
        // One by one, because xfs_db prints nothing if it does not know one of several fields.
        let superblock = "sb 0\nprint blocksize sectsize agblocks agcount logstart logblocks rootino\n\
            print features_ro_compat\nprint rbmino\nprint rsumino\nprint uquotino\nprint gquotino\nprint pquotino\n";
        let output = run("xfs_db", PACKAGE, &["-r"], node, superblock)?;
        if !output.success {
            return Ok(Err(output.reason("xfs_db")));
        }
        let text = output.text();
        let geometry = Geometry::parse(&text)?;
        if geometry.log.is_none() {
            return Ok(Err("its log is on another device: mount it".to_owned()));
        }
        let size = File::open(node)?.seek(SeekFrom::End(0))?;
        if !geometry.fits(size) {
            return Ok(Err(format!(
                "its superblock has {} allocation groups, for which there is no room: run xfs_repair",
                geometry.groups
            )));
        }
        Ok(match log_refusal(node)? {
            Some(reason) => Err(reason),
            None => Ok(Self {
                node,
                geometry,
                root: number(&text, "rootino")?,
                reverse_map: has_feature(&text, REVERSE_MAP),
                hidden: hidden_inodes(&text),
            }),
        })
    }

    /// Returns the output of commands.
    fn run(&self, commands: &str) -> Result<Vec<u8>> {
        let output = run("xfs_db", PACKAGE, &["-r"], self.node, commands)?;
        // xfs_db also prints output for a corrupt file system, and then exits with an error.
        ensure!(
            output.success || !output.output.is_empty(),
            "{}",
            output.reason("xfs_db")
        );
        Ok(output.output)
    }

    /// Returns the records of the reverse map for `spans`; `None` if there is none, or it cannot be read.
    fn reverse_map(&self, spans: &Spans) -> Result<Option<BTreeSet<Mapping>>> {
        if !self.reverse_map {
            return Ok(None);
        }
        let geometry = &self.geometry;
        let query = |span: &Span| {
            let first = geometry.number(span.offset);
            let last = geometry.number(span.range().end.saturating_sub(1));
            format!("fsmap {first} {last}\n")
        };
        let commands: String = spans
            .iter()
            .flat_map(|span| geometry.groups(span))
            .map(|(_, part)| query(&part))
            .collect();
        let output = run("xfs_db", PACKAGE, &["-r"], self.node, &commands)?;
        let complete = output.success && output.error.is_empty();
        Ok(complete.then(|| Mapping::parse(&output.text())).flatten())
    }

    fn text(&self, commands: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.run(commands)?).into_owned())
    }

    fn paths(&self, inodes: &BTreeSet<u64>, all_links: bool) -> Result<BTreeMap<u64, Vec<String>>> {
        walk::paths(self.root, inodes, all_links, |folders, see| {
            let commands: Vec<_> = folders
                .iter()
                .map(|inode| format!("inode {inode}\nls\n"))
                .collect();
            sandboxed::read(
                "xfs_db",
                PACKAGE,
                &["-r"],
                self.node,
                &commands.concat(),
                |output| each_entry(output, see),
            )?;
            Ok(())
        })
    }
}

/// Parses `ls`: lines of a cookie, an inode, its type, a hash, the length of the name, the name, and whether that
/// is valid. A name may contain newlines.
fn each_entry(output: &mut dyn BufRead, see: &mut DirVisitor<'_>) -> io::Result<()> {
    let mut folder = None;
    let mut line = Vec::new();
    while sandboxed::read_field(output, b'\n', &mut line)? > 0 {
        match entry(&line) {
            LsLine::Entry(found) => {
                // The first entry; if an inode cannot be read, xfs_db lists the previous directory again.
                if found.name == b"." {
                    folder = Some(found.inode);
                }
                if let Some(folder) = folder {
                    see(folder, found);
                }
            }
            LsLine::Part => continue,
            LsLine::Other => {}
        }
        line.clear();
    }
    Ok(())
}

/// A line of `ls`.
enum LsLine {
    Entry(DirEntry),
    /// The first part of an entry, if its name contains a newline.
    Part,
    Other,
}

fn entry(line: &[u8]) -> LsLine {
    let mut rest = line;
    let mut word = || {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|&byte| byte == b' ')?;
        let (word, behind) = rest.split_at(end);
        rest = behind;
        std::str::from_utf8(word).ok()
    };
    let words = [word(), word(), word(), word(), word()];
    let [
        Some(_cookie),
        Some(inode),
        Some(kind),
        Some(hash),
        Some(length),
    ] = words
    else {
        return LsLine::Other;
    };
    let (Ok(inode), Ok(length), true) = (inode.parse(), length.parse(), hash.starts_with("0x"))
    else {
        return LsLine::Other;
    };
    let name = rest.get(1..).unwrap_or_default();
    // At least " (good)" and a newline follow.
    match name.split_at_checked(length) {
        Some((name, behind)) if behind.ends_with(b")\n") => LsLine::Entry(DirEntry {
            name: name.to_vec(),
            inode,
            // Old file systems have no file type in directories.
            folder: matches!(kind, "directory" | "unknown"),
        }),
        _ => LsLine::Part,
    }
}

/// Returns why the log must be replayed first, if so.
fn log_refusal(node: &str) -> Result<Option<String>> {
    let output = run("xfs_logprint", PACKAGE, &["-t"], node, "")?;
    let text = output.text();
    Ok(if text.contains("state: <CLEAN>") {
        None
    } else if text.contains("state: <DIRTY>") {
        Some("it was not unmounted cleanly, and its log is not replayed: mount it once".to_owned())
    } else {
        Some(format!(
            "cannot read the state of its log: {}",
            output.reason("xfs_logprint")
        ))
    })
}

/// The free space of one that is not mounted, in order.
pub(crate) fn space(node: &str) -> Result<std::result::Result<Space, String>> {
    let database = match Database::open(node)? {
        Ok(database) => database,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(Ok(Space {
        fixed: database.geometry.fixed(),
        rest: SpaceKind::Used,
        free: free(&database.text("freesp -d\n")?, &database.geometry),
    }))
}

/// Parses `freesp -d`: lines of group, block in the group and length, and a summary.
fn free(text: &str, geometry: &Geometry) -> Vec<Range<u64>> {
    let mut free: Vec<Range<u64>> = Vec::new();
    for line in text.lines() {
        let words: Vec<Option<u64>> = line
            .split_whitespace()
            .map(|word| word.parse().ok())
            .collect();
        if let [Some(group), Some(block), Some(length)] = words[..] {
            let start = group
                .saturating_mul(geometry.group)
                .saturating_add(block.saturating_mul(geometry.block));
            free.push(start..start.saturating_add(length.saturating_mul(geometry.block)));
        }
    }
    free.sort_by_key(|range| range.start);
    free
}

/// Finds the owners of `spans` of an unmounted file system.
pub fn owners(node: &str, spans: &Spans, all_links: bool) -> Result<OwnersFound> {
    match Database::open(node)? {
        Ok(database) => database.owners(spans, all_links),
        Err(reason) => Ok(OwnersFound::nothing(reason)),
    }
}

impl Database<'_> {
    fn owners(&self, spans: &Spans, all_links: bool) -> Result<OwnersFound> {
        let geometry = &self.geometry;
        let mut result = OwnersFound::default();
        let mut left = spans.clone();
        result.owned = geometry.take(&mut left);
        if left.is_empty() {
            result.sort();
            return Ok(result);
        }
        // The reverse map answers for these blocks alone; blockget reads all metadata, and keeps it in memory.
        if let Some(mappings) = self.reverse_map(&left)? {
            let inodes = mappings.iter().filter_map(Mapping::inode);
            let inodes = inodes
                .filter(|inode| !self.hidden.contains_key(inode))
                .collect();
            let paths = self.paths(&inodes, all_links)?;
            place_mappings(self, &left, &mappings, &paths, &mut result);
            return Ok(result);
        }

        // blockget reads the use of all blocks; blockuse prints some of them.
        let mut commands = String::from("blockget\n");
        let blocks = geometry.blocks(&left);
        let blocks = blocks
            .iter()
            .map(|range| Span::of_disk(range.start, range.end - range.start));
        for (group, part) in blocks.flat_map(|span| geometry.groups(span)) {
            let (first, count) = geometry.around(group, &part, spans);
            commands.push_str(&format!("fsblock {first}\nblockuse -c {count}\n"));
        }
        let uses = match self.text(&commands) {
            Ok(text) => uses(&text),
            Err(error) => {
                result.reason = Some(format!(
                    "{error:#}; without a reverse map (rmapbt), xfs_db needs some 9 bytes of memory for a block"
                ));
                result.unknown(&left, |byte| geometry.group_of(byte));
                return Ok(result);
            }
        };
        let mut inodes: BTreeSet<u64> = uses.iter().filter_map(|block| block.inode).collect();
        let commands: Vec<_> = inodes
            .iter()
            .map(|inode| format!("echo INODE {inode}\ninode {inode}\nbmap -d\nbmap -a\n"))
            .collect();
        let commands = commands.concat();
        let mut pieces = pieces(&self.text(&commands)?);

        // blockget keeps only the last owner of a shared block; with -b it prints all of them.
        let shared: Vec<_> = uses
            .iter()
            .filter(|block| block.kind == "rldata")
            .map(|block| format!(" -b {}", block.number))
            .collect();
        let shared = shared.concat();
        if !shared.is_empty() {
            let sharers = sharers(&self.text(&format!("blockget{shared}\n"))?);
            pieces = cut_out(&pieces, &sharers.iter().map(InodeExtent::numbers).collect());
            inodes.extend(sharers.iter().map(|piece| piece.inode));
            pieces.extend(sharers);
        }
        let paths = self.paths(&inodes, all_links)?;
        place(geometry, &left, &uses, &pieces, &paths, &mut result);
        Ok(result)
    }
}

/// Assigns the owners that the reverse map has to the bytes of `left`; the rest is free.
fn place_mappings(
    database: &Database<'_>,
    left: &Spans,
    mappings: &BTreeSet<Mapping>,
    paths: &BTreeMap<u64, Vec<String>>,
    result: &mut OwnersFound,
) {
    let geometry = &database.geometry;
    let mut free = left.clone();
    for mapping in mappings {
        let range = mapping.range(geometry);
        free.remove(&range);
        for part in left.within(&range) {
            let owner = match mapping.inode() {
                None => mapping.special(),
                Some(inode) => match database.hidden.get(&inode) {
                    Some(what) => Owner::Metadata { what, group: None },
                    None => Owner::File {
                        paths: paths.get(&inode).cloned().unwrap_or_default(),
                        inode,
                        file_offset: mapping.data.then(|| {
                            let start = mapping.offset.saturating_mul(geometry.block);
                            start.saturating_add(part.offset - range.start)
                        }),
                        open_by: Vec::new(),
                    },
                },
            };
            result.owned.push(Owned { span: part, owner });
        }
    }
    // Nothing is behind the last group.
    for owned in geometry.by_group(&free) {
        let owner = match owned.owner {
            Owner::Unknown { group: Some(_) } => Owner::Free,
            other => other,
        };
        result.add(owned.span, owner);
    }
    result.sort();
}

/// Removes blocks from extents.
fn cut_out(pieces: &[InodeExtent], numbers: &Ranges) -> Vec<InodeExtent> {
    let mut cut = Vec::new();
    for piece in pieces {
        for part in numbers.gaps(&piece.numbers()).iter() {
            let skipped = part.start - piece.number;
            cut.push(InodeExtent {
                inode: piece.inode,
                number: part.start,
                count: part.end - part.start,
                logical: piece.logical.map(|logical| logical + skipped),
            });
        }
    }
    cut
}

/// Assigns owners to the bytes of `left`.
fn place(
    geometry: &Geometry,
    left: &Spans,
    uses: &[BlockUse],
    pieces: &[InodeExtent],
    paths: &BTreeMap<u64, Vec<String>>,
    result: &mut OwnersFound,
) {
    let range = |number: u64, count: u64| {
        let start = geometry.byte(number);
        start..start.saturating_add(count.saturating_mul(geometry.block))
    };
    let hidden: BTreeMap<u64, &'static str> = uses
        .iter()
        .filter_map(|block| Some((block.inode?, block.hidden()?)))
        .collect();
    let mut rest = left.clone();
    for piece in pieces {
        let range = range(piece.number, piece.count);
        rest.remove(&range);
        for part in left.within(&range) {
            let owner = match hidden.get(&piece.inode) {
                Some(what) => Owner::Metadata { what, group: None },
                None => Owner::File {
                    paths: paths.get(&piece.inode).cloned().unwrap_or_default(),
                    inode: piece.inode,
                    file_offset: piece
                        .logical
                        .map(|logical| logical * geometry.block + (part.offset - range.start)),
                    open_by: Vec::new(),
                },
            };
            result.owned.push(Owned { span: part, owner });
        }
    }
    for block in uses {
        let range = range(block.number, 1);
        let group = geometry.group_of(range.start);
        for part in rest.take(&range) {
            let owner = match block.inode {
                // A block of the extent tree.
                Some(inode) => Owner::File {
                    paths: paths.get(&inode).cloned().unwrap_or_default(),
                    inode,
                    file_offset: None,
                    open_by: Vec::new(),
                },
                None => block.owner(group),
            };
            result.add(part, owner);
        }
    }
    result.unknown(&rest, |byte| geometry.group_of(byte));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs;
    use proptest::prelude::*;

    /// 400 MiB, four groups, as xfs_db printed it.
    const SUPERBLOCK: &str = "blocksize = 4096\nsectsize = 512\nagblocks = 25600\nagcount = 4\nlogstart = 65543\n\
        logblocks = 16384\n";
    const GROUP: u64 = 25600 * 4096;

    fn spans(spans: &[Span]) -> Spans {
        spans.iter().cloned().collect()
    }

    fn geometry() -> Geometry {
        Geometry::parse(SUPERBLOCK).unwrap()
    }

    #[test]
    fn block_numbers_map_to_bytes() {
        let geometry = geometry();
        assert_eq!(geometry.shift(), 15);
        // 65543 is block 7 of group 2.
        let log = 2 * GROUP + 7 * 4096;
        assert_eq!(geometry.log, Some(log..log + 16384 * 4096));
        assert_eq!(geometry.number(log + 5), 65543);
        assert_eq!(geometry.group_of(4 * GROUP - 1), Some(3));
        assert_eq!(geometry.group_of(4 * GROUP), None);
        for (from, to) in [
            ("4096", "0"),
            ("4096", "4095"),
            ("25600", "0"),
            ("logstart", "x"),
        ] {
            assert!(
                Geometry::parse(&SUPERBLOCK.replace(from, to)).is_err(),
                "{to}"
            );
        }
        let elsewhere = Geometry::parse(&SUPERBLOCK.replace("65543", "0")).unwrap();
        assert_eq!(elsewhere.log, None);
    }

    #[test]
    fn groups_fit_if_the_last_one_begins_on_the_device() {
        let geometry = geometry();
        assert!(geometry.fits(4 * GROUP) && geometry.fits(3 * GROUP + 1));
        assert!(!geometry.fits(3 * GROUP));
    }

    #[test]
    fn free_space_parses() {
        // As xfs_db 6.13 answered.
        let output = "    agno    agbno      len\n       0      757        3\n       0        6        1\n\
            \x20      1       10    25590\n   from      to extents  blocks    pct\n      1       1       6       6   0.01\n";
        assert_eq!(
            free(output, &geometry()),
            [
                6 * 4096..7 * 4096,
                757 * 4096..760 * 4096,
                GROUP + 40960..2 * GROUP
            ]
        );
    }

    /// As xfs_db 6.13 answered `fsmap 0 100`, and two records of a file.
    const FSMAP: &str = "0: 0/0 len 1 owner -3 offset 0 bmbt 0 attrfork 0 extflag 0\n\
        1: 0/1 len 2 owner -5 offset 0 bmbt 0 attrfork 0 extflag 0\n\
        2: 0/16 len 8 owner -7 offset 0 bmbt 0 attrfork 0 extflag 0\n\
        3: 0/24 len 4 owner 131 offset 512 bmbt 0 attrfork 0 extflag 1\n\
        4: 0/28 len 1 owner 131 offset 0 bmbt 1 attrfork 0 extflag 0\n\
        5: 0/30 len 1 owner 129 offset 0 bmbt 0 attrfork 0 extflag 0\n";

    #[test]
    fn reverse_map_has_the_owners() {
        let mappings = Mapping::parse(FSMAP).unwrap();
        assert_eq!(mappings.len(), 6);
        // What xfs_db prints if a block of the reverse map is bad.
        let error = "Error 74 while querying fsmap btree.\n";
        assert_eq!(Mapping::parse(&format!("{FSMAP}{error}")), None);
        let database = Database {
            node: "",
            geometry: geometry(),
            root: 128,
            reverse_map: true,
            hidden: hidden_inodes("rbmino = 129\nrsumino = 130\nuquotino = 0\ngquotino = null\n"),
        };
        let paths = BTreeMap::from([(131, vec!["/file".to_owned()])]);
        let left = spans(&[
            Span::made_up(16 * 4096, 512),
            Span::made_up(25 * 4096 + 512, 512),
            Span::made_up(28 * 4096, 3 * 4096),
            Span::made_up(4 * GROUP, 512),
        ]);
        let mut result = OwnersFound::default();
        place_mappings(&database, &left, &mappings, &paths, &mut result);
        let file = |file_offset| Owner::File {
            paths: vec!["/file".to_owned()],
            inode: 131,
            file_offset,
            open_by: Vec::new(),
        };
        let owned: Vec<_> = result.owned.into_iter().map(|one| one.owner).collect();
        let metadata = |what, group| Owner::Metadata { what, group };
        assert_eq!(
            owned,
            [
                metadata("inode table", Some(0)),
                file(Some(513 * 4096 + 512)),
                file(None),
                Owner::Free,
                metadata("realtime bitmap", None),
                Owner::Unknown { group: None },
            ]
        );
    }

    #[test]
    fn reverse_map_and_blockget_agree() {
        // Skipped if there are no xfsprogs.
        let programs = ["mkfs.xfs", "xfs_db", "xfs_logprint"].map(programs::path);
        if !programs.iter().all(|program| program.is_absolute()) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let image = at("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(512 << 20).unwrap();
        std::fs::write(at("content"), vec![7; 4 << 20]).unwrap();
        let content = at("content").display().to_string();
        let tree = format!("/dummy\n0 0\nd--755 0 0\nfile ---644 0 0 {content}\n$\n");
        std::fs::write(at("tree"), tree).unwrap();
        let made = std::process::Command::new(&programs[0])
            .args(["-q", "-m", "rmapbt=1,reflink=1", "-p"])
            .args([at("tree"), image.clone()])
            .status();
        assert!(made.unwrap().success());

        let node = image.to_str().unwrap();
        let mut database = Database::open(node).unwrap().unwrap();
        assert!(database.reverse_map);
        let spans: Spans = (0..2048)
            .map(|number| Span::made_up(number * 7 * 4096 + 512, 512))
            .collect();
        let by_map = database.owners(&spans, false).unwrap();
        database.reverse_map = false;
        assert_eq!(by_map, database.owners(&spans, false).unwrap());
        let named = |owned: &Owned| matches!(&owned.owner, Owner::File { paths, .. } if paths[..] == ["/file"]);
        assert!(by_map.owned.iter().any(named));
    }

    #[test]
    fn superblock_says_whether_there_is_a_reverse_map() {
        assert!(has_feature(
            "rootino = 128\nfeatures_ro_compat = 0xf\n",
            REVERSE_MAP
        ));
        assert!(!has_feature("features_ro_compat = 0xd\n", REVERSE_MAP));
        assert!(has_feature("features_ro_compat = 0xd\n", REFLINK));
        assert!(!has_feature(
            "field features_ro_compat not found\n",
            REVERSE_MAP
        ));
    }

    #[test]
    fn query_starts_at_readable_block() {
        let bad = [
            Span::made_up(GROUP + 10 * 4096 + 512, 512),
            Span::made_up(GROUP + 11 * 4096, 8192),
            Span::made_up(4096, 512),
        ];
        let all = spans(&bad);
        // From block 9 of group 1 on: 10 to 12 are bad.
        let first = (1 << 15) + 9;
        assert_eq!(geometry().around(1, &bad[0], &all), (first, 2));
        assert_eq!(geometry().around(1, &bad[1], &all), (first, 4));
        assert_eq!(geometry().around(0, &bad[2], &all), (0, 2));
    }

    #[test]
    fn headers_and_log_are_split_off() {
        let mut rest = spans(&[Span::made_up(GROUP - 4096, 12288)]);
        let owned = geometry().take(&mut rest);
        assert_eq!(
            rest,
            spans(&[
                Span::made_up(GROUP - 4096, 4096),
                Span::made_up(GROUP + 4096, 4096)
            ])
        );
        assert_eq!(
            owned,
            [Owned {
                span: Span::made_up(GROUP, 4096),
                owner: Owner::Metadata {
                    what: "superblock",
                    group: Some(1)
                }
            }]
        );
        let owned = geometry().by_group(&spans(&[
            Span::made_up(3 * GROUP - 512, 1024),
            Span::made_up(4 * GROUP - 512, 1024),
        ]));
        let groups: Vec<_> = owned
            .iter()
            .map(|owned| (owned.span.length, &owned.owner))
            .collect();
        let group = |group| Owner::Unknown { group };
        assert_eq!(
            groups,
            [
                (512, &group(Some(2))),
                (512, &group(Some(3))),
                (512, &group(Some(3))),
                (512, &group(None))
            ]
        );
        let mut rest = spans(&[Span::made_up(2 * GROUP + 8 * 4096, 512)]);
        assert_eq!(geometry().take(&mut rest).len(), 1);
        assert!(rest.is_empty());
    }

    #[test]
    fn shared_block_has_all_owners() {
        // As xfs_db 6.13 answered: two files share 733 blocks from block 24 on; 10 are attributes of
        // a directory, 16 an inode table.
        let output = "block 24 (0/24) type rldata inode 132\nblock 25 (0/25) type rldata inode 132\n\
            block 10 (0/10) type attr inode 133\nblock 16 (0/16) type inode\nblock 13 (0/13) type free2\n\
            block 5 (0/5) type btrefcnt\nblock 6 (0/6) type unknown\n";
        let uses = uses(output);
        assert_eq!(uses.len(), 7);
        let maps = "INODE 132 \ndata offset 0 startblock 24 (0/24) count 733 flag 0\nINODE 133 \n\
            data offset 0 startblock 15 (0/15) count 1 flag 0\nattr offset 0 startblock 10 (0/10) count 1 flag 0\n";
        let mut pieces = pieces(maps);
        let more = sharers(
            "setting inode to 131 for block 0/24\ninode 131 block 24 at offset 0\n\
            inode 132 block 24 at offset 0\ninode 131 block 25 at offset 1\ninode 132 block 25 at offset 1\n",
        );
        pieces = cut_out(&pieces, &more.iter().map(InodeExtent::numbers).collect());
        assert_eq!(pieces[0].number, 26);
        assert_eq!(pieces[0].logical, Some(2));
        pieces.extend(more);
        let paths = [(131, vec!["/file".to_owned()])].into();
        let left = spans(&[
            Span::made_up(25 * 4096 + 512, 512),
            Span::made_up(10 * 4096, 4096),
            Span::made_up(16 * 4096, 512),
            Span::made_up(13 * 4096, 512),
            Span::made_up(5 * 4096, 8192),
            Span::made_up(400 * 4096, 512),
        ]);
        let mut result = OwnersFound::default();
        place(&geometry(), &left, &uses, &pieces, &paths, &mut result);
        let file = |paths: &[&str], inode, file_offset| Owner::File {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
            inode,
            file_offset,
            open_by: Vec::new(),
        };
        let metadata = |what| Owner::Metadata {
            what,
            group: Some(0),
        };
        let owners: Vec<_> = result
            .owned
            .iter()
            .map(|owned| (owned.span.offset / 4096, owned.owner.clone()))
            .collect();
        assert_eq!(
            owners,
            [
                (5, metadata("reference counts")),
                (6, Owner::Unknown { group: Some(0) }),
                (10, file(&[], 133, None)),
                (13, Owner::Free),
                (16, metadata("inode table")),
                (25, file(&["/file"], 131, Some(4096 + 512))),
                (25, file(&[], 132, Some(4096 + 512))),
                (400, file(&[], 132, Some(376 * 4096))),
            ]
        );
    }

    #[test]
    fn directory_listing_parses() {
        // As xfs_db 6.13 answered; 262272 could not be read.
        let output = b"8          128                directory      0x0000002e   1 . (good)\n\
            10         128                directory      0x0000172e   2 .. (good)\n\
            12         131                regular        0x00000061   1 a (good)\n\
            14         262272             directory      0x001cfae2  43 d\n8 9 directory 0x1 1 . (good)\n13 \xff(good)\n1 (good)\n\
            Not a directory\nMetadata CRC error detected at 0x55d0a0, xfs_dir3_block block 0x40/0x1000\n\
            8          262272             directory      0x0000002e   1 . (good)\n\
            12         131                regular        0x00000061   1 ) (corrupt)\n13";
        let mut seen = Vec::new();
        each_entry(&mut &output[..], &mut |folder, held| {
            seen.push((folder, held.inode, held.name, held.folder));
        })
        .unwrap();
        let odd = b"d\n8 9 directory 0x1 1 . (good)\n13 \xff(good)\n1";
        assert_eq!(odd.len(), 43);
        assert_eq!(
            seen,
            [
                (128, 128, b".".to_vec(), true),
                (128, 128, b"..".to_vec(), true),
                (128, 131, b"a".to_vec(), false),
                (128, 262272, odd.to_vec(), true),
                (262272, 262272, b".".to_vec(), true),
                (262272, 131, b")".to_vec(), false),
            ]
        );
    }

    proptest! {
        /// There and back.
        #[test]
        fn block_number_round_trips(byte in 0..4 * GROUP, group_blocks in 1_u64..100_000) {
            let geometry = Geometry::new([4096, 512, group_blocks, 1 << 20], 0..0).unwrap();
            prop_assert_eq!(geometry.byte(geometry.number(byte)), byte / 4096 * 4096);
        }

        /// Each byte is either split off or left.
        #[test]
        fn each_byte_has_one_owner(offset in GROUP - 20_000..2 * GROUP + 60_000, length in 1_u64..40_000) {
            let mut rest = spans(&[Span::made_up(offset, length)]);
            let owned = geometry().take(&mut rest);
            let mut spans: Vec<Span> = owned.into_iter().map(|owned| owned.span).collect();
            spans.extend(rest.iter());
            spans.sort_by_key(|span| span.offset);
            let mut at = offset;
            for span in spans {
                prop_assert_eq!((span.offset, span.disk_offset), (at, at + 1000));
                at += span.length;
            }
            prop_assert_eq!(at, offset + length);
        }
    }
}
