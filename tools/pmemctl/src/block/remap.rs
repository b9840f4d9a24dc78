// SPDX-License-Identifier: GPL-2.0

//! Maps byte ranges of a disk to partitions and device-mapper volumes on it, at any depth.
//!
//! Targets that leave each sector at its place are followed: linear, striped, and those that change or check the
//! data on the way (crypt, verity). Volumes of other targets, of md and of bcache are opaque.

use crate::block::devno::DeviceNumber;
use crate::block::topology::Volume;
use crate::programs;
use crate::ranges::common;
use crate::sysfs::{self, Host};
use abstractions::extents::Extent;
use anyhow::{Context, Result, bail};
use rangemap::RangeMap;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

const SECTOR: u64 = 512;

/// A byte range of a disk and its place in a volume.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Span {
    /// The first byte, from the start of the disk.
    pub disk_offset: u64,
    /// The first byte, from the start of the volume.
    pub offset: u64,
    pub length: u64,
}

impl Span {
    /// Bytes of the disk itself.
    pub fn of_disk(offset: u64, length: u64) -> Self {
        Self {
            disk_offset: offset,
            offset,
            length,
        }
    }

    #[cfg(test)]
    pub(crate) fn made_up(offset: u64, length: u64) -> Self {
        Self {
            disk_offset: offset + 1000,
            offset,
            length,
        }
    }

    /// Returns the part in `range` of the volume, with `range` moved to `to`.
    fn within(&self, range: &Range<u64>, to: u64) -> Option<Self> {
        let part = common(&self.range(), range)?;
        Some(Self {
            disk_offset: self.disk_offset + (part.start - self.offset),
            offset: to + (part.start - range.start),
            length: part.end - part.start,
        })
    }

    /// Returns the part in `range` of the volume.
    pub fn cut(&self, range: &Range<u64>) -> Option<Self> {
        self.within(range, range.start)
    }

    /// The bytes of the volume.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.length)
    }
}

/// Ranges of a volume with their places on a disk, in the order of the volume. Each byte is in one of them at most;
/// adjacent ranges are one if they are adjacent on the disk as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(
    /// How far the place on the disk is behind that in the volume, modulo 2^64.
    RangeMap<u64, u64>,
);

impl Spans {
    pub fn iter(&self) -> impl Iterator<Item = Span> {
        self.0.iter().map(|(range, shift)| Span {
            disk_offset: range.start.wrapping_add(*shift),
            offset: range.start,
            length: range.end - range.start,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the parts in `range` of the volume.
    pub fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Span> + use<'_> {
        let range = range.clone();
        self.0
            .overlapping(range.clone())
            .filter_map(move |(own, shift)| {
                let part = common(own, &range)?;
                Some(Span {
                    disk_offset: part.start.wrapping_add(*shift),
                    offset: part.start,
                    length: part.end - part.start,
                })
            })
    }

    /// Returns the parts in an extent of a file, each with its offset in the file.
    pub fn in_extent(&self, extent: &Extent) -> impl Iterator<Item = (Span, u64)> + use<'_> {
        let (logical, physical) = (extent.logical, extent.physical);
        self.within(&(physical..physical.saturating_add(extent.length)))
            .map(move |part| {
                let at = logical.saturating_add(part.offset - physical);
                (part, at)
            })
    }

    /// Removes `range` of the volume.
    pub fn remove(&mut self, range: &Range<u64>) {
        // RangeMap panics for an empty range, here and below.
        if !range.is_empty() {
            self.0.remove(range.clone());
        }
    }

    /// Removes the parts in `range` of the volume, and returns them.
    pub fn take(&mut self, range: &Range<u64>) -> Vec<Span> {
        let taken = self.within(range).collect();
        self.remove(range);
        taken
    }
}

impl Extend<Span> for Spans {
    fn extend<T: IntoIterator<Item = Span>>(&mut self, spans: T) {
        for span in spans.into_iter().filter(|span| span.length > 0) {
            let shift = span.disk_offset.wrapping_sub(span.offset);
            self.0.insert(span.range(), shift);
        }
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<T: IntoIterator<Item = Span>>(spans: T) -> Self {
        let mut all = Self::default();
        all.extend(spans);
        all
    }
}

/// A segment of a volume on `length` bytes of `parent` from `from` on. In the volume these are chunks of equal
/// length: the first at `to`, the following ones `stride` apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    parent: DeviceNumber,
    from: u64,
    length: u64,
    to: u64,
    chunk: u64,
    stride: u64,
}

impl Segment {
    /// A piece that is in one.
    fn whole(parent: DeviceNumber, from: u64, length: u64, to: u64) -> Self {
        Self {
            parent,
            from,
            length,
            to,
            chunk: length,
            stride: length,
        }
    }

