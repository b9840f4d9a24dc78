// SPDX-License-Identifier: GPL-2.0

//! Tables of the mappings of a process (proc_pid_maps(5)).

use crate::block::devno::DeviceNumber;
use crate::sysfs;
use schemars::JsonSchema;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A mapping: a line of the table.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    /// `rw-s`.
    pub permissions: String,
    /// The first byte in the file.
    pub offset: u64,
    /// The device of its file system.
    #[serde(skip)]
    pub device: DeviceNumber,
    pub inode: u64,
    /// As it is in the table, where newlines are escaped.
    #[serde(skip)]
    pub name: OsString,
}

impl Mapping {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut rest = line;
        let mut word = || -> Option<&str> {
            let text = rest.trim_ascii_start();
            let end = text.iter().position(|&byte| byte == b' ');
            let (word, tail) = text.split_at(end.unwrap_or(text.len()));
            rest = tail;
            std::str::from_utf8(word)
                .ok()
                .filter(|word| !word.is_empty())
        };
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = word()?.split_once('-')?;
        let (start, end) = (hex(start)?, hex(end)?);
        // A copy of the table is printed, and its owner may have written anything.
        let permissions =
            word().filter(|word| word.bytes().all(|byte| b"rwxsp-".contains(&byte)))?;
        let permissions = permissions.to_owned();
        let offset = hex(word()?)?;
        let (major, minor) = word()?.split_once(':')?;
        let device = format!("{}:{}", hex(major)?, hex(minor)?).parse().ok()?;
        let inode = word()?.parse().ok()?;
        offset.checked_add(end.checked_sub(start)?)?;
        Some(Self {
            start,
            end,
            permissions,
            offset,
            device,
            inode,
            name: OsStr::from_bytes(rest.trim_ascii_start()).to_owned(),
        })
    }

    /// Returns whether it maps no file.
    pub fn is_anonymous(&self) -> bool {
        self.inode == 0
    }

    /// Returns whether stores reach the file.
    pub fn is_shared_writable(&self) -> bool {
        self.permissions.contains('w') && self.permissions.contains('s')
    }

    /// Returns the name of its link in `/proc/PID/map_files`, whose numbers have no leading zeros.
    pub fn link(&self) -> String {
        format!("{:x}-{:x}", self.start, self.end)
    }
}

/// Returns the mappings in a table.
pub fn parse(table: &[u8]) -> Vec<Mapping> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(Mapping::parse)
        .collect()
}

/// Returns the mapped files of the process of the directory `process`.
pub fn files(process: &Path) -> impl Iterator<Item = Mapping> {
    let lines = sysfs::lines(process.join("maps")).into_iter();
    lines
        .flatten()
        .flatten()
        .filter_map(|line| Mapping::parse(&line))
        .filter(|mapping| !mapping.is_anonymous())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_line_parses() {
        let parse = |line: &str| Mapping::parse(line.as_bytes());
        let line =
            "00400000-00600000 rw-s 00100000 103:05 4711                       /mnt/a b (deleted)";
        let mapped = parse(line).unwrap();
        assert_eq!(mapped.link(), "400000-600000");
        assert_eq!((mapped.offset, mapped.inode), (0x10_0000, 4711));
        assert_eq!(mapped.device.to_string(), "259:5");
        assert_eq!(mapped.name, "/mnt/a b (deleted)");
        assert!(mapped.is_shared_writable());
        assert!(
            !parse(&line.replace("rw-s", "rw-p"))
                .unwrap()
                .is_shared_writable()
        );
        assert!(
            !parse(&line.replace("rw-s", "r--s"))
                .unwrap()
                .is_shared_writable()
        );
        let anonymous = parse("7f8a5c200000-7f8a5c400000 rw-p 00000000 00:00 0 ").unwrap();
        assert!(anonymous.is_anonymous() && anonymous.name.is_empty());
        for text in [
            "",
            "7ffd0000-7ffc0000 rw-p 00000000 08:01 5 /x",
            "x-y rw-p 00000000 08:01 5 /x",
            "7ffd0000-7ffe0000 rw-p",
            "7ffd0000-7ffe0000 rw\x1b[2J 00000000 08:01 5 /x",
            "2-1 rw-p 0 0:0 0",
            "1-2 rw-p ffffffffffffffff 0:0 0",
            "1-2",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
