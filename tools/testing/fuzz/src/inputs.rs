// SPDX-License-Identifier: GPL-2.0

//! Which inputs to try, and how each is made from its number.

use clap::Args;
use fastrand::Rng;
use std::time::{Duration, Instant};

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
}
