// SPDX-License-Identifier: GPL-2.0

//! Sets of numbers, such as sectors or bytes, in ranges.

use rangemap::RangeSet;
use std::ops::Range;

/// Returns the intersection, if it is not empty.
pub fn common(one: &Range<u64>, other: &Range<u64>) -> Option<Range<u64>> {
    let both = one.start.max(other.start)..one.end.min(other.end);
    (!both.is_empty()).then_some(both)
}

/// Returns the range in multiples of `unit` that has this one.
pub fn rounded_out(range: &Range<u64>, unit: u64) -> Range<u64> {
    range.start / unit * unit..range.end.next_multiple_of(unit)
}

/// A set of numbers as ranges in order, which are not empty and do not touch.
///
/// Arguments may be empty ranges, which have no effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(RangeSet<u64>);

impl Ranges {
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers are in it.
    pub fn count(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    pub fn contains(&self, number: &u64) -> bool {
        self.0.contains(number)
    }

    pub fn insert(&mut self, range: Range<u64>) {
        // RangeSet panics for an empty range, here and below.
        if !range.is_empty() {
            self.0.insert(range);
        }
    }

    pub fn remove(&mut self, range: &Range<u64>) {
        if !range.is_empty() {
            self.0.remove(range.clone());
        }
    }

    /// Returns the part in `range`.
    pub fn within(&self, range: &Range<u64>) -> Self {
        let found = self.0.overlapping(range);
        found.filter_map(|own| common(own, range)).collect()
    }

    /// Returns the numbers in `range` that are not in the set.
    pub fn gaps(&self, range: &Range<u64>) -> Self {
        self.0.gaps(range).collect()
    }

    pub fn and(&self, other: &Self) -> Self {
        self.0.union(&other.0).collect()
    }

    pub fn common(&self, other: &Self) -> Self {
        self.0.intersection(&other.0).collect()
    }

    /// Returns the numbers that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = self.clone();
        other.iter().for_each(|range| left.remove(range));
        left
    }
}

impl Extend<Range<u64>> for Ranges {
    fn extend<T: IntoIterator<Item = Range<u64>>>(&mut self, ranges: T) {
        ranges.into_iter().for_each(|range| self.insert(range));
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(ranges: T) -> Self {
        let mut set = Self::default();
        set.extend(ranges);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn some() -> impl Strategy<Value = Vec<Range<u64>>> {
        let range = (0_u64..200, 0_u64..20).prop_map(|(start, length)| start..start + length);
        prop::collection::vec(range, 0..20)
    }

    fn set(ranges: &[Range<u64>]) -> BTreeSet<u64> {
        ranges.iter().cloned().flatten().collect()
    }

    proptest! {
        #[test]
        fn operations_match_sets_of_numbers(a in some(), b in some(), start in 0_u64..250, end in 0_u64..250) {
            let numbers = |ranges: &Ranges| -> BTreeSet<u64> { ranges.iter().cloned().flatten().collect() };
            let ranges = |list: &[Range<u64>]| list.iter().cloned().collect::<Ranges>();
            let (one, other, all) = (ranges(&a), ranges(&b), start..end);
            let (a, b) = (set(&a), set(&b));
            prop_assert_eq!(numbers(&one), a.clone());
            prop_assert_eq!(one.count(), a.len() as u64);
            prop_assert_eq!(numbers(&one.and(&other)), &a | &b);
            prop_assert_eq!(numbers(&one.common(&other)), &a & &b);
            prop_assert_eq!(numbers(&one.without(&other)), &a - &b);
            prop_assert_eq!(numbers(&one.within(&all)), &a & &all.clone().collect());
            prop_assert_eq!(numbers(&one.gaps(&all)), &all.collect() - &a);
        }

        #[test]
        fn ranges_do_not_touch(a in some()) {
            let ranges: Vec<_> = a.into_iter().collect::<Ranges>().iter().cloned().collect();
            prop_assert!(ranges.is_sorted_by(|one, next| one.end < next.start));
            prop_assert!(ranges.iter().all(|range| !range.is_empty()));
        }
    }
}