    /// Returns its bytes of the parent.
    fn source(&self) -> Range<u64> {
        self.from..self.from.saturating_add(self.length)
    }

    /// Maps `range` of `parent`: returns its parts, each with its offset in the volume.
    pub(crate) fn parts(
        &self,
        parent: DeviceNumber,
        range: Range<u64>,
    ) -> impl Iterator<Item = (Range<u64>, u64)> {
        let source = self.source();
        let end = match parent == self.parent {
            true => range.end.min(source.end),
            false => 0,
        };
        let mut at = range.start.max(source.start);
        std::iter::from_fn(move || {
            let (index, within) = (
                (at - self.from).checked_div(self.chunk)?,
                (at - self.from).checked_rem(self.chunk)?,
            );
            let part = at..end.min(at.saturating_add(self.chunk - within));
            at = part.end;
            let to = self.to.checked_add(index.checked_mul(self.stride)?)?;
            (!part.is_empty()).then_some((part, to + within))
        })
    }
}

/// How a volume is put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    Pieces(Vec<Segment>),
    /// Only in part from these segments: the name of the device-mapper target that makes the rest.
    Mixed(Vec<Segment>, String),
    /// In a way that is not supported: the name of the device-mapper target.
    Opaque(String),
}

impl Layout {
    /// Returns the segments that are known, and the target that makes the rest.
    pub(crate) fn into_parts(self) -> (Vec<Segment>, Option<String>) {
        match self {
            Self::Pieces(pieces) => (pieces, None),
            Self::Mixed(pieces, target) => (pieces, Some(target)),
            Self::Opaque(target) => (Vec::new(), Some(target)),
        }
    }
}

/// Volumes that can't be traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque {
    /// The device-mapper target of the first of them, or the type of its device: `thin`, `raid1`, `bcache`.
    pub target: String,
    /// The volumes, and those on them.
    volumes: Vec<DeviceNumber>,
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target)
    }
}

impl Opaque {
    pub(crate) fn of(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            volumes: Vec::new(),
        }
    }

    /// Adds a volume and those on it.
    pub(crate) fn add(&mut self, volume: &Volume) {
        self.volumes.extend(volume.number());
        volume.children.iter().for_each(|child| self.add(child));
    }

    /// Returns whether the volume is one of these.
    pub fn has(&self, number: DeviceNumber) -> bool {
        self.volumes.contains(&number)
    }
}

/// Where bad bytes of a disk end up.
#[derive(Debug, Clone)]
pub struct AffectedVolume {
    /// The topmost volume that has the bytes.
    pub volume: Volume,
    /// The volume and the devices below it, down to the disk.
    pub chain: Vec<DeviceNumber>,
    pub spans: Spans,
    /// The volumes on it that may have the bytes, but can't be traced.
    pub opaque: Option<Opaque>,
    /// The volumes beside it, or beside one below it, that may have the bytes as well, but can't be traced: a
    /// snapshot beside its origin.
    pub beside: Option<Opaque>,
}

impl AffectedVolume {
    /// Returns why it is not known whether this other volume has the bytes.
    pub fn untraced(&self, number: DeviceNumber) -> Option<&Opaque> {
        let mut all = self.opaque.iter().chain(&self.beside);
        all.find(|opaque| opaque.has(number))
    }

    /// Returns why the owner is unknown, if the bytes may belong to a volume that can't be traced.
    pub fn why_opaque(&self) -> Option<String> {
        let target = self.opaque.as_ref()?;
        Some(format!("its blocks are not followed through {target}"))
    }
}

/// Maps `spans` of a disk to the volumes on it.
pub fn trace(host: &Host, disk: &Volume, spans: Spans) -> Result<Vec<AffectedVolume>> {
    descend(disk, &[], spans, &|child| layout(host, child))
}

