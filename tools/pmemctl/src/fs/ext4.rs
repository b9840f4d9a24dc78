// SPDX-License-Identifier: GPL-2.0

//! The metadata layout of ext2, ext3 and ext4, and the owners of blocks on an unmounted one, read with e2fsprogs.
//!
//! The programs open the device read-only.

use crate::block::remap::{Span, Spans};
use crate::fs::walk::{self, DirEntry, DirVisitor, Walk};
use crate::fs::{Owned, Owner, OwnersFound, Space, SpaceKind};
use crate::programs::sandboxed::{self, CommandOutput, run};
use crate::ranges::Ranges;
use crate::sysfs::printable;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead};
use std::ops::Range;
use units::PAGE;

const PACKAGE: &str = "e2fsprogs";
/// How many numbers fit into one command of debugfs, which takes lines of 8,191 bytes.
const NUMBERS: usize = 400;
const ROOT: u64 = 2;

/// The output of `dumpe2fs -h`, line by line.
#[derive(Debug)]
pub struct Header(BTreeMap<String, String>);

impl Header {
    /// Reads the header of a device, or returns why it has none.
    pub fn read(node: &str) -> Result<std::result::Result<Self, String>> {
        let output = run("dumpe2fs", PACKAGE, &["-h"], node, "")?;
        Ok(match output.success {
            true => Ok(Self::parse(&output.text())),
            false => Err(output.reason("dumpe2fs")),
        })
    }

    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Result<u64> {
        let value = self.value(name);
        value
            .parse()
            .with_context(|| format!("dumpe2fs says \"{name}: {}\"", printable(value)))
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> Result<u64> {
        self.number("Block size")
    }

    /// Returns whether it has a feature, as dumpe2fs(8) names it.
    pub fn has(&self, feature: &str) -> bool {
        let features = self.value("Filesystem features");
        features.split_whitespace().any(|word| word == feature)
    }

    /// Returns why the file system must not be read, if so.
    fn refusal(&self) -> Option<&'static str> {
        if self.has("journal_dev") {
            return Some("it is the journal of an ext4 that is elsewhere");
        }
        if self.has("needs_recovery") {
            return Some(
                "it was not unmounted cleanly, and its journal is not replayed: mount it, or run e2fsck",
            );
        }
        match self.value("Filesystem state") {
            // Read errors of bad blocks set this state.
            "clean" | "clean with errors" => None,
            _ => Some("it was not unmounted cleanly: run e2fsck"),
        }
    }

    /// Returns the inodes without names, with their purpose.
    pub fn hidden(&self) -> Vec<(u64, &'static str)> {
        let named = [
            ("Journal inode", "journal"),
            ("User quota inode", "user quota"),
            ("Group quota inode", "group quota"),
            ("Project quota inode", "project quota"),
            ("Orphan file inode", "orphan file"),
        ];
        let mut hidden = vec![(1, "list of bad blocks"), (7, "reserved group descriptors")];
        for (name, what) in named {
            hidden.extend(self.number(name).ok().map(|inode| (inode, what)));
        }
        hidden
    }
}

/// The metadata of the block groups.
#[derive(Debug)]
pub struct Layout {
    /// Bytes, what they are, and the number of the group.
    places: Vec<(Range<u64>, &'static str, u64)>,
    block_size: u64,
    inode_size: u64,
    inodes_per_group: u64,
    /// The first byte of the first group.
    start: u64,
    /// In bytes.
    group_size: u64,
}

const INODE_TABLE: &str = "inode table";
const BLOCK_BITMAP: &str = "block bitmap";

impl Layout {
    /// Reads the layout, which is constant, of a mounted or unmounted file system.
    pub fn read(node: &str, header: &Header) -> Result<Self> {
        let output = run("dumpe2fs", PACKAGE, &["-g"], node, "")?;
        if !output.success {
            bail!("{}", output.reason("dumpe2fs"));
        }
        Self::parse(&output.text(), header)
    }

    /// Lines of `group:block:super:gdt:bbitmap:ibitmap:itable`; -1 is none.
    fn parse(text: &str, header: &Header) -> Result<Self> {
        let size = header.block_size()?;
        // Not printed for revision 0, in which it is fixed.
        let inode_size = header.number("Inode size").unwrap_or(128);
        let inodes_per_group = header.number("Inodes per group")?;
        let table = header.number("Inode blocks per group")?;
        let first_block = header.number("First block")?;
        let group_blocks = header.number("Blocks per group")?;
        if inodes_per_group == 0 || !(1..=size).contains(&inode_size) {
            bail!("dumpe2fs knows no inodes");
        }
        let mut places = Vec::new();
        for line in text
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        {
            let fields: Vec<_> = line.trim().split(':').collect();
            let [group, _, superblock, descriptors, blocks, inodes, first] = fields[..] else {
                bail!("dumpe2fs says \"{}\"", printable(line));
            };
            let group: u64 = group.parse()?;
            let mut place = |at: &str, what, count: Option<u64>| {
                let (first, last) = at.split_once('-').unwrap_or((at, at));
                // "-1" is none.
                let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else {
                    return;
                };
                let end = count.map_or(last.saturating_add(1), |count| first.saturating_add(count));
                places.push((
                    first.saturating_mul(size)..end.saturating_mul(size),
                    what,
                    group,
                ));
            };
            place(superblock, "superblock", None);
            place(descriptors, "group descriptors", None);
            place(blocks, BLOCK_BITMAP, None);
            place(inodes, "inode bitmap", None);
            place(first, INODE_TABLE, Some(table));
        }
        Ok(Self {
            places,
            block_size: size,
            inode_size,
            inodes_per_group,
            start: first_block.saturating_mul(size),
            group_size: group_blocks.saturating_mul(size),
        })
    }

