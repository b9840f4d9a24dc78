// SPDX-License-Identifier: GPL-2.0

//! File systems: the owners of ranges of bytes, and what their space is used for.
//!
//! [`mounted`] asks a mounted file system, [`offline`] the programs of one that is not mounted.

pub mod ext4;
pub mod external;
pub mod mounted;
pub mod offline;
pub mod open_files;
mod walk;
pub mod xfs;

use crate::block::remap::Span;
use serde::Serialize;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Whose some bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Owner {
    /// A file's, or a directory's.
    File {
        /// Its names: the first that was found, or all of them. None of a file that was removed
        /// while it is open.
        paths: Vec<String>,
        inode: u64,
        /// Where they are in the file; `null` where they hold its attributes or its own map.
        file_offset: Option<u64>,
        /// The processes that have it open, if it was removed.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        open_by: Vec<u32>,
    },
    Free,
    /// The file system's own: `journal`, `inode table`.
    Metadata {
        /// In the words of the file system.
        what: &'static str,
        /// Of which block group of ext4, or allocation group of XFS; `null` where it is of none.
        group: Option<u64>,
    },
    /// The file system says that they are in use, and no file has them: metadata of XFS without a
    /// reverse map, a symbolic link's, or what has changed meanwhile.
    Unknown {
        /// In which allocation group of XFS.
        group: Option<u64>,
    },
}

/// Bad bytes, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// The bytes.
    #[serde(flatten)]
    pub span: Span,
    pub owner: Owner,
}

/// What the search says of itself while it goes on.
pub trait Progress {
    /// So many files are there to look at, as the file system counts them.
    fn begin(&self, _files: u64) {}
    /// One more file was looked at.
    fn step(&self) {}
    /// A file or directory could not be looked at.
    fn skipped(&self, _path: &Path, _error: &io::Error) {}
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct OwnersFound {
    /// Whose which bytes are; nothing where all is refused.
    pub owned: Vec<Owned>,
    /// Why not more is known.
    pub reason: Option<String>,
}

impl OwnersFound {
    pub(crate) fn nothing(reason: impl Into<String>) -> Self {
        Self {
            owned: Vec::new(),
            reason: Some(reason.into()),
        }
    }

    /// Adds a part, to its neighbour where that is one of the same owner.
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

    pub(crate) fn unknown(&mut self, left: Vec<Span>, group: impl Fn(u64) -> Option<u64>) {
        for span in left {
            let group = group(span.offset);
            self.owned.push(Owned {
                span,
                owner: Owner::Unknown { group },
            });
        }
        self.owned
            .sort_by_key(|owned| (owned.span.disk_offset, owned.span.length));
    }
}

/// What bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpaceKind {
    /// Nothing: the file system has them free.
    Free,
    Files,
    Metadata,
    /// Files or metadata: the file system does not tell which.
    Used,
    /// What is in them is not known here: no file system, or a strange one.
    Other,
    /// No partition or volume has them.
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

/// What is known of a file system's space.
#[derive(Debug)]
pub struct Space {
    /// Metadata that is where it is.
    pub fixed: Vec<Range<u64>>,
    /// What all else is that is not free.
    pub rest: SpaceKind,
    /// What is free, in order, where that was asked.
    pub free: Vec<Range<u64>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_spans_of_one_owner_merge() {
        let span = |offset, length| Span {
            disk_offset: offset,
            offset,
            length,
        };
        let mut told = OwnersFound::default();
        told.add(span(0, 512), Owner::Free);
        told.add(span(512, 512), Owner::Free);
        told.add(span(1024, 512), Owner::Unknown { group: None });
        told.add(span(2048, 512), Owner::Unknown { group: None });
        let spans: Vec<_> = told.owned.iter().map(|owned| owned.span.clone()).collect();
        assert_eq!(spans, [span(0, 1024), span(1024, 512), span(2048, 512)]);
    }
}
