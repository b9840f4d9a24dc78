// SPDX-License-Identifier: GPL-2.0

//! Profiles: which part of an operation takes how many instructions.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::BTreeMap;

/// The instructions of one operation on one target.
#[derive(Debug, Serialize)]
pub struct Profile {
    pub op: String,
    pub target: String,
    /// Instructions of one operation.
    pub parts: BTreeMap<Part, f64>,
    /// Locked instructions among them, which keep other processors from the memory.
    pub locked: BTreeMap<Part, f64>,
    /// Instructions by function, the greatest first.
    pub functions: Vec<(String, f64)>,
}

impl Profile {
    pub fn total(&self) -> f64 {
        self.parts.values().sum()
    }
}

/// The purpose of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    Copy,
    /// Pinning the pages of the program's memory.
    Pages,
    Block,
    Driver,
    /// The rest of the kernel: system call, file.
    Kernel,
    Program,
}

impl Part {
    /// In the order of the table.
    pub const ALL: [Self; 6] = [
        Self::Copy,
        Self::Pages,
        Self::Block,
        Self::Driver,
        Self::Kernel,
        Self::Program,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Pages => "pages of the program",
            Self::Block => "block layer",
            Self::Driver => "driver",
            Self::Kernel => "other kernel",
            Self::Program => "program",
        }
    }

    /// Classifies a function by its name and its module, which is empty for the kernel itself.
    fn of(function: &str, module: &str) -> Self {
        let begins = |names: &[&str]| names.iter().any(|name| function.starts_with(name));
        let copies = [
            "memcpy", "__memcpy", "copy_mc", "rep_movs", "memset", "__memset", "rep_stos",
        ];
        let pages = [
            "iov_iter",
            "gup_",
            "pin_user",
            "unpin_",
            "try_grab",
            "bio_iov_",
            "__bio_release_pages",
            "bio_release_pages",
            "internal_get_user",
            "get_user_pages",
            "folio_",
            "follow_",
            "__get_user_pages",
            "gup_fast",
            "want_pages",
            "__iov_iter",
            "try_get_folio",
            "put_page",
        ];
        let block = [
            "bio_",
            "__bio",
            "blk_",
            "__blk",
            "submit_bio",
            "__submit_bio",
            "blkdev_",
            "__blkdev",
            "bdev_",
            "disk_",
            "part_",
            "update_io_ticks",
            "mempool_",
            "kmem_cache_",
            "should_fail",
            "bdget",
            "blk",
            "bvec_",
        ];
        // rust_pmem has copies of its own, with mangled names.
        if begins(&copies) || module == "rust_pmem" && function.contains("_flushcache") {
            Self::Copy
        } else if module == "nd_pmem" || module == "rust_pmem" {
            Self::Driver
        } else if begins(&pages) {
            Self::Pages
        } else if begins(&block) {
            Self::Block
        } else {
            Self::Kernel
        }
    }
}

/// The functions of a kernel and its modules.
pub struct Symbols(Vec<(u64, String, String)>);

impl Symbols {
    /// Parses lines of `ADDRESS NAME [MODULE]`.
    pub fn new(text: &str) -> Result<Self> {
        let symbol = |line: &str| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let name = words.next()?.to_owned();
            let module = words.next().unwrap_or_default();
            Some((address, name, module.trim_matches(['[', ']']).to_owned()))
        };
        let symbols = text
            .lines()
            .map(|line| symbol(line).with_context(|| format!("a symbol: \"{line}\"")));
        let mut symbols = symbols.collect::<Result<Vec<_>>>()?;
        symbols.sort();
        ensure!(
            symbols.first().is_some_and(|symbol| symbol.0 > 0),
            "the kernel hides the addresses of its functions"
        );
        Ok(Self(symbols))
    }

    /// Finds the function at an address, and its module.
    fn find(&self, address: u64) -> Option<(&str, &str)> {
        let behind = self.0.partition_point(|symbol| symbol.0 <= address);
        let (_, name, module) = self.0.get(behind.checked_sub(1)?)?;
        Some((name, module))
    }
}

/// An operation that was run, which has one section in the plugin's output.
pub struct Done {
    pub op: String,
    pub target: String,
    /// Number of operations in each window.
    pub each: u32,
}