    /// Returns the groups whose block bitmap is bad. The kernel reads it to tell which of their blocks are free, and takes a
    /// failure for an error in the file system, after which it may be read-only (`ext4_wait_block_bitmap`).
    pub(crate) fn groups_without_bitmap(&self, bad: &Spans) -> Ranges {
        // It reads those of all groups that share a page of its buddy cache (`ext4_mb_init_cache`).
        let together = (PAGE / self.block_size / 2).max(1);
        let bitmaps = self
            .places
            .iter()
            .filter(|(range, what, _)| *what == BLOCK_BITMAP && bad.within(range).next().is_some());
        let groups = bitmaps.map(|(_, _, group)| {
            let first = group / together * together;
            let start = self
                .start
                .saturating_add(first.saturating_mul(self.group_size));
            start..start.saturating_add(together.saturating_mul(self.group_size))
        });
        groups.collect()
    }

    /// Returns the numbers of the inodes whose block of a table has bad bytes.
    pub(crate) fn inodes_on(&self, bad: &Spans) -> Ranges {
        let tables = self
            .places
            .iter()
            .filter(|(_, what, _)| *what == INODE_TABLE);
        let blocks = tables.flat_map(|(table, _, group)| {
            bad.within(table).map(move |span| {
                let first = (span.offset - table.start) / self.block_size;
                let end = (span.range().end - table.start).div_ceil(self.block_size);
                (*group, first..end)
            })
        });
        let per_block = self.block_size / self.inode_size;
        let inodes = blocks.map(|(group, blocks)| {
            // The first inode has the number 1.
            let start = group
                .saturating_mul(self.inodes_per_group)
                .saturating_add(1);
            start.saturating_add(blocks.start.saturating_mul(per_block))
                ..start.saturating_add(blocks.end.saturating_mul(per_block))
        });
        inodes.collect()
    }

    /// Returns the space: blocks that are in use and are not metadata belong to files.
    pub(crate) fn space(&self, mut hidden: Ranges) -> Space {
        hidden.extend(self.places.iter().map(|(range, ..)| range.clone()));
        Space {
            fixed: hidden,
            rest: SpaceKind::Files,
            free: Vec::new(),
        }
    }

    /// Removes group metadata from `left`, and returns it.
    pub fn take(&self, left: &mut Spans) -> Vec<Owned> {
        let mut owned = Vec::new();
        for (range, what, group) in &self.places {
            let group = Some(*group);
            owned.extend(left.take(range).into_iter().map(|span| Owned {
                span,
                owner: Owner::Metadata { what, group },
            }));
        }
        owned
    }
}

/// Blocks of an inode, with their block number in the file; `None` for extent tree and attribute blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InodeExtent {
    logical: Option<u64>,
    blocks: Range<u64>,
}

impl InodeExtent {
    fn bytes(&self, size: u64) -> Range<u64> {
        self.blocks.start.saturating_mul(size)..self.blocks.end.saturating_mul(size)
    }
}

/// Returns the value of a field of debugfs's `stat`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(name)?;
    rest.split_whitespace().next()
}

/// Returns the block of extended attributes in debugfs's `stat`.
fn attribute_block(text: &str) -> Option<InodeExtent> {
    let block = field(text, "File ACL: ")?.parse::<u64>().ok()?;
    (block != 0).then(|| InodeExtent {
        logical: None,
        blocks: block..block.saturating_add(1),
    })
}

