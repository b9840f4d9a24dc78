// SPDX-License-Identifier: GPL-2.0

//! Which lines of the driver the selftests execute.
//!
//! A plugin of QEMU writes each block of instructions of a module that is executed, with its address. The driver is loaded and
//! unloaded many times, each time at other addresses: the blocks are found in rust_pmem.ko by their bytes, without those that
//! the kernel changes when it loads a module. The module is that of every other test, with no instrumentation.
//!
//! Lines are those that the compiler names for instructions (DWARF). A line that it has optimised away has none, and does not
//! count.

use crate::markdown::table;
use crate::results::{Activity, Outcome, Results, TestResult};
use anyhow::{Context, Result, ensure};
use comfy_table::CellAlignment;
use gimli::{EndianSlice, LittleEndian, RelocateReader, SectionId};
use object::{
    Object, ObjectSection, ObjectSymbol, Relocation, RelocationTarget, SectionIndex, SectionKind,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Path of the list from the root of the checkout.
pub const LIST: &str = "tests/coverage.toml";
/// Ending of the names of the files that the plugin writes.
pub const BLOCKS: &str = "blocks";
/// A block with so many bytes that are known identifies its place.
const UNIQUE: usize = 16;
const PAGE: u64 = 4096;
/// The section that lists each `endbr64` to be overwritten, and its length.
const SEALED: &str = ".ibt_endbr_seal";
const ENDBR64: usize = 4;

/// Lines that no selftest executes, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    lines: Vec<Explained>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explained {
    /// Path of the source from the root of the checkout.
    file: PathBuf,
    /// Whole lines, which the source has exactly once.
    text: String,
    why: String,
}

impl Explained {
    /// Returns the numbers of its lines.
    fn lines(&self, source: &str) -> Result<Range<u64>> {
        let text = self.text.trim();
        let found = source.matches(text).count();
        ensure!(
            found == 1 && !text.is_empty(),
            "{} has this text {found} times, not once: {text}",
            self.file.display()
        );
        ensure!(
            !self.why.trim().is_empty(),
            "{}: there is no reason for {text}",
            self.file.display()
        );
        let before = source.find(text).unwrap_or(0);
        let start = source[..before].matches('\n').count() as u64 + 1;
        Ok(start..start + text.lines().count() as u64)
    }
}

/// Why lines of a source are not executed.
struct Reason {
    file: PathBuf,
    lines: Range<u64>,
    why: String,
}

/// Reads the list.
fn reasons(top: &Path) -> Result<Vec<Reason>> {
    let text = fs::read_to_string(top.join(LIST)).context(LIST)?;
    let read = |explained: Explained| {
        let source = fs::read_to_string(top.join(&explained.file))
            .with_context(|| explained.file.display().to_string())?;
        Ok(Reason {
            lines: explained.lines(&source).context(LIST)?,
            file: explained.file,
            why: explained.why,
        })
    };
    let list = toml::from_str::<List>(&text).context(LIST)?;
    list.lines.into_iter().map(read).collect()
}

/// Checks that the list fits the driver's sources.
pub fn lint(top: &Path, results: &mut Results) {
    let clock = results.running("coverage");
    let (outcome, lines) = match reasons(top) {
        Ok(_) => (Outcome::Passed, Vec::new()),
        Err(error) => (
            Outcome::Failed(format!("{LIST} does not fit the driver's sources")),
            vec![format!("{error:#}")],
        ),
    };
    results.spend(Activity::Lints, clock.time());
    results.add(TestResult {
        about: "each line that no selftest executes is there".into(),
        time: clock.time(),
        lines,
        ..TestResult::new("coverage", outcome)
    });
}

/// Returns whether a line counts: not the begin of a function, which has often been copied to all callers, nor its end.
fn counts(line: &str) -> bool {
    line.contains(char::is_alphanumeric) && !line.split_whitespace().any(|word| word == "fn")
}

/// Whether each line of the driver's sources was executed.
type Lines = BTreeMap<PathBuf, BTreeMap<u64, bool>>;

/// The lines that were executed, and those that were not and should.
pub struct Coverage {
    lines: Lines,
    reasons: Vec<Reason>,
}

