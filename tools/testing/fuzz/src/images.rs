// SPDX-License-Identifier: GPL-2.0

//! `pmem-fuzz images`: probes of a namespace with mutated metadata.

use crate::bus::{MEDIA, NOTHING, Region};
use crate::inputs::Inputs;
use crate::minimize::Only;
use crate::mutation::{Kind, Mutation, Sample, describe};
use crate::results::Results;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use units::Size;

/// The memory of the guest.
const MEMORY: &str = "/dev/mem";
/// What is in the page behind the namespace, which is reserved as well.
const BEHIND: [u8; 4096] = [0xa5; 4096];

#[derive(Args)]
pub struct Images {
    /// The mode of the namespace
    #[arg(value_enum)]
    kind: Kind,
    /// Its memory, as it was saved after the namespace was made
    sample: PathBuf,
    /// Its region on the nd bus, which has no other namespace
    #[arg(long, default_value = "region0")]
    region: String,
    /// Where its memory begins in the guest's
    #[arg(long, value_name = "ADDRESS", default_value_t = Size::from_mib(512))]
    start: Size,
    /// A part of it that is bad again before each image, which may have cleared it
    #[arg(long, value_name = "OFFSET+LENGTH")]
    bad: Option<String>,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    only: Only,
    /// Print each image and its result
    #[arg(long)]
    verbose: bool,
}

struct Target {
    memory: File,
    start: u64,
    sample: Sample,
    bad: Option<String>,
    region: Region,
}

impl Images {
    /// Probes each image, then the sample again. Prints how often each result was seen, and a checksum of all results in
    /// order; returns how many images broke a rule.
    pub fn run(&self) -> Result<usize> {
        let bytes = fs::read(&self.sample).with_context(|| self.sample.display().to_string())?;
        let memory = OpenOptions::new().read(true).write(true).open(MEMORY);
        let target = Target {
            memory: memory.context(MEMORY)?,
            start: self.start.bytes(),
            sample: Sample::new(self.kind, bytes)?,
            bad: self.bad.clone(),
            region: Region::new(&self.region)?,
        };
        target.region.disable()?;
        let good = target.probe(&[])?;
        ensure!(
            good != NOTHING && !good.starts_with("namespace"),
            "no driver is bound to the sample, or it is raw: {good}"
        );
        let mut results = Results::new("image", self.inputs.seed, self.verbose);
        for (image, mut random) in self.inputs.each() {
            let (mutations, sealing) = target.sample.mutate(&mut random);
            let mutations = self.only.of(mutations);
            let text = describe(&target.sample.sealed(&mutations, sealing));
            results.add(image, &text, &mutations, |some| {
                target.probe(&target.sample.sealed(some, sealing))
            })?;
        }
        let broken = results.print()?;
        let after = target.probe(&[])?;
        target.region.enable()?;
        ensure!(
            after == good,
            "the sample was \"{good}\", and is \"{after}\" after the images"
        );
        Ok(broken)
    }
}

impl Target {
    /// Lets the drivers probe the sample with these mutations; returns what they made of it. The region is disabled before
    /// and after. Fails if they change what is behind the namespace.
    fn probe(&self, mutations: &[Mutation]) -> Result<String> {
        let size = self.sample.memory.len();
        for range in self.sample.metadata() {
            self.put(range.start, &self.sample.memory[range])?;
        }
        for mutation in mutations {
            self.put(mutation.offset, &mutation.bytes)?;
        }
        self.put(size, &BEHIND)?;
        if let Some(bad) = &self.bad {
            fs::write(MEDIA, bad).with_context(|| format!("{MEDIA}: {bad}"))?;
        }
        self.region.enable()?;
        let state = self.region.state(size as u64);
        self.region.disable()?;
        let mut behind = [0; BEHIND.len()];
        let at = self.start + size as u64;
        self.memory.read_exact_at(&mut behind, at).context(MEMORY)?;
        ensure!(behind == BEHIND, "a disk reaches behind its namespace");
        state
    }

    fn put(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let at = self.start + offset as u64;
        self.memory.write_all_at(bytes, at).context(MEMORY)
    }
}