/// Parses `stat` of debugfs: fields in a fixed order, then names of attributes or the target of a short symbolic
/// link, which may contain any bytes, then blocks, which are only numbers.
fn parse_stat(text: &str) -> Vec<InodeExtent> {
    /// The data is in the inode itself (`EXT4_INLINE_DATA_FL`).
    const INLINE_DATA: u32 = 0x1000_0000;
    /// Targets of symbolic links below this length are in the inode itself.
    const SHORT: u64 = 60;
    let field = |name| field(text, name);
    let mut extents = Vec::from_iter(attribute_block(text));
    let hex = |flags: &str| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok();
    let inline = field("Flags: ")
        .and_then(hex)
        .is_none_or(|flags| flags & INLINE_DATA != 0);
    let long = || {
        field(" Size: ")
            .and_then(|size| size.parse::<u64>().ok())
            .is_some_and(|size| size >= SHORT)
    };
    let has_blocks = match field("Type: ") {
        Some("symlink") => long(),
        Some("block" | "character") | None => false,
        _ => true,
    };
    let heads = ["\nEXTENTS:\n", "\nBLOCKS:\n"];
    let blocks = heads.iter().filter_map(|head| text.rfind(head)).max();
    let Some(blocks) = blocks.filter(|_| has_blocks && !inline) else {
        return extents;
    };
    for line in text[blocks..].lines() {
        // "(0-11):100-111, (IND):112, (12[u]):113", and so on.
        for word in line.split([',', ' ']).filter(|word| word.starts_with('(')) {
            let word = word.replace("[u]", "");
            let Some((logical, physical)) = word.trim_start_matches('(').split_once("):") else {
                continue;
            };
            let (first, last) = physical.split_once('-').unwrap_or((physical, physical));
            let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else {
                continue;
            };
            let logical = logical
                .split('-')
                .next()
                .and_then(|first| first.parse().ok());
            extents.push(InodeExtent {
                logical,
                blocks: first..last.saturating_add(1),
            });
        }
    }
    extents
}

/// debugfs, and the device that it opens.
struct Debugfs<'a>(&'a str);

impl Debugfs<'_> {
    /// Runs commands without loading the bitmaps, which may be on bad blocks.
    fn run(&self, commands: &str) -> Result<CommandOutput> {
        run("debugfs", PACKAGE, &["-c", "-f", "-"], self.0, commands)
    }

    /// Runs commands with the bitmaps loaded.
    fn read_with_bitmaps(
        &self,
        commands: &str,
        see: impl FnOnce(&mut dyn BufRead) -> io::Result<()>,
    ) -> Result<CommandOutput> {
        sandboxed::read("debugfs", PACKAGE, &["-f", "-"], self.0, commands, see)
    }

    /// Runs a command with lists of numbers.
    fn run_on(
        &self,
        command: &str,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Result<CommandOutput> {
        let numbers: Vec<String> = numbers
            .into_iter()
            .map(|number| number.to_string())
            .collect();
        let line = |some: &[String]| format!("{command} {}\n", some.join(" "));
        self.run(&numbers.chunks(NUMBERS).map(line).collect::<String>())
    }

    /// Returns the blocks of inodes.
    fn extents(&self, inodes: &[u64]) -> Result<Vec<(u64, Vec<InodeExtent>)>> {
        // debugfs echoes comments: a random one separates the answers, which no file name can contain.
        let mark = format!("# {:016x} ", RandomState::new().build_hasher().finish());
        let commands: Vec<_> = inodes
            .iter()
            .map(|inode| format!("{mark}{inode}\nstat <{inode}>\n"))
            .collect();
        let text = self.run(&commands.concat())?.text();
        let answers: Vec<_> = text.split(&mark).skip(1).collect();
        let one =
            |answer: &&str| Some((answer.split_once('\n')?.0.parse().ok()?, parse_stat(answer)));
        Ok(answers.iter().filter_map(one).collect())
    }

    /// Removes blocks from `left` with the inodes that have them. Ends with an error message if a part of an inode table cannot be
    /// read.
    fn by_block(&self, left: &mut Spans, size: u64) -> Result<(Vec<OwnedExtent>, Option<String>)> {
        let mut found = Vec::new();
        let mut next = 0;
        loop {
            let some: Vec<u64> = blocks(left, next, size).take(NUMBERS).collect();
            let Some(last) = some.last() else {
                return Ok((found, None));
            };
            next = last + 1;
            let output = self.run_on("icheck", some)?;
            let text = output.text();
            let owners = owners_of_blocks(&text);
            if !text.contains("<block not found>") && owners.is_empty()
                || output.error.contains("icheck")
            {
                return Ok((found, Some(output.error.trim().to_owned())));
            }
            let inodes: BTreeSet<u64> = owners.values().copied().collect();
            let inodes: Vec<u64> = inodes.into_iter().collect();
            found.extend(take(left, &self.extents(&inodes)?, size));
            // Blocks that only icheck knows.
            let extents: Vec<_> = owners
                .iter()
                .map(|(&block, &inode)| {
                    let blocks = block..block + 1;
                    (
                        inode,
                        vec![InodeExtent {
                            logical: None,
                            blocks,
                        }],
                    )
                })
                .collect();
            found.extend(take(left, &extents, size));
        }
    }

    /// Searches `left` in all inodes, of which there are `count`, that have a name and can be read.
    fn search(&self, left: &mut Spans, size: u64, count: u64) -> Result<Vec<OwnedExtent>> {
        let mut found = Vec::new();
        let mut walk = Walk::from(ROOT);
        // Each once: a corrupt directory may have any number of entries, also in the same blocks.
        let mut inodes = BTreeSet::from([ROOT]);
        let mut more = true;
        while more && !left.is_empty() {
            more = walk.step(
                |folders, see| self.list(folders, see),
                |entry, _| {
                    if entry.inode <= count {
                        inodes.insert(entry.inode);
                    }
                },
            )?;
            let seen = Vec::from_iter(std::mem::take(&mut inodes));
            for some in seen.chunks(NUMBERS) {
                found.extend(take(left, &self.extents(some)?, size));
            }
        }
        Ok(found)
    }

    fn list(&self, folders: &[u64], see: &mut DirVisitor<'_>) -> Result<()> {
        let commands: Vec<_> = folders
            .iter()
            .map(|inode| format!("ls -p <{inode}>\n"))
            .collect();
        sandboxed::read(
            "debugfs",
            PACKAGE,
            &["-c", "-f", "-"],
            self.0,
            &commands.concat(),
            |output| entry(output, see),
        )?;
        Ok(())
    }
}

