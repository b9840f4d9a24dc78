// SPDX-License-Identifier: GPL-2.0

//! Which inputs to try, and how each is made from its number.

use clap::Args;
use fastrand::Rng;
use std::iter;
use std::time::{Duration, Instant};

/// Inputs between two comparisons with a model.
const SEQUENCE: usize = 256;

#[derive(Args)]
pub struct Inputs {
    /// Seed of the inputs
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of the first input
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Number of inputs
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Stop after this many seconds instead
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

impl Inputs {
    /// Returns the numbers of the inputs until the time is over, each with a generator of its own, so that an input can be
    /// repeated alone.
    pub fn each(&self) -> impl Iterator<Item = (u64, Rng)> {
        let begin = Instant::now();
        let in_time = move |most| begin.elapsed() < Duration::from_secs(most);
        (self.first..self.first + self.count)
            .take_while(move |_| self.seconds.is_none_or(in_time))
            .map(|number| (number, Rng::with_seed((self.seed << 32) ^ number)))
    }

    /// Returns the arguments that select some of the inputs.
    pub fn arguments(&self, first: u64, count: usize) -> String {
        format!("--seed {} --first {first} --count {count}", self.seed)
    }

    /// Returns the inputs in sequences: the number of the first one of each, and the generators of all.
    pub fn sequences(&self) -> impl Iterator<Item = (u64, Vec<Rng>)> {
        let mut each = self.each();
        iter::from_fn(move || {
            let inputs: Vec<_> = each.by_ref().take(SEQUENCE).collect();
            let first = inputs.first()?.0;
            Some((
                first,
                inputs.into_iter().map(|(_, random)| random).collect(),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_can_be_repeated_alone() {
        let sequences = |first, count| -> Vec<(u64, Vec<Rng>)> {
            let inputs = Inputs {
                seed: 7,
                first,
                count,
                seconds: None,
            };
            inputs.sequences().collect()
        };
        let all = sequences(0, 600);
        let lengths: Vec<_> = all.iter().map(|(_, inputs)| inputs.len()).collect();
        assert_eq!(lengths, [SEQUENCE, SEQUENCE, 600 - 2 * SEQUENCE]);
        assert_eq!(sequences(256, 256), all[1..2]);
        assert_eq!(sequences(0, 0), []);
    }
}