impl Coverage {
    /// Reads the blocks that the plugin has written into `folder`, for the module of this checkout.
    pub fn read(top: &Path, folder: &Path) -> Result<Self> {
        let path = top.join("rust_pmem.ko");
        let data = fs::read(&path).with_context(|| path.display().to_string())?;
        let mut module = Module::parse(&data, top)?;
        for log in glob::glob(&format!("{}/*.{BLOCKS}", folder.display()))? {
            let log = log?;
            let text = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
            module.mark(&parse_blocks(&text).with_context(|| log.display().to_string())?);
        }
        let mut lines = module.lines();
        for (file, lines) in &mut lines {
            let source =
                fs::read_to_string(top.join(file)).with_context(|| file.display().to_string())?;
            let source: Vec<&str> = source.lines().collect();
            lines.retain(|line, _| {
                let line = usize::try_from(line - 1).ok();
                line.and_then(|at| source.get(at))
                    .is_some_and(|line| counts(line))
            });
        }
        Ok(Self {
            lines,
            reasons: reasons(top)?,
        })
    }

    /// Returns the lines that were not executed, for no reason.
    pub fn missing(&self) -> impl Iterator<Item = (&Path, u64)> {
        let lines = self.lines.iter().flat_map(|(file, lines)| {
            let missing = lines.iter().filter(|(_, executed)| !**executed);
            missing.map(move |(line, _)| (file.as_path(), *line))
        });
        lines.filter(|(file, line)| self.reason(file, *line).is_none())
    }

    fn reason(&self, file: &Path, line: u64) -> Option<&Reason> {
        let is_for = |reason: &&Reason| reason.file == file && reason.lines.contains(&line);
        self.reasons.iter().find(is_for)
    }

    /// Returns the first lines of what has a reason and was executed nevertheless, all of it.
    pub fn superfluous(&self) -> impl Iterator<Item = (&Path, u64)> {
        let is_executed = |reason: &&Reason| {
            let Some(lines) = self.lines.get(&reason.file) else {
                return false;
            };
            let mut its = lines.range(reason.lines.clone()).peekable();
            its.peek().is_some() && its.all(|(_, executed)| *executed)
        };
        let found = self.reasons.iter().filter(is_executed);
        found.map(|reason| (reason.file.as_path(), reason.lines.start))
    }

    /// Counts the lines of each file.
    pub fn summary(&self) -> comfy_table::Table {
        let mut table = table(["file", "lines", "executed", "explained", "missing"]);
        let missing: Vec<&Path> = self.missing().map(|(file, _)| file).collect();
        let mut row = |name: &str, lines: usize, executed: usize, missing: usize| {
            let explained = lines - executed - missing;
            let counts = [lines, executed, explained, missing].map(|count| count.to_string());
            table.add_row([&[name.to_owned()], counts.as_slice()].concat());
        };
        let mut sum = (0, 0);
        for (file, lines) in &self.lines {
            let executed = lines.values().filter(|executed| **executed).count();
            let missing = missing.iter().filter(|other| *other == file).count();
            row(&file.display().to_string(), lines.len(), executed, missing);
            sum = (sum.0 + lines.len(), sum.1 + executed);
        }
        row("all", sum.0, sum.1, missing.len());
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// Writes PATH.md, and PATH.info, which lcov's genhtml reads.
    pub fn write(&self, top: &Path, path: &Path) -> Result<()> {
        for (extension, text) in [("md", self.markdown(top)?), ("info", self.info(top))] {
            let path = path.with_extension(extension);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn markdown(&self, top: &Path) -> Result<String> {
        let mut text = format!(
            "<!-- made by `make coverage` -->\n# Lines of the driver that the selftests execute\n\n{}\n",
            self.summary()
        );
        for (file, lines) in &self.lines {
            let source = fs::read_to_string(top.join(file))?;
            let source: Vec<&str> = source.lines().collect();
            let not = lines.iter().filter(|(_, executed)| !**executed);
            for (index, (line, _)) in not.enumerate() {
                if index == 0 {
                    let _ = write!(text, "\n## {}\n\n", file.display());
                }
                let code = usize::try_from(line - 1).ok().and_then(|at| source.get(at));
                let reason = self.reason(file, *line);
                let _ = writeln!(
                    text,
                    "* {line}: `{}`: {}",
                    code.map_or("", |code| code.trim()),
                    reason.map_or("**missing**", |reason| reason.why.as_str())
                );
            }
        }
        Ok(text)
    }

    fn info(&self, top: &Path) -> String {
        let mut text = String::new();
        for (file, lines) in &self.lines {
            let _ = writeln!(text, "SF:{}", top.join(file).display());
            for (line, executed) in lines {
                let _ = writeln!(text, "DA:{line},{}", u8::from(*executed));
            }
            text.push_str("end_of_record\n");
        }
        text
    }
}

/// A block of instructions that was executed.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    address: u64,
    bytes: Vec<u8>,
}

fn parse_blocks(text: &str) -> Result<Vec<Block>> {
    // The last line is incomplete if the guest lost its power.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| {
        let (address, bytes) = line.split_once(' ')?;
        let bytes = (0..bytes.len()).step_by(2).map(|at| {
            let byte = bytes.get(at..at + 2)?;
            u8::from_str_radix(byte, 16).ok()
        });
        Some(Block {
            address: u64::from_str_radix(address, 16).ok()?,
            bytes: bytes.collect::<Option<_>>()?,
        })
    };
    let lines = complete.lines();
    lines
        .map(|line| parse(line).with_context(|| format!("no block: {line}")))
        .collect()
}

/// Sections of instructions, which the kernel loads together, at the begin of a page.
#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
    /// Bytes that the kernel may change when it loads the module.
    changed: BTreeSet<usize>,
    executed: Vec<bool>,
}