/// A span, its inode, and its offset in the file.
type OwnedExtent = (Span, u64, Option<u64>);

/// Parses `ls -p`: `/INODE/MODE/UID/GID/NAME/SIZE/` after the echoed command. A name may contain newlines, but no
/// slash.
fn entry(output: &mut dyn BufRead, see: &mut DirVisitor<'_>) -> io::Result<()> {
    let mut folder = None;
    while let Some(&first) = output.fill_buf()?.first() {
        if first != b'/' {
            let mut line = Vec::new();
            sandboxed::read_field(output, b'\n', &mut line)?;
            let inode = line.strip_prefix(b"debugfs: ls -p <");
            let inode = inode.and_then(|inode| inode.split(|&byte| byte == b'>').next());
            folder = inode.and_then(number).or(folder);
            continue;
        }
        output.consume(1);
        let mut fields: [Vec<u8>; 6] = Default::default();
        for field in &mut fields {
            sandboxed::read_field(output, b'/', field)?;
            field.pop();
        }
        let [inode, mode, _, _, name, _] = fields;
        if let (Some(folder), Some(inode)) = (folder, number(&inode)) {
            let entry = DirEntry {
                name,
                inode,
                folder: mode.starts_with(b"04"),
            };
            see(folder, entry);
        }
    }
    Ok(())
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Removes the blocks of inodes from `left` and returns them.
fn take(left: &mut Spans, extents: &[(u64, Vec<InodeExtent>)], size: u64) -> Vec<OwnedExtent> {
    let mut found = Vec::new();
    for (inode, extents) in extents {
        for extent in extents {
            let range = extent.bytes(size);
            for part in left.take(&range) {
                let offset = extent.logical.and_then(|logical| {
                    Some(logical.checked_mul(size)? + (part.offset - range.start))
                });
                found.push((part, *inode, offset));
            }
        }
    }
    found
}

/// Removes from `left` the blocks of inodes that cannot be opened on a mounted ext4: hidden ones, and symbolic
/// links with a block.
pub fn of_inodes(
    node: &str,
    header: &Header,
    inodes: &[u64],
    left: &mut Spans,
) -> Result<Vec<OwnedExtent>> {
    let extents = Debugfs(node).extents(inodes)?;
    Ok(take(left, &extents, header.block_size()?))
}

/// Removes the blocks of files from `left`, by their numbers.
pub(crate) fn by_block(node: &str, header: &Header, left: &mut Spans) -> Result<Vec<OwnedExtent>> {
    Ok(Debugfs(node).by_block(left, header.block_size()?)?.0)
}

/// Returns where the block of an inode's extended attributes is, in bytes. The kernel does not report it if there are attributes in
/// the inode as well (`ext4_iomap_xattr_fiemap`).
pub(crate) fn attributes_of(node: &str, inode: u64) -> Result<Option<Range<u64>>> {
    let header = Header::read(node)?.map_err(anyhow::Error::msg)?;
    let size = header.block_size()?;
    let text = Debugfs(node).run(&format!("stat <{inode}>\n"))?.text();
    Ok(attribute_block(&text).map(|block| block.bytes(size)))
}

/// Returns the blocks of the hidden inodes.
pub(crate) fn hidden_ranges(node: &str, header: &Header) -> Result<Ranges> {
    let size = header.block_size()?;
    let inodes: Vec<u64> = header.hidden().iter().map(|(inode, _)| *inode).collect();
    let extents = Debugfs(node).extents(&inodes)?;
    Ok(extents
        .iter()
        .flat_map(|(_, extents)| extents)
        .map(|extent| extent.bytes(size))
        .collect())
}

/// Returns the space of an unmounted file system, with its free ranges in order.
pub(crate) fn space(node: &str, header: &Header) -> Result<std::result::Result<Space, String>> {
    if let Some(reason) = header.refusal() {
        return Ok(Err(reason.to_owned()));
    }
    let layout = Layout::read(node, header)?;
    let output = run("dumpe2fs", PACKAGE, &[], node, "")?;
    if !output.success {
        return Ok(Err(output.reason("dumpe2fs")));
    }
    Ok(Ok(Space {
        free: free_ranges(&output.text(), header.block_size()?),
        ..layout.space(hidden_ranges(node, header)?)
    }))
}

/// `  Free blocks: 4854-32767, 40000`, for each group.
fn free_ranges(text: &str, size: u64) -> Vec<Range<u64>> {
    let mut free: Vec<Range<u64>> = Vec::new();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("  Free blocks: "));
    for part in lines.flat_map(|line| line.split(", ")) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
            free.push(first.saturating_mul(size)..last.saturating_add(1).saturating_mul(size));
        }
    }
    free.sort_by_key(|range| range.start);
    free
}

