// SPDX-License-Identifier: GPL-2.0

//! Sets of bad sectors, in the format of the file `badblocks`.

use crate::ranges::Ranges;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Why a text is no [`BadBlocks`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseBadBlocksError {
    /// The kernel cuts it off where a page of memory ends: there are more entries.
    CutOff,
    /// A line that is none of such a list.
    Line(String),
}

impl fmt::Display for ParseBadBlocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff => f.write_str("it is longer than the kernel shows"),
            Self::Line(line) => write!(f, "a line of it makes no sense: {line:?}"),
        }
    }
}

impl std::error::Error for ParseBadBlocksError {}

/// Bad sectors, of 512 bytes, counted from the start of the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadBlocks(Ranges);

/// A file of sysfs holds less than this.
const FILE: usize = 4096;
/// Entries of the kernel's list, at most: `MAX_BADBLOCKS` of linux/badblocks.h.
const ENTRIES: usize = 512;

/// Returns whether a list in the format of `badblocks` has so many entries that new errors may soon be left out, or
/// already were.
pub fn is_nearly_full(text: &str) -> bool {
    text.lines().count() >= ENTRIES / 8 * 7 || text.len() >= FILE / 8 * 7
}

impl FromStr for BadBlocks {
    type Err = ParseBadBlocksError;

    /// Lines of `SECTOR LENGTH`.
    fn from_str(text: &str) -> Result<Self, ParseBadBlocksError> {
        if text.len() >= FILE - 1 || !(text.is_empty() || text.ends_with('\n')) {
            return Err(ParseBadBlocksError::CutOff);
        }
        let range = |line: &str| {
            let (start, length) = line.split_once(' ')?;
            let start: u64 = start.parse().ok()?;
            let length: u64 = length.parse().ok()?;
            Some(start..start.checked_add(length)?)
        };
        text.lines()
            .filter(|line| !line.is_empty())
            .map(|line| range(line).ok_or_else(|| ParseBadBlocksError::Line(line.to_owned())))
            .collect()
    }
}

impl fmt::Display for BadBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ranges()
            .try_for_each(|range| writeln!(f, "{} {}", range.start, range.end - range.start))
    }
}

impl FromIterator<Range<u64>> for BadBlocks {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(ranges: T) -> Self {
        Self(ranges.into_iter().collect())
    }
}

impl BadBlocks {
    /// In order; they do not touch.
    pub fn ranges(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    /// How many sectors are in it.
    pub fn sectors(&self) -> u64 {
        self.0.count()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the part in `range`.
    pub fn within(&self, range: &Range<u64>) -> Self {
        Self(self.0.within(range))
    }

    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.and(&other.0))
    }

    pub fn common(&self, other: &Self) -> Self {
        Self(self.0.common(&other.0))
    }

    /// Returns the sectors that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.without(&other.0))
    }

    /// As counted from a place so far in front of the one that these are counted from.
    pub fn moved_up(&self, by: u64) -> Self {
        self.moved(|sector| sector.saturating_add(by))
    }

    /// Subtracts `by` from each sector number; drops sectors below `by`.
    pub fn moved_down(&self, by: u64) -> Self {
        self.moved(|sector| sector.saturating_sub(by))
    }

    fn moved(&self, to: impl Fn(u64) -> u64) -> Self {
        self.ranges()
            .map(|bad| to(bad.start)..to(bad.end))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn list(text: &str) -> BadBlocks {
        text.parse().unwrap()
    }

    #[test]
    fn badblocks_file_parses() {
        assert!(list("").is_empty());
        assert!(list("\n").is_empty());
        let bad = list("8 1\n2048 8\n");
        assert!(bad.ranges().eq(&[8..9, 2048..2056]));
        assert_eq!(list("8 8\n16 8\n"), list("8 16\n"));
        assert_eq!(list("8 8\n2048 8\n").sectors(), 16);
    }

    #[test]
    fn invalid_text_is_refused() {
        assert_eq!("8 8".parse::<BadBlocks>(), Err(ParseBadBlocksError::CutOff));
        let long = "1000000 512\n".repeat(342);
        assert_eq!(
            long[..4095].parse::<BadBlocks>(),
            Err(ParseBadBlocksError::CutOff)
        );
        for line in ["8", "8 -1", "x 1", "8 8 8", "18446744073709551615 1"] {
            let wanted = Err(ParseBadBlocksError::Line(line.to_owned()));
            assert_eq!(format!("{line}\n").parse::<BadBlocks>(), wanted);
        }
    }

    #[test]
    fn list_near_its_limit_is_nearly_full() {
        assert!(!is_nearly_full(""));
        assert!(!is_nearly_full(&"100 1\n".repeat(447)));
        assert!(is_nearly_full(&"100 1\n".repeat(448)));
        assert!(!is_nearly_full(&"1000000000 512\n".repeat(238)));
        assert!(is_nearly_full(&"1000000000 512\n".repeat(239)));
    }

    #[test]
    fn difference_keeps_uncovered_sectors() {
        let old = list("8 8\n100 100\n");
        assert_eq!(old.without(&list("")), old);
        assert!(old.without(&old).is_empty());
        let left = old.without(&list("0 10\n110 10\n190 100\n"));
        assert_eq!(left.to_string(), "10 6\n100 10\n120 70\n");
    }

    fn some() -> impl Strategy<Value = BadBlocks> {
        prop::collection::vec((0_u64..200, 0_u64..20), 0..20).prop_map(|ranges| {
            ranges
                .into_iter()
                .map(|(start, length)| start..start + length)
                .collect()
        })
    }

    fn sectors(list: &BadBlocks) -> BTreeSet<u64> {
        list.ranges().cloned().flatten().collect()
    }

    proptest! {
        #[test]
        fn moves_match_sets_of_sectors(a in some(), by in 0_u64..300) {
            prop_assert_eq!(a.moved_up(by).moved_down(by), a.clone());
            let down: BTreeSet<_> = sectors(&a).into_iter().filter_map(|s| s.checked_sub(by)).collect();
            prop_assert_eq!(sectors(&a.moved_down(by)), down);
        }

        #[test]
        fn printed_list_parses_to_itself(a in some()) {
            prop_assert_eq!(a.to_string().parse::<BadBlocks>().unwrap(), a);
        }
    }
}
