// SPDX-License-Identifier: GPL-2.0

//! Limits the places in files that are found of a block: files can share it, and a user can make millions of them.

use std::collections::BTreeMap;

/// The highest number of places of a block.
pub(crate) const PLACES: usize = 1024;

/// The highest number of places that are not the first one of a block.
const MORE: usize = 100_000;

/// Counts the places in files that have some of the same bytes of a volume.
pub(crate) struct Places {
    /// How many begin at an address.
    counts: BTreeMap<u64, usize>,
    limit: usize,
    /// All but the first one of each address.
    more: usize,
    /// There are places that were not kept.
    pub(crate) are_left_out: bool,
}

impl Default for Places {
    fn default() -> Self {
        Self::up_to(PLACES)
    }
}

impl Places {
    /// Keeps so many that begin at the same address.
    pub(crate) fn up_to(limit: usize) -> Self {
        Self {
            counts: BTreeMap::new(),
            limit,
            more: 0,
            are_left_out: false,
        }
    }

    /// Returns whether a place that begins at this address is to be kept.
    pub(crate) fn keep(&mut self, address: u64) -> bool {
        let count = self.counts.entry(address).or_default();
        let is_first = *count == 0;
        if !is_first && (*count == self.limit || self.more == MORE) {
            self.are_left_out = true;
            return false;
        }
        *count += 1;
        self.more += usize::from(!is_first);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_place_of_a_block_is_always_kept() {
        let mut places = Places::default();
        let kept =
            |places: &mut Places, address| (0..2000).filter(|_| places.keep(address)).count();
        assert_eq!(kept(&mut places, 0), PLACES);
        assert!(places.are_left_out);
        let more: usize = (1..200).map(|address| kept(&mut places, address) - 1).sum();
        assert_eq!(more, MORE - (PLACES - 1));
    }
}