/// Returns the blocks of `spans` from the block `first` on, in order. They may be too many to keep.
fn blocks(spans: &Spans, first: u64, size: u64) -> impl Iterator<Item = u64> {
    let mut next = first;
    let behind = first.saturating_mul(size)..u64::MAX;
    spans.within(&behind).flat_map(move |span| {
        let blocks = next.max(span.offset / size)..span.range().end.div_ceil(size);
        next = next.max(blocks.end);
        blocks
    })
}

/// Parses `Block 1000 marked in use`, `Block 1001 not in use`: returns the free blocks, or `None` if there are no such
/// lines. There is a line for each block, so that the output may be too much to keep.
fn free_blocks(output: &mut dyn BufRead) -> io::Result<Option<Ranges>> {
    let mut free = None;
    let mut line = Vec::new();
    while sandboxed::read_field(output, b'\n', &mut line)? > 0 {
        if let Some(rest) = line.strip_prefix(b"Block ") {
            let free: &mut Ranges = free.get_or_insert_default();
            let block = rest.strip_suffix(b" not in use\n").and_then(number);
            free.extend(block.map(|block| block..block.saturating_add(1)));
        }
        line.clear();
    }
    Ok(free)
}

/// `1000<TAB>12`: a block and its inode.
fn owners_of_blocks(text: &str) -> BTreeMap<u64, u64> {
    text.lines()
        .filter_map(|line| {
            let (block, inode) = line.split_once('\t')?;
            Some((block.parse().ok()?, inode.parse().ok()?))
        })
        .collect()
}

/// Finds the owners of `spans` of an unmounted file system.
pub fn owners(node: &str, spans: &Spans, all_links: bool) -> Result<OwnersFound> {
    let header = match Header::read(node)? {
        Ok(header) => header,
        Err(reason) => return Ok(OwnersFound::nothing(reason)),
    };
    if let Some(reason) = header.refusal() {
        return Ok(OwnersFound::nothing(reason));
    }
    let debugfs = Debugfs(node);
    if header.has("mmp") {
        let text = debugfs.run("dump_mmp\n")?.text();
        if let Some(reason) = protected(&text) {
            return Ok(OwnersFound::nothing(reason));
        }
    }
    let size = header.block_size()?;
    if size == 0 {
        bail!("dumpe2fs says that blocks have no bytes");
    }
    let layout = Layout::read(node, &header)?;
    let mut result = OwnersFound::default();
    let mut left = spans.clone();
    result.owned = layout.take(&mut left);
    free(&debugfs, size, &mut left, &mut result)?;

    let mut found = Vec::new();
    let hidden = header.hidden();
    let inodes: Vec<u64> = hidden.iter().map(|(inode, _)| *inode).collect();
    found.extend(take(&mut left, &debugfs.extents(&inodes)?, size));
    let (owned, failure) = debugfs.by_block(&mut left, size)?;
    found.extend(owned);
    if let Some(error) = failure {
        result.reason = Some(format!(
            "or a file whose inode is on a bad block as well ({error})"
        ));
        let count = header.number("Inode count")?;
        found.extend(debugfs.search(&mut left, size, count)?);
    }

    let is_hidden = |inode: u64| hidden.iter().find(|(hidden, _)| *hidden == inode);
    let wanted: BTreeSet<u64> = found
        .iter()
        .map(|(_, inode, _)| *inode)
        .filter(|inode| is_hidden(*inode).is_none())
        .collect();
    let list = |folders: &[u64], see: &mut DirVisitor<'_>| debugfs.list(folders, see);
    let paths = walk::paths(ROOT, &wanted, all_links, list)?;
    for (span, inode, file_offset) in found {
        let owner = match is_hidden(inode) {
            Some((_, what)) => Owner::Metadata { what, group: None },
            None => Owner::File {
                paths: paths.get(&inode).cloned().unwrap_or_default(),
                inode,
                file_offset,
                open_by: Vec::new(),
            },
        };
        result.owned.push(Owned { span, owner });
    }
    result.unknown(&left, |_| None);
    Ok(result)
}