fn descend(
    volume: &Volume,
    above: &[DeviceNumber],
    spans: Spans,
    layout: &dyn Fn(&Volume) -> Result<Layout>,
) -> Result<Vec<AffectedVolume>> {
    let mut found = Vec::new();
    let mut left = spans.clone();
    let mut opaque: Option<Opaque> = None;
    let own: DeviceNumber = volume.number()?;
    let chain = [&[own], above].concat();
    for child in &volume.children {
        let (pieces, target) = layout(child)?.into_parts();
        if let Some(target) = target {
            let opaque = opaque.get_or_insert_with(|| Opaque::of(target));
            opaque.add(child);
        }
        let mut its = Spans::default();
        for piece in pieces.iter().filter(|piece| piece.parent == own) {
            for span in spans.within(&piece.source()) {
                let parts = piece.parts(own, span.range());
                its.extend(parts.filter_map(|(range, to)| span.within(&range, to)));
            }
            left.remove(&piece.source());
        }
        if !its.is_empty() {
            found.extend(descend(child, &chain, its, layout)?);
        }
    }
    if let Some(opaque) = &opaque {
        for affected in &mut found {
            match &mut affected.beside {
                Some(beside) => beside.volumes.extend(&opaque.volumes),
                none => *none = Some(opaque.clone()),
            }
        }
    }
    if !left.is_empty() {
        found.push(AffectedVolume {
            volume: volume.clone(),
            chain,
            spans: left,
            opaque,
            beside: None,
        });
    }
    Ok(found)
}

/// Reads how a volume maps to the devices below it.
pub(crate) fn layout(host: &Host, volume: &Volume) -> Result<Layout> {
    let folder = host.path("sys/class/block").join(&volume.kernel_name);
    if folder.join("partition").exists() {
        return partition(&folder).with_context(|| volume.name.clone());
    }
    match dm_table(host, volume)? {
        Some(text) => table(&text).with_context(|| format!("the table of {}", volume.name)),
        // md, bcache, loop …
        None => Ok(Layout::Opaque(volume.kind.clone())),
    }
}

/// Returns the output of `dmsetup table`; `None` if this is no device-mapper volume.
fn dm_table(host: &Host, volume: &Volume) -> Result<Option<String>> {
    let folder = host.path("sys/class/block").join(&volume.kernel_name);
    if !folder.join("dm").exists() {
        return Ok(None);
    }
    programs::output("dmsetup", "dmsetup", &["table", &volume.name]).map(Some)
}

/// Returns the names of the snapshots, on a disk, of the volume of this number and of those that it is on.
///
/// The first write to a chunk of an origin copies the old chunk to the snapshots that have no copy. If the old chunk cannot
/// be read, these snapshots become invalid (`pending_complete` in drivers/md/dm-snap.c).
pub fn snapshots(host: &Host, disk: &Volume, number: DeviceNumber) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    add_snapshots(
        disk,
        number,
        &|volume| Ok(dm_table(host, volume)?.unwrap_or_default()),
        &mut found,
    )?;
    Ok(found)
}

/// Adds the snapshots; returns whether the volume of this number is `volume` or on it.
fn add_snapshots(
    volume: &Volume,
    number: DeviceNumber,
    table: &dyn Fn(&Volume) -> Result<String>,
    found: &mut BTreeSet<String>,
) -> Result<bool> {
    let has_target = |volume: &Volume, target: &str| -> Result<bool> {
        let text = table(volume)?;
        let mut targets = text.lines().map(|line| line.split_whitespace().nth(2));
        Ok(targets.any(|its| its == Some(target)))
    };
    let mut is_below = volume.number()? == number;
    for child in &volume.children {
        if !add_snapshots(child, number, table, found)? {
            continue;
        }
        is_below = true;
        if !has_target(child, "snapshot-origin")? {
            continue;
        }
        for sibling in &volume.children {
            if has_target(sibling, "snapshot")? {
                found.insert(sibling.name.clone());
            }
        }
    }
    Ok(is_below)
}

fn partition(folder: &std::path::Path) -> Result<Layout> {
    let sectors =
        |name: &str| sysfs::number(folder.join(name)).with_context(|| format!("it has no {name}"));
    let disk = sysfs::line(folder.join("../dev")).context("it has no disk")?;
    let (from, length) = (bytes(sectors("start")?)?, bytes(sectors("size")?)?);
    Ok(Layout::Pieces(vec![Segment::whole(
        disk.parse()?,
        from,
        length,
        0,
    )]))
}

fn bytes(sectors: u64) -> Result<u64> {
    sectors.checked_mul(SECTOR).context("a number is too large")
}