/// Reads the plugin's output: one profile for each operation, in order.
pub fn read(text: &str, done: &[Done], symbols: &Symbols) -> Result<Vec<Profile>> {
    let sections: Vec<&str> = text.split("section ").skip(1).collect();
    ensure!(
        sections.len() == done.len(),
        "{} sections of instructions, {} operations",
        sections.len(),
        done.len()
    );
    let profiles = sections.iter().zip(done);
    profiles
        .map(|(section, Done { op, target, each })| {
            let mut lines = section.lines();
            let windows: u64 = lines.next().unwrap_or_default().parse()?;
            ensure!(windows > 0, "{op} was never done");
            let times = windows as f64 * f64::from(*each);
            let mut parts = BTreeMap::new();
            let mut locked = BTreeMap::new();
            let mut functions = BTreeMap::new();
            for line in lines {
                let words: Vec<&str> = line.split(' ').collect();
                let [address, count, with_lock] = words[..] else {
                    bail!("a block of instructions: \"{line}\"");
                };
                let address = u64::from_str_radix(address, 16)?;
                let count = count.parse::<u64>()? as f64 / times;
                let with_lock = with_lock.parse::<u64>()? as f64 / times;
                let (part, name) = match symbols.find(address).filter(|_| address >> 63 == 1) {
                    None => (Part::Program, "(program)".to_owned()),
                    Some((name, "")) => (Part::of(name, ""), name.to_owned()),
                    Some((name, module)) => {
                        let shown = rustc_demangle::demangle(name);
                        (Part::of(name, module), format!("{shown:#} [{module}]"))
                    }
                };
                *parts.entry(part).or_insert(0.0) += count;
                *locked.entry(part).or_insert(0.0) += with_lock;
                *functions.entry(name).or_insert(0.0) += count;
            }
            let mut functions: Vec<(String, f64)> = functions.into_iter().collect();
            functions.retain(|(_, count)| *count >= 0.5);
            functions.sort_by(|one, other| other.1.total_cmp(&one.1));
            // On one processor, the kernel patches the prefix out without noreplace-smp.
            ensure!(
                locked.values().sum::<f64>() > 0.0,
                "{op} has no locked instruction at all, on a disk of {target}"
            );
            Ok(Profile {
                op: op.clone(),
                target: target.clone(),
                parts,
                locked,
                functions,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_attributed_to_parts() {
        let symbols = Symbols::new(
            "ffffffff81000000 submit_bio\nffffffff81000100 __memcpy_flushcache\n\
             ffffffffc0000000 pmem_submit_bio\t[nd_pmem]\nffffffff81000200 ksys_write\n",
        )
        .unwrap();
        let text = "section 5\n55550000 20 0\nffffffff81000010 100 10\nffffffff81000110 5120 0\n\
                    ffffffff81000200 10 0\nffffffffc0000040 1800 20\n";
        let done = [Done {
            op: "write-4k".to_owned(),
            target: "nd_pmem".to_owned(),
            each: 2,
        }];
        let profiles = read(text, &done, &symbols).unwrap();
        let wanted = [
            (Part::Copy, 512.0),
            (Part::Block, 10.0),
            (Part::Driver, 180.0),
            (Part::Kernel, 1.0),
            (Part::Program, 2.0),
        ];
        assert!(
            profiles[0]
                .parts
                .iter()
                .map(|(part, count)| (*part, *count))
                .eq(wanted)
        );
        assert_eq!(profiles[0].functions[1].0, "pmem_submit_bio [nd_pmem]");
        let locked = |part: Part| profiles[0].locked[&part];
        assert_eq!(
            (
                locked(Part::Block),
                locked(Part::Driver),
                locked(Part::Copy)
            ),
            (1.0, 2.0, 0.0)
        );
        read(
            &text.replace("100 10", "100 0").replace("1800 20", "1800 0"),
            &done,
            &symbols,
        )
        .err()
        .unwrap();
        read(text, &[], &symbols).err().unwrap();
        read("section 0\n", &done, &symbols).err().unwrap();
        Symbols::new("0000000000000000 hidden\n").err().unwrap();
    }
}