fn free(debugfs: &Debugfs, size: u64, left: &mut Spans, result: &mut OwnersFound) -> Result<()> {
    let commands: Vec<_> = left
        .iter()
        .map(|span| {
            let blocks = span.offset / size..span.range().end.div_ceil(size);
            format!("testb {} {}\n", blocks.start, blocks.end - blocks.start)
        })
        .collect();
    let commands = commands.concat();
    if commands.is_empty() {
        return Ok(());
    }
    let mut free = None;
    let output = debugfs.read_with_bitmaps(&commands, |output| {
        free = free_blocks(output)?;
        Ok(())
    })?;
    let Some(free) = free else {
        result.reason = Some(format!(
            "free space is unknown ({}): a bitmap may be on a bad block",
            output.error.trim()
        ));
        return Ok(());
    };
    let bytes =
        |blocks: &Range<u64>| blocks.start.saturating_mul(size)..blocks.end.saturating_mul(size);
    let parts = free.iter().flat_map(|blocks| left.take(&bytes(blocks)));
    let parts: Spans = parts.collect();
    result.owned.extend(parts.iter().map(|span| Owned {
        span,
        owner: Owner::Free,
    }));
    Ok(())
}

/// Returns why multiple mount protection, from `dump_mmp`, forbids reading, if so.
fn protected(text: &str) -> Option<String> {
    /// `EXT4_MMP_SEQ_CLEAN`.
    const CLEAN: &str = "ff4d4d50";
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let sequence = value("sequence: ")?.trim();
    let by = value("node_name: ").unwrap_or("another machine").trim();
    // Any bytes may be in the image.
    let by = printable(by);
    (sequence != CLEAN).then(|| {
        format!("its multi-mount protection says that {by} has it mounted, or had when it crashed: mount it, or run e2fsck, where it is")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs;
    use proptest::prelude::*;

    const HEADER: &str = "Filesystem features:      has_journal ext_attr mmp\nFilesystem state:         clean\n\
        First block:              0\nBlock size:               4096\nBlocks per group:         32768\n\
        Inode size:               256\nInodes per group:         25600\nInode blocks per group:   1600\n\
        Journal inode:            8\nUser quota inode:         3\nOrphan file inode:        13\n";

    fn one(span: &Span) -> Spans {
        std::iter::once(span.clone()).collect()
    }

    fn header() -> Header {
        Header::parse(HEADER)
    }

    #[test]
    fn owner_is_found_in_an_image() {
        // Skipped if there are no e2fsprogs.
        let programs = ["mkfs.ext4", "debugfs", "dumpe2fs"].map(programs::path);
        if !programs.iter().all(|program| program.is_absolute()) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let image = at("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(64 << 20).unwrap();
        std::fs::create_dir(at("tree")).unwrap();
        std::fs::write(at("tree/file"), vec![7; 65536]).unwrap();
        let made = std::process::Command::new(&programs[0])
            .args(["-q", "-F", "-b", "4096", "-d"])
            .args([at("tree"), image.clone()])
            .status();
        assert!(made.unwrap().success());

        let node = image.to_str().unwrap();
        // The first inode behind lost+found, or behind the orphan file.
        let hidden = Header::read(node).unwrap().unwrap().hidden();
        let inode = 12 + u64::from(hidden.iter().any(|(inode, _)| *inode == 12));
        let extents = Debugfs(node).extents(&[inode]).unwrap();
        let start = extents[0].1[0].blocks.start * 4096;
        let span = Span::made_up(start + 4608, 512);
        let found = owners(node, &one(&span), false).unwrap();
        let owner = Owner::File {
            paths: vec!["/file".to_owned()],
            inode,
            file_offset: Some(4608),
            open_by: Vec::new(),
        };
        assert_eq!(found.owned, [Owned { span, owner }]);
    }

    #[test]
    fn unclean_file_system_is_refused() {
        assert_eq!(header().refusal(), None);
        for (from, to, says) in [
            ("ext_attr", "needs_recovery", "journal"),
            ("ext_attr", "journal_dev", "elsewhere"),
            ("clean", "not clean", "e2fsck"),
            ("clean", "not clean with errors", "e2fsck"),
        ] {
            let reason = Header::parse(&HEADER.replace(from, to)).refusal().unwrap();
            assert!(reason.contains(says), "{reason}");
        }
        assert_eq!(
            Header::parse(&HEADER.replace("clean", "clean with errors")).refusal(),
            None
        );
        let mmp = "block_number: 4851\nsequence: ff4d4d50\nnode_name: vm\n";
        assert_eq!(protected(mmp), None);
        let escapes = mmp.replace("ff4d", "004d").replace("vm", "\x1b[2Jvm");
        assert!(protected(&escapes).unwrap().contains(r"\u{1b}[2Jvm has it"));
        assert!(
            protected(&mmp.replace("ff4d", "004d"))
                .unwrap()
                .contains("vm")
        );
        assert_eq!(
            protected("dump_mmp: MMP: not active on this filesystem.\n"),
            None
        );
    }

    #[test]
    fn header_names_hidden_inodes() {
        let hidden = header().hidden();
        assert!(hidden.contains(&(8, "journal")));
        assert!(hidden.contains(&(13, "orphan file")));
        assert!(!hidden.iter().any(|(_, what)| *what == "project quota"));
    }

    /// The output of `dumpe2fs -g` for a file system of 300 MiB.
    const GROUPS: &str = "\ngroup:block:super:gdt:bbitmap:ibitmap:itable\n0:0:0:1-1:39:42:45\n\
        1:32768:32768:32769-32769:40:43:1645\n2:65536:-1:-1:41:44:3245\n";

    #[test]
    fn kernel_is_not_asked_about_groups_without_bitmap() {
        let refused = |header: &Header, offset| {
            let layout = Layout::parse(GROUPS, header).unwrap();
            let refused = layout.groups_without_bitmap(&one(&Span::made_up(offset, 512)));
            let ends = refused.iter().map(|range| (range.start, range.end));
            ends.collect::<Vec<_>>()
        };
        const GROUP: u64 = 32768 * 4096;
        let second = 40 * 4096 + 512;
        assert_eq!(refused(&header(), second), [(GROUP, 2 * GROUP)]);
        // An inode bitmap.
        assert_eq!(refused(&header(), 43 * 4096), []);
        // With small blocks, the kernel reads the bitmaps of two groups at once.
        let small = HEADER
            .replace("size:               4096", "size:               1024")
            .replace("First block:              0", "First block:              1");
        let group = 32768 * 1024;
        let both = (1024, 1024 + 2 * group);
        assert_eq!(refused(&Header::parse(&small), 40 * 1024), [both]);
    }

    #[test]
    fn inodes_on_bad_blocks_are_found() {
        let layout = Layout::parse(GROUPS, &header()).unwrap();
        let inodes = |offset, length| {
            let bad = one(&Span::made_up(offset, length));
            let inodes = layout.inodes_on(&bad);
            inodes
                .iter()
                .map(|range| (range.start, range.end))
                .collect::<Vec<_>>()
        };
        // A sector of the second block of the first table; the ends of two blocks of the third one; a bitmap.
        assert_eq!(inodes(46 * 4096 + 512, 512), [(17, 33)]);
        assert_eq!(inodes(3246 * 4096 - 512, 1024), [(51201, 51233)]);
        assert_eq!(inodes(41 * 4096, 512), []);
    }

    #[test]
    fn group_metadata_parses() {
        let layout = Layout::parse(GROUPS, &header()).unwrap();
        let split = |offset, length| {
            let mut rest = one(&Span::made_up(offset, length));
            (layout.take(&mut rest), rest)
        };
        // The last block of a table, the first of the next one, and the first after that.
        let (owned, rest) = split(1644 * 4096, 8192);
        let group = |owned: &Owned| match owned.owner {
            Owner::Metadata { what, group } => (what, group),
            _ => panic!(),
        };
        let groups: Vec<_> = owned.iter().map(group).collect();
        assert_eq!(groups, [("inode table", Some(0)), ("inode table", Some(1))]);
        assert!(rest.is_empty());
        let (owned, rest) = split(4844 * 4096, 8192);
        assert_eq!(group(&owned[0]), ("inode table", Some(2)));
        assert_eq!(rest, one(&Span::made_up(4845 * 4096, 4096)));
        let (owned, _) = split(41 * 4096, 512);
        assert_eq!(group(&owned[0]), ("block bitmap", Some(2)));
        let (owned, _) = split(32769 * 4096, 512);
        assert_eq!(group(&owned[0]), ("group descriptors", Some(1)));
        let (owned, rest) = split(65536 * 4096, 4096);
        assert!(owned.is_empty() && !rest.is_empty());
        assert!(Layout::parse("0:0:0:1-1:39:42\n", &header()).is_err());
        assert!(Layout::parse("0:0:0:1-1:39:42:45\n", &Header::parse("")).is_err());
    }

    #[test]
    fn stat_output_parses_to_extents() {
        let head =
            "Inode: 12   Type: regular    Mode:  0644   Flags: 0x80000\nUser:     0   Size: 9000\n";
        let output = "File ACL: 4853\nLinks: 2   Blockcount: 5864\nEXTENTS:\n\
            (ETB0):33796, (0-1):100-101, (5[u]):200, (7-8[u]):300-301\n";
        let extent = |logical, blocks| InodeExtent { logical, blocks };
        let extents = [
            extent(None, 4853..4854),
            extent(None, 33796..33797),
            extent(Some(0), 100..102),
            extent(Some(5), 200..201),
            extent(Some(7), 300..302),
        ];
        assert_eq!(parse_stat(&format!("{head}{output}")), extents);
        let output = "File ACL: 0\nBLOCKS:\n(0-11):1-12, (IND):13, (12-20):14-22, (DIND):30, (IND):31\nTOTAL: 24\n";
        assert_eq!(
            parse_stat(&format!("{head}{output}")),
            [
                extent(Some(0), 1..13),
                extent(None, 13..14),
                extent(Some(12), 14..23),
                extent(None, 30..31),
                extent(None, 31..32)
            ]
        );
        assert!(
            parse_stat("Inode: 17   Type: bad type    Flags: 0x0\nFile ACL: 0\nBLOCKS:\n\n")
                .is_empty()
        );
    }

    #[test]
    fn user_text_is_not_parsed_as_extents() {
        let link = |size, rest| {
            let head =
                "Inode: 15   Type: symlink    Mode:  0777   Flags: 0x0\nUser:     0   Size: ";
            parse_stat(&format!("{head}{size}\nFile ACL: 7\n{rest}"))
        };
        let own = InodeExtent {
            logical: None,
            blocks: 7..8,
        };
        let target = "Fast link dest: \"x\nFile ACL: 9\nEXTENTS:\n(0):1234\"\n";
        assert_eq!(link(19, target), std::slice::from_ref(&own));
        let block = InodeExtent {
            logical: Some(0),
            blocks: 20..21,
        };
        let attribute = "Extended attributes:\n  user.\nEXTENTS:\n(0):1234 (1)\nEXTENTS:\n(0):20\n";
        assert_eq!(link(70, attribute), [own.clone(), block]);
        let inline = "Inode: 15   Type: regular    Flags: 0x10000000\nFile ACL: 7\n  user.\nEXTENTS:\n(0):1234 (1)\n";
        assert_eq!(parse_stat(inline), [own]);
    }

    #[test]
    fn directory_listing_parses() {
        let output = b"debugfs 1.47.2 (1-Jan-2025)\ndebugfs: ls -p <2>\n/2/040755/0/0/.//\n/12/040755/0/0/d\n13\t//\n\
            /14/100644/0/0/f\ndebugfs: ls -p <9>\n\xff/9000/\n\ndebugfs: ls -p <12>\n/13/120777/0/0/e/2/\n/cut";
        let mut seen = Vec::new();
        entry(&mut &output[..], &mut |folder, entry| {
            seen.push((folder, entry.inode, entry.name, entry.folder));
        })
        .unwrap();
        assert_eq!(
            seen,
            [
                (2, 2, b".".to_vec(), true),
                (2, 12, b"d\n13\t".to_vec(), true),
                (2, 14, b"f\ndebugfs: ls -p <9>\n\xff".to_vec(), false),
                (12, 13, b"e".to_vec(), false),
            ]
        );
    }

    #[test]
    fn free_blocks_parse() {
        let output = "Free blocks:              67776\nGroup 0: (Blocks 0-32767)\n  Free blocks: 4-5, 9\n\
            \x20 Free inodes: 16-25600\n  Free blocks: \n";
        assert_eq!(free_ranges(output, 1024), [4096..6144, 9216..10240]);
    }

    #[test]
    fn testb_and_icheck_output_parses() {
        let output =
            "debugfs: testb 3 3\nBlock 3 marked in use\nBlock 4 not in use\nBlock 5 not in use\n";
        let free = free_blocks(&mut output.as_bytes()).unwrap();
        assert_eq!(free, Some(Ranges::from_iter(std::iter::once(4..6))));
        assert_eq!(
            free_blocks(&mut &b"debugfs: testb 3 1\n"[..]).unwrap(),
            None
        );
        let output = "debugfs: icheck 10 11\nBlock\tInode number\n10\t7\n11\t<block not found>\n";
        assert_eq!(owners_of_blocks(output), [(10, 7)].into());
    }

    #[test]
    fn blocks_of_large_ranges_are_not_collected() {
        let spans: Spans = [
            Span::made_up(100, 8),
            Span::made_up(120, 8),
            Span::made_up(132, 1 << 60),
        ]
        .into_iter()
        .collect();
        let some = |first| blocks(&spans, first, 16).take(3).collect::<Vec<_>>();
        assert_eq!(some(0), [6, 7, 8]);
        assert_eq!(some(7), [7, 8, 9]);
        assert_eq!(some(1 << 40), [1 << 40, (1 << 40) + 1, (1 << 40) + 2]);
        assert!(some(u64::MAX / 2).is_empty());
    }

    proptest! {
        /// Each byte is either taken with its offset in the file or left.
        #[test]
        fn each_byte_is_taken_once(
            offset in 0_u64..100, length in 1_u64..100, first in 0_u64..8, count in 1_u64..8, logical in 0_u64..4,
        ) {
            let size = 16;
            let mut left = one(&Span::made_up(offset, length));
            let extents = vec![(5, vec![InodeExtent { logical: Some(logical), blocks: first..first + count }])];
            let found = take(&mut left, &extents, size);
            let mut bytes: Vec<u64> = left.iter().flat_map(|span| span.range()).collect();
            for at in &bytes {
                prop_assert!(!(first * size..(first + count) * size).contains(at));
            }
            for (part, inode, file) in found {
                prop_assert_eq!(inode, 5);
                prop_assert_eq!(file.unwrap() - logical * size, part.offset - first * size);
                prop_assert_eq!(part.disk_offset, part.offset + 1000);
                bytes.extend(part.range());
            }
            bytes.sort_unstable();
            prop_assert_eq!(bytes, (offset..offset + length).collect::<Vec<_>>());
        }
    }
}