/// Parses the output of `dmsetup table` (Documentation/admin-guide/device-mapper).
fn table(text: &str) -> Result<Layout> {
    let mut pieces = Vec::new();
    let mut opaque = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let mut number = || -> Result<u64> {
            let word = words
                .next()
                .with_context(|| format!("{line:?} is too short"))?;
            word.parse()
                .with_context(|| format!("{word:?} is no number"))
        };
        let (start, length) = (bytes(number()?)?, bytes(number()?)?);
        let target = words
            .next()
            .with_context(|| format!("{line:?} is too short"))?;
        let words: Vec<_> = words.collect();
        match segments(target, &words, start, length).with_context(|| line.to_owned())? {
            Some(found) => pieces.extend(found),
            None => {
                opaque.get_or_insert_with(|| target.to_owned());
            }
        }
        // The data is unreadable without its hashes, which are elsewhere.
        if target == "verity" {
            opaque.get_or_insert_with(|| target.to_owned());
        }
    }
    Ok(match opaque {
        None => Layout::Pieces(pieces),
        Some(target) if pieces.is_empty() => Layout::Opaque(target),
        Some(target) => Layout::Mixed(pieces, target),
    })
}

/// Returns the segments of a line of a table; `None` if the target moves sectors in a way that is not supported.
fn segments(target: &str, words: &[&str], start: u64, length: u64) -> Result<Option<Vec<Segment>>> {
    let one = |parent: &str, from: &str| -> Result<Option<Vec<Segment>>> {
        let from = bytes(from.parse()?)?;
        let segment = Segment::whole(parent.parse()?, from, length, start);
        Ok(Some(vec![segment]))
    };
    match (target, words) {
        ("zero" | "error", _) => Ok(Some(Vec::new())),
        ("linear", [parent, from]) => one(parent, from),
        ("striped", words) => stripes(words, start, length).map(Some),
        // CIPHER KEY IV_OFFSET DEVICE OFFSET [OPTION…]
        ("crypt", [_, _, _, parent, from, ..]) => one(parent, from),
        ("flakey", [parent, from, _, _, ..]) | ("dust", [parent, from, _]) => one(parent, from),
        ("snapshot-origin", [parent]) => one(parent, "0"),
        // VERSION DEVICE HASH_DEVICE DATA_BLOCK_SIZE …
        ("verity", [_, parent, _, _, ..]) => one(parent, "0"),
        // A device for reads, and maybe others for writes and flushes.
        ("delay", [parent, from, _, rest @ ..]) if rest.len() % 3 == 0 => {
            match rest.chunks(3).all(|other| other[..2] == [*parent, *from]) {
                true => one(parent, from),
                false => Ok(None),
            }
        }
        ("linear" | "crypt" | "flakey" | "dust" | "snapshot-origin" | "verity" | "delay", _) => {
            bail!("it has an unexpected format")
        }
        _ => Ok(None),
    }
}

