// SPDX-License-Identifier: GPL-2.0

//! What drivers made of mutated metadata.

use crate::bus::announce;
use crate::minimize::minimize;
use crate::mutation::{Mutation, describe};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

/// The results of all inputs, in order.
pub struct Results {
    /// What an input is called.
    kind: &'static str,
    seed: u64,
    verbose: bool,
    seen: BTreeMap<String, u64>,
    sum: crc32fast::Hasher,
    broken: usize,
}

impl Results {
    pub fn new(kind: &'static str, seed: u64, verbose: bool) -> Self {
        Self {
            kind,
            seed,
            verbose,
            seen: BTreeMap::new(),
            sum: crc32fast::Hasher::new(),
            broken: 0,
        }
    }

    /// Announces an input, and adds what `probe` returns for its mutations. If that is an error, finds out which of them
    /// are needed for one. `text` says what is changed, each change after a space.
    pub fn add(
        &mut self,
        input: u64,
        text: &str,
        mutations: &[Mutation],
        mut probe: impl FnMut(&[Mutation]) -> Result<String>,
    ) -> Result<()> {
        let Self { kind, seed, .. } = *self;
        announce(&format!("seed {seed} {kind} {input}:{text}"))?;
        let state = match probe(mutations) {
            Ok(state) => state,
            Err(error) => {
                self.broken += 1;
                println!("seed {seed} {kind} {input}:{text}: {error:#}");
                let least = minimize(mutations, |some| probe(some).is_err());
                println!("the same with:{}", describe(&least));
                "broken".to_owned()
            }
        };
        if self.verbose {
            println!("{kind} {input}:{text}: {state}");
        }
        self.sum.update(state.as_bytes());
        self.sum.update(b"\n");
        *self.seen.entry(state).or_default() += 1;
        Ok(())
    }

    /// Prints how often each result was seen, and a checksum of all in order; returns how many inputs broke a rule.
    pub fn print(self) -> Result<usize> {
        ensure!(!self.seen.is_empty(), "no input was tried");
        for (state, count) in &self.seen {
            println!("{count}: {state}");
        }
        println!("checksum {:08x}", self.sum.finalize());
        Ok(self.broken)
    }
}
