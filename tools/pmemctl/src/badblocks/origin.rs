// SPDX-License-Identifier: GPL-2.0

//! Bad sectors by origin: how each error was found.

use crate::badblocks::set::BadBlocks;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Bytes in a sector, the unit in which errors are listed.
pub const SECTOR: u64 = 512;

/// How an error was found: `machine-check`, `user`, `restored` … The words are the driver's; unknown ones are
/// kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(String);

impl Origin {
    /// The platform's log, or another source of the bus.
    pub const LOG: &str = "log";
    /// A list that was saved.
    pub const RESTORED: &str = "restored";
    /// The device's own list.
    pub const DEVICE: &str = "device";
    /// A list that has no origins.
    pub const UNKNOWN: &str = "unknown";

    pub fn word(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = |c: char| c.is_ascii_lowercase() || c == '-';
        if text.is_empty() || text.len() > 32 || !text.chars().all(is_word) {
            return Err(format!("{text:?} is no origin of an error"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Bad sectors by origin, counted from the start of a namespace or of a region.
///
/// A sector may be known from several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(BTreeMap<Origin, BadBlocks>);

/// Why a text is no such list: a line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseErrorsError(String);

impl fmt::Display for ParseErrorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a line of it makes no sense: {:?}", self.0)
    }
}

impl std::error::Error for ParseErrorsError {}

/// The sectors that these bytes are; `None` where they are not whole ones, none, or have no end.
pub fn sectors(offset: u64, length: u64) -> Option<Range<u64>> {
    let end = offset.checked_add(length)?;
    let whole = offset % SECTOR == 0 && length % SECTOR == 0 && length > 0;
    whole.then_some(offset / SECTOR..end / SECTOR)
}

impl FromStr for Errors {
    type Err = ParseErrorsError;

    /// Lines of `OFFSET LENGTH ORIGIN`, in bytes: the file `errors/list`.
    fn from_str(text: &str) -> Result<Self, ParseErrorsError> {
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let (offset, length) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let origin: Origin = words.next()?.parse().ok()?;
            let range = sectors(offset, length)?;
            words.next().is_none().then_some((origin, range))
        };
        text.lines()
            .map(|line| entry(line).ok_or_else(|| ParseErrorsError(line.to_owned())))
            .collect()
    }
}

impl FromIterator<(Origin, Range<u64>)> for Errors {
    fn from_iter<T: IntoIterator<Item = (Origin, Range<u64>)>>(entries: T) -> Self {
        let mut ranges: BTreeMap<Origin, Vec<Range<u64>>> = BTreeMap::new();
        for (origin, range) in entries {
            ranges.entry(origin).or_default().push(range);
        }
        let lists = ranges
            .into_iter()
            .map(|(origin, ranges)| (origin, ranges.into_iter().collect()));
        Self(lists.collect()).tidy()
    }
}

impl Errors {
    pub fn of(origin: &str, list: BadBlocks) -> Self {
        Self([(Origin(origin.to_owned()), list)].into()).tidy()
    }

    /// No origin without a sector, so that equal lists are equal values.
    fn tidy(mut self) -> Self {
        self.0.retain(|_, list| !list.is_empty());
        self
    }

    fn each(&self, change: impl Fn(&BadBlocks) -> BadBlocks) -> Self {
        let lists = self
            .0
            .iter()
            .map(|(origin, list)| (origin.clone(), change(list)));
        Self(lists.collect()).tidy()
    }

    /// Each range with its origin, by origin and in order.
    pub fn entries(&self) -> impl Iterator<Item = (&Origin, &Range<u64>)> {
        self.0
            .iter()
            .flat_map(|(origin, list)| list.ranges().map(move |range| (origin, range)))
    }

    /// Returns the bad sectors of all origins.
    pub fn all(&self) -> BadBlocks {
        self.0
            .values()
            .flat_map(BadBlocks::ranges)
            .cloned()
            .collect()
    }

    pub fn from(&self, origin: &str) -> BadBlocks {
        let list = self.0.iter().find(|(other, _)| other.word() == origin);
        list.map_or_else(BadBlocks::default, |(_, list)| list.clone())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the part in `range`.
    pub fn within(&self, range: &Range<u64>) -> Self {
        self.each(|list| list.within(range))
    }

    /// Returns the errors that are not in `list`.
    pub fn without(&self, list: &BadBlocks) -> Self {
        self.each(|own| own.without(list))
    }

    /// Returns the errors that are also in `list`.
    pub fn common(&self, list: &BadBlocks) -> Self {
        self.each(|own| own.common(list))
    }

    /// Returns the errors of all other origins.
    pub fn but(&self, origin: &str) -> Self {
        let mut others = self.clone();
        others.0.retain(|other, _| other.word() != origin);
        others
    }

    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (origin, list) in &other.0 {
            let own = both.0.entry(origin.clone()).or_default();
            *own = own.and(list);
        }
        both
    }

    /// Adds `by` to each sector number.
    pub fn moved_up(&self, by: u64) -> Self {
        self.each(|list| list.moved_up(by))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_list_parses() {
        let text = "4096 4096 machine-check\n8192 512 log\n4096 512 user\n4608 512 user\n";
        let errors: Errors = text.parse().unwrap();
        assert_eq!(errors.from("user").to_string(), "8 2\n");
        assert_eq!(errors.all().to_string(), "8 9\n");
        assert_eq!(errors.but("machine-check").all().to_string(), "8 2\n16 1\n");
        assert!("".parse::<Errors>().unwrap().is_empty());
    }

    #[test]
    fn invalid_line_is_refused() {
        for line in [
            "4096 4096",
            "4096 4096 user x",
            "4096  4096 user",
            "4096 100 user",
            "100 512 user",
            "0 0 user",
            "-512 512 user",
            "18446744073709551104 1024 user",
            "4096 512 USER",
            "4096 512 ",
        ] {
            let wanted = Err(ParseErrorsError(line.to_owned()));
            assert_eq!(format!("{line}\n").parse::<Errors>(), wanted, "{line}");
        }
    }

    pub fn some() -> impl Strategy<Value = Errors> {
        let origin = prop::sample::select(vec!["log", "machine-check", "user", "restored"]);
        prop::collection::vec((origin, 0_u64..200, 1_u64..20), 0..20).prop_map(|entries| {
            entries
                .into_iter()
                .map(|(origin, start, length)| (origin.parse().unwrap(), start..start + length))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn printed_list_parses_to_itself(errors in some()) {
            let mut text = String::new();
            for (origin, range) in errors.entries() {
                let (offset, length) = (range.start * SECTOR, (range.end - range.start) * SECTOR);
                text += &format!("{offset} {length} {}\n", origin.word());
            }
            prop_assert_eq!(text.parse::<Errors>().unwrap(), errors);
        }

        #[test]
        fn parts_of_list_make_whole(errors in some(), start in 0_u64..200, length in 0_u64..100) {
            let range = start..start + length;
            let inside: BadBlocks = [range.clone()].into_iter().collect();
            prop_assert_eq!(errors.within(&range), errors.common(&inside));
            prop_assert_eq!(errors.within(&range).and(&errors.without(&inside)), errors);
        }
    }
}