/// The pieces of a `striped` target: `COUNT CHUNK DEVICE OFFSET DEVICE OFFSET…`.
fn stripes(words: &[&str], start: u64, length: u64) -> Result<Vec<Segment>> {
    let [count, chunk, devices @ ..] = words else {
        bail!("it is too short");
    };
    let (count, chunk): (u64, u64) = (count.parse()?, bytes(chunk.parse()?)?);
    if count == 0 || chunk == 0 || devices.len() as u64 != count * 2 || length % count != 0 {
        bail!("its stripes do not match its length or devices");
    }
    let stride = chunk.checked_mul(count).context("a number is too large")?;
    let piece = |(index, device): (u64, &[&str])| {
        Ok(Segment {
            parent: device[0].parse()?,
            from: bytes(device[1].parse()?)?,
            length: length / count,
            to: start + index * chunk,
            chunk,
            stride,
        })
    };
    (0..).zip(devices.chunks(2)).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn span(disk_offset: u64, offset: u64, length: u64) -> Span {
        Span {
            disk_offset,
            offset,
            length,
        }
    }

    fn one(disk_offset: u64, offset: u64, length: u64) -> Spans {
        [span(disk_offset, offset, length)].into_iter().collect()
    }

    fn number(text: &str) -> DeviceNumber {
        text.parse().unwrap()
    }

    #[test]
    fn snapshots_of_an_origin_below_are_found() {
        // LVM: the origin and its snapshot are on one hidden volume, the snapshot's copies are on another one.
        let snapshot = || Volume::made_up("v-s", "252:4", Vec::new());
        let crypt = Volume::made_up("c", "252:5", Vec::new());
        let origin = Volume::made_up("v-o", "252:3", vec![crypt]);
        let real = Volume::made_up("v-o-real", "252:1", vec![origin, snapshot()]);
        let copies = Volume::made_up("v-s-cow", "252:2", vec![snapshot()]);
        let other = Volume::made_up("v-x", "252:6", Vec::new());
        let disk = Volume::made_up("pmem0", "259:0", vec![real, copies, other]);
        let table = |volume: &Volume| {
            let text = match volume.name.as_str() {
                "v-o" => "0 8 snapshot-origin 252:1\n",
                "v-s" => "0 8 snapshot 252:1 252:2 P 8\n",
                "c" => "0 8 crypt aes 0 0 252:3 0\n",
                _ => "0 8 linear 259:0 0\n",
            };
            Ok(text.to_owned())
        };
        for (volume, snapshots) in [
            ("252:3", &["v-s"][..]),
            ("252:5", &["v-s"]),
            ("252:4", &[]),
            ("252:6", &[]),
        ] {
            let mut found = BTreeSet::new();
            assert!(add_snapshots(&disk, number(volume), &table, &mut found).unwrap());
            assert!(found.iter().eq(snapshots), "{volume}: {found:?}");
        }
        assert!(!add_snapshots(&disk, number("7:0"), &table, &mut BTreeSet::new()).unwrap());
    }

    #[test]
    fn linear_table_parses() {
        let Layout::Pieces(pieces) = table("0 8 linear 259:0 2048\n8 8 linear 259:1 16\n").unwrap()
        else {
            panic!()
        };
        assert_eq!(
            pieces,
            [
                Segment::whole(number("259:0"), 1 << 20, 4096, 0),
                Segment::whole(number("259:1"), 8192, 4096, 4096)
            ]
        );
    }

    #[test]
    fn striped_table_maps_each_chunk() {
        let Layout::Pieces(pieces) = table("0 32 striped 2 8 259:0 0 259:1 2048").unwrap() else {
            panic!()
        };
        let parts = |piece: &Segment, parent, range| -> Vec<(Range<u64>, u64)> {
            piece.parts(number(parent), range).collect()
        };
        let found = parts(&pieces[0], "259:0", 0..u64::MAX);
        assert_eq!(found, [(0..4096, 0), (4096..8192, 8192)]);
        let start = 1 << 20;
        let found = parts(&pieces[1], "259:1", start + 512..start + 5000);
        assert_eq!(
            found,
            [
                (start + 512..start + 4096, 4608),
                (start + 4096..start + 5000, 12288)
            ]
        );
        assert_eq!(parts(&pieces[1], "259:0", 0..u64::MAX), []);
        // One segment per device, whatever the size.
        let large = format!("0 {} striped 2 8 259:0 0 259:1 0", 1_u64 << 50);
        let Layout::Pieces(pieces) = table(&large).unwrap() else {
            panic!()
        };
        assert_eq!(pieces.len(), 2);
        let last = (1 << 58) - 512..1 << 58;
        let found = parts(&pieces[1], "259:1", last.clone());
        assert_eq!(found, [(last, (1 << 59) - 512)]);
    }

    #[test]
    fn unsupported_table_is_opaque_or_refused() {
        assert_eq!(
            table("0 8 thin-pool 252:1 252:2 128 0").unwrap(),
            Layout::Opaque("thin-pool".into())
        );
        assert_eq!(table("0 8 error").unwrap(), Layout::Pieces(vec![]));
        assert_eq!(
            table("0 8 linear 259:0 0\n8 8 snapshot 252:1 252:2 P 8").unwrap(),
            Layout::Mixed(
                vec![Segment::whole(number("259:0"), 0, 4096, 0)],
                "snapshot".into()
            )
        );
        // Writes go to another device.
        assert_eq!(
            table("0 8 delay 259:0 0 0 259:1 0 500").unwrap(),
            Layout::Opaque("delay".into())
        );
        for text in [
            "0",
            "0 8",
            "0 x linear 259:0 0",
            "0 8 linear 259:0",
            "0 8 linear 259 0",
            "0 8 crypt aes-xts-plain64 00 0 259:0",
            "0 8 delay 259:0 0",
            "0 8 delay 259:0 0 0 259:0",
            "0 8 striped 2 8 259:0 0",
            "0 8 striped 0 8",
            "0 36893488147419103232 linear 259:0 0",
        ] {
            assert!(table(text).is_err(), "{text}");
        }
    }

    #[test]
    fn targets_that_keep_sectors_in_place_are_followed() {
        for line in [
            "0 16 crypt capi:xts(aes)-plain64 :64:logon:x 0 259:0 32768 2 allow_discards sector_size:4096",
            "0 16 flakey 259:0 32768 60 0",
            "0 16 flakey 259:0 32768 0 1 1 drop_writes",
            "0 16 delay 259:0 32768 5",
            "0 16 delay 259:0 32768 5 259:0 32768 10",
            "0 16 dust 259:0 32768 512",
        ] {
            let segment = Segment::whole(number("259:0"), 16 << 20, 8192, 0);
            assert_eq!(
                table(line).unwrap(),
                Layout::Pieces(vec![segment]),
                "{line}"
            );
        }
        let origin = Segment::whole(number("252:3"), 0, 8192, 0);
        assert_eq!(
            table("0 16 snapshot-origin 252:3").unwrap(),
            Layout::Pieces(vec![origin])
        );
        // The hashes of verity may be bad as well.
        let data = Segment::whole(number("259:1"), 0, 8192, 0);
        assert_eq!(
            table("0 16 verity 1 259:1 259:2 4096 4096 2 1 sha256 abcd 0123").unwrap(),
            Layout::Mixed(vec![data], "verity".into())
        );
    }

    #[test]
    fn untraceable_volumes_are_named() {
        let file_system = volume("data", "252:2", vec![]);
        let pool = volume("pool", "252:1", vec![file_system]);
        let part = volume("pmem0p1", "259:1", vec![]);
        let disk = volume("pmem0", "259:0", vec![part, pool]);
        let layout = |child: &Volume| {
            Ok(match child.name.as_str() {
                "pool" => Layout::Opaque("thin-pool".into()),
                _ => Layout::Pieces(vec![Segment::whole(number("259:0"), 0, 4096, 0)]),
            })
        };
        let found = descend(&disk, &[], one(8192, 8192, 512), &layout).unwrap();
        let opaque = found[0].opaque.as_ref().unwrap();
        assert_eq!(opaque.to_string(), "thin-pool");
        assert!(opaque.has(number("252:1")) && opaque.has(number("252:2")));
        assert!(!opaque.has(number("259:1")) && !opaque.has(number("259:0")));
        // The partition can be traced.
        let found = descend(&disk, &[], one(0, 0, 512), &layout).unwrap();
        assert_eq!((found.len(), found[0].volume.name.as_str()), (1, "pmem0p1"));
        assert_eq!(found[0].opaque, None);
    }

    #[test]
    fn snapshot_beside_its_origin_is_named() {
        let table = |child: &Volume| {
            table(match child.name.as_str() {
                "vg-lv-real" => "0 16 linear 259:0 8",
                "vg-lv" => "0 16 snapshot-origin 252:0",
                "vg-snap" => "0 16 snapshot 252:0 252:1 P 8",
                _ => "0 8 linear 252:2 0",
            })
        };
        let part = volume("part", "252:4", vec![]);
        let origin = volume("vg-lv", "252:2", vec![part]);
        let snapshot = volume("vg-snap", "252:3", vec![]);
        for children in [
            vec![origin.clone(), snapshot.clone()],
            vec![snapshot, origin],
        ] {
            let disk = volume(
                "pmem0",
                "259:0",
                vec![volume("vg-lv-real", "252:0", children)],
            );
            let found = descend(&disk, &[], one(4096, 4096, 8192), &table).unwrap();
            let names: Vec<_> = found.iter().map(|one| one.volume.name.as_str()).collect();
            assert_eq!(names, ["part", "vg-lv"]);
            for affected in found {
                // The origin's owners are searched for as usual.
                assert_eq!(affected.why_opaque(), None);
                let untraced = affected.untraced(number("252:3"));
                assert_eq!(untraced.unwrap().to_string(), "snapshot");
                assert_eq!(affected.untraced(number("252:2")), None);
            }
        }
    }

    fn volume(name: &str, number: &str, children: Vec<Volume>) -> Volume {
        Volume::made_up(name, number, children)
    }

    #[test]
    fn spans_descend_to_lowest_volumes() {
        let dm = volume("data", "252:0", vec![]);
        let disk = volume(
            "pmem0",
            "259:0",
            vec![
                volume("pmem0p1", "259:1", vec![dm]),
                volume("pmem0p2", "259:2", vec![]),
            ],
        );
        let layout = |child: &Volume| {
            let (parent, from, length) = match child.name.as_str() {
                "pmem0p1" => ("259:0", 1000, 1000),
                "pmem0p2" => ("259:0", 3000, 1000),
                _ => ("259:1", 100, 200),
            };
            Ok(Layout::Pieces(vec![Segment::whole(
                number(parent),
                from,
                length,
                0,
            )]))
        };
        let volumes = descend(&disk, &[], one(900, 900, 3000), &layout).unwrap();
        let found: Vec<(&str, Vec<Span>)> = volumes
            .iter()
            .map(|one| (one.volume.name.as_str(), one.spans.iter().collect()))
            .collect();
        assert_eq!(
            found,
            [
                ("data", vec![span(1100, 0, 200)]),
                ("pmem0p1", vec![span(1000, 0, 100), span(1300, 300, 700)]),
                ("pmem0p2", vec![span(3000, 0, 900)]),
                ("pmem0", vec![span(900, 900, 100), span(2000, 2000, 1000)]),
            ]
        );
    }

    #[test]
    fn adjacent_spans_merge_if_they_are_adjacent_on_the_disk() {
        let spans: Spans = [
            span(9000, 1000, 100),
            span(9100, 1100, 100),
            span(0, 1200, 0),
        ]
        .into_iter()
        .chain([span(5000, 1200, 100), span(100, 500, 100)])
        .collect();
        let merged = [
            span(100, 500, 100),
            span(9000, 1000, 200),
            span(5000, 1200, 100),
        ];
        assert!(spans.iter().eq(merged));
    }

    proptest! {
        /// Each byte is taken once, with its place on the disk.
        #[test]
        fn taken_bytes_keep_their_place(
            spans in prop::collection::vec((0_u64..9, 0_u64..90, 0_u64..20), 0..9),
            cuts in prop::collection::vec((0_u64..90, 0_u64..40), 0..5),
        ) {
            let mut all = Spans::default();
            let mut places = BTreeMap::new();
            for (disk, offset, length) in spans {
                all.extend([span(disk * 7, offset, length)]);
                places.extend((0..length).map(|at| (offset + at, disk * 7 + at)));
            }
            let bytes = |span: Span| (0..span.length).map(move |at| (span.offset + at, span.disk_offset + at));
            for (start, length) in cuts {
                let range = start..start + length;
                let taken: BTreeMap<_, _> = all.take(&range).into_iter().flat_map(bytes).collect();
                let (cut, rest) = places.into_iter().partition(|(at, _)| range.contains(at));
                places = rest;
                prop_assert_eq!(taken, cut);
            }
            prop_assert_eq!(all.iter().flat_map(bytes).collect::<BTreeMap<_, _>>(), places);
        }

        /// Each byte maps to exactly one place, the one in the layout.
        #[test]
        fn each_byte_maps_to_one_place(
            start in 0_u64..300, length in 1_u64..300, from in 0_u64..300, size in 1_u64..200, to in 0_u64..50,
            chunk in 1_u64..90, gap in 0_u64..90,
        ) {
            let disk = volume("disk", "1:0", vec![volume("child", "1:1", vec![])]);
            let stride = chunk + gap;
            let piece = Segment { parent: number("1:0"), from, to, length: size, chunk, stride };
            let volumes = descend(&disk, &[], one(start, start, length), &|_| {
                Ok(Layout::Pieces(vec![piece.clone()]))
            }).unwrap();
            let mut seen = Vec::new();
            for affected in volumes {
                for span in affected.spans.iter() {
                    for at in 0..span.length {
                        let on_disk = span.disk_offset + at;
                        let there = span.offset + at;
                        seen.push(on_disk);
                        match affected.volume.name.as_str() {
                            "child" => {
                                let place = on_disk - from;
                                prop_assert_eq!(there - to, place / chunk * stride + place % chunk);
                            }
                            _ => {
                                prop_assert_eq!(there, on_disk);
                                prop_assert!(!(from..from + size).contains(&on_disk));
                            }
                        }
                    }
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (start..start + length).collect::<Vec<_>>());
        }
    }
}