impl Image {
    /// Returns how many bytes of a block are known, if it can be at this offset.
    fn matches(&self, offset: usize, block: &[u8]) -> Option<usize> {
        let here = self.bytes.get(offset..)?.get(..block.len())?;
        let mut known = 0;
        for (index, (own, other)) in here.iter().zip(block).enumerate() {
            match self.changed.contains(&(offset + index)) {
                true => {}
                false if own == other => known += 1,
                false => return None,
            }
        }
        Some(known)
    }

    /// Marks the blocks of this image as executed.
    fn mark(&mut self, blocks: &[Block]) {
        let offsets = |block: &Block| {
            let first = usize::try_from(block.address % PAGE).unwrap_or(0);
            (first..self.bytes.len()).step_by(PAGE as usize)
        };
        let mut bases = BTreeSet::new();
        for block in blocks {
            for offset in offsets(block) {
                if self.matches(offset, &block.bytes) >= Some(UNIQUE) {
                    bases.insert(block.address.wrapping_sub(offset as u64));
                }
            }
        }
        for block in blocks {
            for offset in offsets(block) {
                let base = block.address.wrapping_sub(offset as u64);
                if bases.contains(&base) && self.matches(offset, &block.bytes).is_some() {
                    self.executed[offset..offset + block.bytes.len()].fill(true);
                }
            }
        }
    }
}

/// A line of a source, and the addresses of instructions for it.
struct Line {
    file: PathBuf,
    line: u64,
    addresses: Range<u64>,
}

/// The driver's module. Addresses in it: that of each image, and an offset.
struct Module {
    images: [Image; 2],
    lines: Vec<Line>,
}

/// The address of an image.
fn base(image: usize) -> u64 {
    (image as u64 + 1) << 32
}

/// The relocations of a section of DWARF: the values at offsets.
#[derive(Debug, Default)]
struct Relocations(HashMap<usize, u64>);

impl gimli::Relocate<usize> for &Relocations {
    fn relocate_address(&self, offset: usize, value: u64) -> gimli::Result<u64> {
        Ok(self.0.get(&offset).copied().unwrap_or(value))
    }

    fn relocate_offset(&self, offset: usize, value: usize) -> gimli::Result<usize> {
        Ok(match self.0.get(&offset) {
            Some(value) => usize::try_from(*value).unwrap_or(usize::MAX),
            None => value,
        })
    }
}

impl Module {
    /// Parses the module, which was built in the folder `top`.
    fn parse(data: &[u8], top: &Path) -> Result<Self> {
        let file = object::File::parse(data)?;
        let mut images = [Image::default(), Image::default()];
        let mut addresses = HashMap::new();
        // As kernel/module/main.c lays them out.
        for section in file.sections() {
            if section.kind() != SectionKind::Text {
                continue;
            }
            let index = usize::from(section.name()?.starts_with(".init"));
            let image = &mut images[index];
            let align = usize::try_from(section.align())?.max(1);
            let start = image.bytes.len().next_multiple_of(align);
            image.bytes.resize(start, 0);
            image.bytes.extend_from_slice(section.data()?);
            for (offset, _) in section.relocations() {
                let at = start + usize::try_from(offset)?;
                // A call that is relocated may become another instruction.
                image.changed.extend(at.saturating_sub(1)..at + 4);
            }
            addresses.insert(section.index(), base(index) + start as u64);
        }
        // The kernel overwrites an `endbr64` that no indirect call needs (apply_seal_endbr).
        if let Some(section) = file.section_by_name(SEALED) {
            for (_, relocation) in section.relocations() {
                let address = relocated(&file, &addresses, &relocation)?.unwrap_or(0);
                for (index, image) in images.iter_mut().enumerate() {
                    if let Some(at) = address.checked_sub(base(index)) {
                        let at = usize::try_from(at)?;
                        image.changed.extend(at..at + ENDBR64);
                    }
                }
            }
        }
        for image in &mut images {
            image.executed = vec![false; image.bytes.len()];
        }
        let lines = source_lines(&file, &addresses, top)?;
        Ok(Self { images, lines })
    }

