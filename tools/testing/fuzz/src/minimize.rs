// SPDX-License-Identifier: GPL-2.0

//! The mutations of an input, or the requests of a sequence, that matter.

use clap::Args;

#[derive(Args)]
pub struct Only {
    /// Make only these mutations of each input, or requests of each 256 (their places, from 0), to find out which ones
    /// a guest was lost by, or to repeat a difference
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

/// Leaves out mutations, first many and then one at a time, as long as the rest still fails. Each of those that are left
/// is needed, unless failures come by chance.
pub fn minimize<T: Clone>(mutations: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut rest = mutations.to_vec();
    let mut many = rest.len().div_ceil(2);
    while many > 0 {
        let mut at = 0;
        while at < rest.len() {
            let mut fewer = rest.clone();
            fewer.drain(at..rest.len().min(at + many));
            if fails(&fewer) {
                // One that was needed may not be any more.
                (rest, at) = (fewer, 0);
            } else {
                at += many;
            }
        }
        many /= 2;
    }
    rest
}

/// Prints the shortest part of a sequence of requests that still fails, and the arguments that repeat it: `inputs`, which
/// made the sequence, and the places of the requests in it.
pub fn print_shortest<T: Clone>(
    inputs: &str,
    requests: &[(usize, T)],
    show: impl Fn(&T) -> String,
    mut fails: impl FnMut(&[(usize, T)]) -> bool,
) {
    if !fails(requests) {
        println!("not seen again when the sequence was repeated");
        return;
    }
    let shortest = minimize(requests, fails);
    let places: Vec<_> = shortest
        .iter()
        .map(|(place, _)| place.to_string())
        .collect();
    println!("the same with {inputs} --only {}:", places.join(","));
    for (_, request) in &shortest {
        println!("\t{}", show(request));
    }
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
    fn few_of_many_are_found_in_few_attempts() {
        let all: Vec<u32> = (0..256).collect();
        let mut attempts = 0;
        let least = minimize(&all, |some| {
            attempts += 1;
            [7, 130, 131].iter().all(|one| some.contains(one))
        });
        assert_eq!(least, [7, 130, 131]);
        assert!(attempts < 80, "{attempts}");
    }

    #[test]
    fn only_selects_by_place() {
        let only = |only| Only { only }.of(vec!['a', 'b', 'c']);
        assert_eq!(only(Some(vec![2, 0])), ['a', 'c']);
        assert_eq!(only(None), ['a', 'b', 'c']);
    }
}
