// SPDX-License-Identifier: GPL-2.0

//! File systems: the owners of ranges of bytes, and what their space is used for.
//!
//! [`mounted`] queries a mounted file system, [`offline`] the programs of one that is not mounted. [`kernel_reports`]
//! listens for errors that the kernel reports for files.

pub mod ext4;
pub(crate) mod extent_reader;
pub mod kernel_reports;
pub(crate) mod leases;
pub mod mounted;
pub mod offline;
pub mod open_files;
mod parents;
mod places;
pub(crate) mod quarantine_mark;
pub(crate) mod reopen;
mod tree;
mod walk;
pub mod xfs;

use crate::block::remap::{Span, Spans};
use crate::ranges::Ranges;
use schemars::JsonSchema;
use serde::Serialize;
use std::io;
use std::ops::Range;
use std::path::Path;

/// The owner of some bytes.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Owner {
    /// A file or directory.
    File {
        /// The first name that was found, or all; empty if the file is removed but open.
        paths: Vec<String>,
        inode: u64,
        /// The offset in the file; `null` for attributes or extent tree blocks.
        file_offset: Option<u64>,
        /// The processes that have a removed file open.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        open_by: Vec<u32>,
    },
    Free,
    /// Metadata of the file system: `journal`, `inode table`.
    Metadata {
        /// The file system's term.
        what: &'static str,
        /// The block group of ext4 or allocation group of XFS, if it has one.
        group: Option<u64>,
    },
    /// In use, but of no file that was found: metadata of XFS without a reverse map, a symbolic link, or a file
    /// that changed during the search.
    Unknown {
        /// The allocation group of XFS.
        group: Option<u64>,
    },
}

/// A range and its owner.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Owned {
    /// The bytes.
    #[serde(flatten)]
    pub span: Span,
    pub owner: Owner,
}

/// Progress of a search.
pub trait Progress {
    /// The search begins; `files` is the number of inodes in use.
    fn begin(&self, _files: u64) {}
    /// One more file was searched.
    fn step(&self) {}
    /// A file or directory could not be read.
    fn skipped(&self, _path: &Path, _error: &io::Error) {}
    /// Not all owners on the file system that is mounted there are listed.
    fn left_out(&self, _directory: &Path, _reason: &str) {}
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct OwnersFound {
    /// The ranges with their owners; empty if the file system was refused.
    pub owned: Vec<Owned>,
    /// Why some owners are unknown.
    pub reason: Option<String>,
}

impl OwnersFound {
    pub(crate) fn nothing(reason: impl Into<String>) -> Self {
        Self {
            owned: Vec::new(),
            reason: Some(reason.into()),
        }
    }

    /// Adds a range, or extends the last one if it is adjacent and has the same owner.
    pub(crate) fn add(&mut self, span: Span, owner: Owner) {
        if let Some(last) = self.owned.last_mut() {
            let behind = last.span.range().end == span.offset
                && last.span.disk_offset + last.span.length == span.disk_offset;
            if behind && last.owner == owner {
                last.span.length += span.length;
                return;
            }
        }
        self.owned.push(Owned { span, owner });
    }

    pub(crate) fn unknown(&mut self, left: &Spans, group: impl Fn(u64) -> Option<u64>) {
        for span in left.iter() {
            let group = group(span.offset);
            self.owned.push(Owned {
                span,
                owner: Owner::Unknown { group },
            });
        }
        self.sort();
    }

    pub(crate) fn sort(&mut self) {
        self.owned
            .sort_by_key(|owned| (owned.span.disk_offset, owned.span.length));
    }
}

/// The use of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpaceKind {
    /// Free space.
    Free,
    Files,
    Metadata,
    /// Files or metadata: the file system does not distinguish them.
    Used,
    /// Unknown: no file system, or one that is not supported.
    Other,
    /// Outside of all partitions and volumes.
    Outside,
}

impl SpaceKind {
    pub const ALL: [Self; 6] = [
        Self::Free,
        Self::Files,
        Self::Metadata,
        Self::Used,
        Self::Other,
        Self::Outside,
    ];
}

/// The use of a file system's space.
#[derive(Debug)]
pub struct Space {
    /// Metadata at fixed places.
    pub fixed: Ranges,
    /// The kind of all other space that is not free.
    pub rest: SpaceKind,
    /// Free ranges in order, if they were read.
    pub free: Vec<Range<u64>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_spans_of_one_owner_merge() {
        let span = Span::of_disk;
        let mut result = OwnersFound::default();
        result.add(span(0, 512), Owner::Free);
        result.add(span(512, 512), Owner::Free);
        result.add(span(1024, 512), Owner::Unknown { group: None });
        result.add(span(2048, 512), Owner::Unknown { group: None });
        let spans: Vec<_> = result
            .owned
            .iter()
            .map(|owned| owned.span.clone())
            .collect();
        assert_eq!(spans, [span(0, 1024), span(1024, 512), span(2048, 512)]);
    }
}