    fn mark(&mut self, blocks: &[Block]) {
        for image in &mut self.images {
            image.mark(blocks);
        }
    }

    /// Returns whether an instruction at these addresses was executed.
    fn is_executed(&self, addresses: &Range<u64>) -> bool {
        self.images.iter().enumerate().any(|(index, image)| {
            let offset = |address: u64| address.checked_sub(base(index)).map(|at| at as usize);
            let range = offset(addresses.start).zip(offset(addresses.end));
            let executed = range.and_then(|(start, end)| image.executed.get(start..end));
            executed.is_some_and(|bytes| bytes.contains(&true))
        })
    }

    fn lines(&self) -> Lines {
        let mut lines = Lines::new();
        for line in &self.lines {
            let file = lines.entry(line.file.clone()).or_default();
            *file.entry(line.line).or_default() |= self.is_executed(&line.addresses);
        }
        lines
    }
}

/// Returns the target of a relocation, if it is a symbol.
fn relocated(
    file: &object::File<'_>,
    addresses: &HashMap<SectionIndex, u64>,
    relocation: &Relocation,
) -> Result<Option<u64>> {
    let RelocationTarget::Symbol(index) = relocation.target() else {
        return Ok(None);
    };
    let symbol = file.symbol_by_index(index)?;
    let of_section = symbol.section_index().and_then(|at| addresses.get(&at));
    let value = symbol.address() + of_section.copied().unwrap_or(0);
    Ok(Some(value.wrapping_add_signed(relocation.addend())))
}

/// Reads the driver's own lines from DWARF. `addresses` has those of the sections.
fn source_lines(
    file: &object::File<'_>,
    addresses: &HashMap<SectionIndex, u64>,
    top: &Path,
) -> Result<Vec<Line>> {
    let load = |id: SectionId| -> Result<(Vec<u8>, Relocations)> {
        let Some(section) = file.section_by_name(id.name()) else {
            return Ok(Default::default());
        };
        let mut relocations = Relocations::default();
        for (offset, relocation) in section.relocations() {
            if let Some(value) = relocated(file, addresses, &relocation)? {
                relocations.0.insert(usize::try_from(offset)?, value);
            }
        }
        Ok((section.uncompressed_data()?.into_owned(), relocations))
    };
    let sections = gimli::DwarfSections::load(load)?;
    let dwarf = sections.borrow(|(data, relocations)| {
        RelocateReader::new(EndianSlice::new(data, LittleEndian), relocations)
    });
    let mut lines = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let Some(program) = unit.line_program.clone() else {
            continue;
        };
        let folder = unit.comp_dir.as_ref().map(text).transpose()?;
        let mut rows = program.rows();
        let mut last: Option<(u64, Option<PathBuf>, u64)> = None;
        while let Some((header, row)) = rows.next_row()? {
            // If an address has several rows, only the last one has instructions.
            let before = last.take().filter(|(start, ..)| *start < row.address());
            if let Some((start, Some(file), line)) = before {
                lines.push(Line {
                    file,
                    line,
                    addresses: start..row.address(),
                });
            }
            if row.end_sequence() {
                continue;
            }
            let mut path = PathBuf::from(folder.as_deref().unwrap_or_default());
            if let Some(file) = row.file(header) {
                if let Some(folder) = file.directory(header) {
                    path.push(text(&dwarf.attr_string(&unit, folder)?)?);
                }
                path.push(text(&dwarf.attr_string(&unit, file.path_name())?)?);
            }
            let own = path.strip_prefix(top).ok().filter(|path| is_source(path));
            let line = row.line().map_or(0, |line| line.get());
            last = Some((
                row.address(),
                own.filter(|_| line > 0).map(Path::to_path_buf),
                line,
            ));
        }
    }
    Ok(lines)
}

/// Returns whether people have written it.
fn is_source(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.ends_with(".rs") && !name.ends_with("_generated.rs")
}

