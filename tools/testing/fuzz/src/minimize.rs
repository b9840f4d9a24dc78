// SPDX-License-Identifier: GPL-2.0

//! The mutations of an input that matter.

use clap::Args;

#[derive(Args)]
pub struct Only {
    /// Make only these mutations of each input (their places, from 0), to find out which ones a guest was lost by
    #[arg(long, value_name = "PLACE,...", value_delimiter = ',')]
    only: Option<Vec<usize>>,
}

impl Only {
    /// Returns the mutations to make.
    pub fn of<T>(&self, mutations: Vec<T>) -> Vec<T> {
        let Some(only) = &self.only else {
            return mutations;
        };
        let numbered = mutations.into_iter().enumerate();
        numbered
            .filter(|(place, _)| only.contains(place))
            .map(|(_, mutation)| mutation)
            .collect()
    }
}

/// Leaves out mutations, one at a time, as long as the rest still fails. Each of those that are left is needed, unless
/// failures come by chance.
pub fn minimize<T: Clone>(mutations: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut rest = mutations.to_vec();
    let mut at = 0;
    while at < rest.len() {
        let mut fewer = rest.clone();
        fewer.remove(at);
        if fails(&fewer) {
            // One that was needed may not be any more.
            (rest, at) = (fewer, 0);
        } else {
            at += 1;
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_left() {
        let fails = |some: &[u8]| some.contains(&3) && some.contains(&5);
        assert_eq!(minimize(&[1, 2, 3, 4, 5], fails), [3, 5]);
        assert_eq!(minimize(&[1, 2], |_| true), []);
        assert_eq!(minimize(&[1, 2], |_| false), [1, 2]);
        // 1 hides that 2 is not needed.
        let fails = |some: &[u8]| some.contains(&3) && some.contains(&1) <= some.contains(&2);
        assert_eq!(minimize(&[2, 1, 3], fails), [3]);
    }

    #[test]
    fn only_selects_by_place() {
        let only = |only| Only { only }.of(vec!['a', 'b', 'c']);
        assert_eq!(only(Some(vec![2, 0])), ['a', 'c']);
        assert_eq!(only(None), ['a', 'b', 'c']);
    }
}