fn text<R: gimli::Reader>(reader: &R) -> Result<String> {
    Ok(reader.to_string_lossy()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an image of two pages of different bytes; the kernel changes the byte at 4.
    fn image() -> Image {
        let bytes: Vec<u8> = (0..2 * PAGE as usize)
            .map(|at| (at * 7 + at / 256) as u8)
            .collect();
        Image {
            changed: [4].into(),
            executed: vec![false; bytes.len()],
            bytes,
        }
    }

    /// Returns the bytes of a range of the image as a block, as if the image was loaded at an address.
    fn block(loaded: u64, range: Range<usize>) -> Block {
        Block {
            address: loaded + range.start as u64,
            bytes: image().bytes[range].to_vec(),
        }
    }

    /// Returns the offsets that blocks mark.
    fn marked(blocks: &[Block]) -> Vec<usize> {
        let mut image = image();
        image.mark(blocks);
        let executed = image.executed.iter().enumerate();
        executed
            .filter_map(|(at, executed)| executed.then_some(at))
            .collect()
    }

    const LOADED: u64 = 0xffff_ffff_c123_4000;

    #[test]
    fn block_is_found_wherever_the_module_is_loaded() {
        let at = PAGE as usize + 0x123;
        let expected: Vec<usize> = (at..at + 20).collect();
        assert_eq!(marked(&[block(LOADED, at..at + 20)]), expected);
        assert_eq!(marked(&[block(LOADED + 5 * PAGE, at..at + 20)]), expected);
    }

    #[test]
    fn bytes_that_the_kernel_changes_may_differ() {
        let mut changed = block(LOADED, 0..20);
        changed.bytes[4] ^= 0xff;
        assert_eq!(marked(&[changed]), (0..20).collect::<Vec<_>>());
        let mut other = block(LOADED, 0..20);
        other.bytes[5] ^= 0xff;
        assert!(marked(&[other]).is_empty());
    }

    #[test]
    fn short_block_counts_only_beside_a_long_one() {
        let short = || block(LOADED, 100..103);
        assert!(marked(&[short()]).is_empty());
        assert_eq!(
            marked(&[short(), block(LOADED, 200..220)]),
            (100..103).chain(200..220).collect::<Vec<_>>()
        );
        // Another module, where this one was not loaded.
        assert_eq!(
            marked(&[
                block(LOADED + PAGE, 100..103),
                block(LOADED + 8 * PAGE, 200..220)
            ]),
            (200..220).collect::<Vec<_>>()
        );
    }

    #[test]
    fn log_of_a_lost_guest_is_read() {
        let one = Block {
            address: 0x1234,
            bytes: vec![0x0f, 0xae],
        };
        assert_eq!(parse_blocks("1234 0fae\n12").unwrap(), [one]);
        assert_eq!(parse_blocks("").unwrap(), []);
        for bad in ["1234\n", "1234 0fa\n", "x 0f\n", "1234 0g\n"] {
            assert!(parse_blocks(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reason_is_for_whole_lines_that_are_there_once() {
        let explained = |text: &str, why: &str| Explained {
            file: "a.rs".into(),
            text: text.into(),
            why: why.into(),
        };
        let source = "one\n\ttwo\n\tthree\nfour\nthree\n";
        let lines = |text, why| explained(text, why).lines(source).ok();
        assert_eq!(lines("two\n\tthree\n", "a race"), Some(2..4));
        assert_eq!(lines("four", "a race"), Some(4..5));
        assert_eq!(lines("four", ""), None);
        assert_eq!(lines("three", "a race"), None);
        assert_eq!(lines("five", "a race"), None);
        assert_eq!(lines("", "a race"), None);
    }

    fn reason(lines: Range<u64>) -> Reason {
        Reason {
            file: "a.rs".into(),
            lines,
            why: "a race".into(),
        }
    }

    #[test]
    fn reason_for_lines_that_are_all_executed_is_superfluous() {
        let lines = [(1, true), (2, true), (3, false)].into();
        let coverage = Coverage {
            lines: [("a.rs".into(), lines)].into(),
            // The last one is for a line without instructions.
            reasons: [1..3, 2..4, 3..4, 7..8].map(reason).into(),
        };
        let found: Vec<_> = coverage.superfluous().collect();
        assert_eq!(found, [(Path::new("a.rs"), 1)]);
    }

    #[test]
    fn line_without_a_reason_is_missing() {
        let file = PathBuf::from("a.rs");
        let lines = [(1, true), (2, false), (3, false)].into();
        let coverage = Coverage {
            lines: [(file.clone(), lines)].into(),
            reasons: vec![reason(2..3)],
        };
        assert_eq!(
            coverage.missing().collect::<Vec<_>>(),
            [(file.as_path(), 3)]
        );
        let counts = coverage.summary().to_string();
        let row = counts.lines().find(|line| line.contains("a.rs")).unwrap();
        let words: Vec<&str> = row.split_whitespace().filter(|word| *word != "|").collect();
        assert_eq!(words, ["a.rs", "3", "1", "1", "1"]);
    }
}
