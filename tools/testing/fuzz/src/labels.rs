// SPDX-License-Identifier: GPL-2.0

//! `pmem-fuzz labels`: probes of a region whose DIMM has mutated labels.

use crate::bus::{Dimm, Region};
use crate::inputs::Inputs;
use crate::layout::{
    Field, INDEX, INDEX_CHECKSUM, INDEX_LABELOFF, INDEX_MYSIZE, LABEL, LABEL_CHECKSUM, LABEL_DPA,
    LABEL_RAWSIZE, LABEL_SLOT, LABEL_UUID, number, seal,
};
use crate::minimize::Only;
use crate::mutation::{Mutation, describe, limit};
use crate::results::Results;
use anyhow::{Result, ensure};
use clap::Args;
use fastrand::Rng;
use std::ops::Range;

/// The state if the region can't be bound.
const NO_REGION: &str = "no region";

/// Bytes of a label.
const SLOT: usize = 256;
/// Slots that are mutated: those that libnvdimm uses first.
const SLOTS: usize = 16;
/// Bytes of a namespace that is added.
const ROOM: u64 = 16 << 20;
/// Where the bits of free slots begin in an index block.
const FREE: usize = 72;

#[derive(Args)]
pub struct Labels {
    /// The DIMM on the nd bus, whose labels (version 1.2) name at least one namespace
    #[arg(long, default_value = "nmem0")]
    dimm: String,
    /// Its region
    #[arg(long, default_value = "region0")]
    region: String,
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    only: Only,
    /// Print each label area and its result
    #[arg(long)]
    verbose: bool,
}

struct Target {
    dimm: Dimm,
    region: Region,
    /// What the DIMM has.
    stored: Vec<u8>,
}

impl Labels {
    /// Probes each label area, then the sample again. Prints how often each result was seen, and a checksum of all results in
    /// order; returns how many areas broke a rule.
    pub fn run(&self) -> Result<usize> {
        let region = Region::new(&self.region)?;
        let size = region.size()?;
        region.disable()?;
        let dimm = Dimm::new(&self.dimm)?;
        let sample = Sample::new(&dimm)?;
        let mut target = Target {
            dimm,
            region,
            stored: sample.area.clone(),
        };
        let good = target.probe(&sample.area, size)?;
        // In each mode that has a disk.
        ensure!(
            ["namespace", "pfn", "btt"]
                .iter()
                .all(|kind| good.contains(kind)),
            "drivers are not bound to all namespaces of the sample: {good}"
        );
        let mut results = Results::new("labels", self.inputs.seed, self.verbose);
        for (input, mut random) in self.inputs.each() {
            let (mutations, wrong) = sample.mutate(&mut random, size);
            let mutations = self.only.of(mutations);
            results.add(input, &describe(&mutations), &mutations, |some| {
                target.probe(&sample.sealed(some, &wrong), size)
            })?;
        }
        let broken = results.print()?;
        let after = target.probe(&sample.area, size)?;
        target.region.enable()?;
        ensure!(
            after == good,
            "the labels gave \"{good}\", and give \"{after}\" after the mutated ones"
        );
        Ok(broken)
    }
}

impl Target {
    /// Lets libnvdimm and the drivers probe these labels; returns what they made of them. The region is disabled before and
    /// after.
    ///
    /// Fails if a probe has changed the labels.
    fn probe(&mut self, area: &[u8], size: u64) -> Result<String> {
        self.dimm.disable()?;
        for start in (0..area.len()).step_by(SLOT) {
            let block = start..(start + SLOT).min(area.len());
            if self.stored[block.clone()] != area[block.clone()] {
                self.dimm.write_labels(start, &area[block.clone()])?;
                self.stored[block.clone()].copy_from_slice(&area[block]);
            }
        }
        let mut state = match self.dimm.enable() {
            Ok(()) => String::new(),
            Err(error) => format!("the DIMM: {:?}; ", error.kind()),
        };
        let bound = self.region.enable();
        let there = self.region.state(size);
        if bound.is_ok() {
            self.region.disable()?;
        }
        match bound {
            Ok(()) => state.push_str(&there?),
            Err(_) => state.push_str(NO_REGION),
        }
        let now = self.dimm.read_labels(area.len())?;
        let changed = now.iter().zip(area).position(|(now, then)| now != then);
        self.stored = now;
        if let Some(at) = changed {
            anyhow::bail!("the probe has changed the labels at {at}");
        }
        Ok(state)
    }
}

/// The label area of a DIMM, up to the last slot that is mutated.
struct Sample {
    area: Vec<u8>,
    /// Bytes of an index block.
    index: usize,
    /// Where the slots begin.
    labels: usize,
    /// The slots that have a label.
    used: Vec<usize>,
}

impl Sample {
    fn new(dimm: &Dimm) -> Result<Self> {
        let first = dimm.read_labels(SLOT)?;
        let [index, labels] =
            [INDEX_MYSIZE, INDEX_LABELOFF].map(|field| number(field.of(&first)) as usize);
        ensure!(
            (SLOT..=1 << 16).contains(&index) && (2 * index..=1 << 17).contains(&labels),
            "the DIMM has no labels"
        );
        let area = dimm.read_labels(labels + SLOTS * SLOT)?;
        Self::from_area(area, index, labels)
    }

    fn from_area(area: Vec<u8>, index: usize, labels: usize) -> Result<Self> {
        let has_label = |slot: &usize| {
            let label = &area[labels + slot * SLOT..];
            number(LABEL_RAWSIZE.of(label)) != 0
        };
        let used: Vec<_> = (0..SLOTS).filter(has_label).collect();
        ensure!(!used.is_empty(), "the labels name no namespace");
        Ok(Self {
            area,
            index,
            labels,
            used,
        })
    }

    fn slot(&self, slot: usize) -> Range<usize> {
        let start = self.labels + slot * SLOT;
        start..start + SLOT
    }

    /// Makes one to five changes of index blocks and labels. Returns them, and which blocks get a wrong checksum: the two
    /// index blocks, and each slot.
    fn mutate(&self, random: &mut Rng, size: u64) -> (Vec<Mutation>, Vec<bool>) {
        let mut all = Vec::new();
        for _ in 0..5 {
            let used = random.choice(&self.used).copied().unwrap_or(0);
            let other = random.usize(0..SLOTS);
            match random.u8(0..16) {
                0..4 => {
                    let field = &INDEX[random.usize(0..INDEX.len())];
                    let value = limit(number(field.of(&self.area)), size, random);
                    for block in [0..1, 1..2, 0..2, 0..2][random.usize(0..4)].clone() {
                        let start = block * self.index;
                        all.push(replaced(&format!("index {block}"), start, field, value));
                    }
                }
                4..9 => all.push(self.mutate_label(used, used, random, size)),
                9..13 => {
                    let start = self.slot(other).start;
                    all.push(Mutation {
                        what: format!("slot {other} like {used}"),
                        offset: start,
                        bytes: self.area[self.slot(used)].to_vec(),
                    });
                    let name = format!("label {other}");
                    all.push(replaced(&name, start, &LABEL_SLOT, other as u64));
                    // A namespace of its own where there may be room, since the DIMM is refused if two overlap, and the region
                    // if two have one UUID.
                    if random.u8(0..4) != 0 {
                        all.push(replaced(&name, start, &LABEL_UUID, random.u64(1..)));
                        all.push(replaced(&name, start, &LABEL_RAWSIZE, ROOM));
                        let place = match random.bool() {
                            // The sample's leave the last quarter.
                            true => size - random.u64(1..=size / 4 / ROOM) * ROOM,
                            false => random.u64(0..size / ROOM) * ROOM,
                        };
                        all.push(replaced(&name, start, &LABEL_DPA, place));
                    }
                    all.extend(self.set_free(other, false, &all));
                    if random.bool() {
                        all.push(self.mutate_label(other, used, random, size));
                    }
                }
                13 | 14 => all.extend(self.set_free(other, random.bool(), &all)),
                _ => {
                    let at = random.usize(0..self.area.len() - 8);
                    let mut bytes = vec![0; random.usize(1..=8)];
                    random.fill(&mut bytes);
                    all.push(Mutation {
                        what: format!("bytes at {at}"),
                        offset: at,
                        bytes,
                    });
                }
            }
            if random.bool() {
                break;
            }
        }
        let wrong = (0..2 + SLOTS).map(|_| random.u8(0..16) == 0).collect();
        (all, wrong)
    }

    /// Mutates a field of a slot that has the label of another.
    fn mutate_label(&self, slot: usize, like: usize, random: &mut Rng, size: u64) -> Mutation {
        let field = &LABEL[random.usize(0..LABEL.len())];
        let now = number(field.of(&self.area[self.slot(like)]));
        let value = limit(now, size, random);
        replaced(
            &format!("label {slot}"),
            self.slot(slot).start,
            field,
            value,
        )
    }

    /// Marks a slot as free, or used, in both index blocks. Its byte is also that of other slots, which the mutations
    /// `before` may have changed.
    fn set_free(&self, slot: usize, free: bool, before: &[Mutation]) -> [Mutation; 2] {
        [0, 1].map(|block| {
            let offset = block * self.index + FREE + slot / 8;
            let bit = 1 << (slot % 8);
            let changed = before.iter().rev().find_map(|mutation| {
                let at = offset.checked_sub(mutation.offset)?;
                mutation.bytes.get(at).copied()
            });
            let others = changed.unwrap_or(self.area[offset]) & !bit;
            Mutation {
                what: format!("slot {slot} free={free} in index {block}"),
                offset,
                bytes: vec![if free { others | bit } else { others }],
            }
        })
    }

    /// Returns the area with these mutations. Each block that they change has the right checksum, unless it is to get a
    /// wrong one.
    fn sealed(&self, mutations: &[Mutation], wrong: &[bool]) -> Vec<u8> {
        let mut area = self.area.clone();
        for mutation in mutations {
            let end = mutation.offset + mutation.bytes.len();
            area[mutation.offset..end].copy_from_slice(&mutation.bytes);
        }
        let blocks =
            [0..self.index, self.index..2 * self.index].map(|block| (block, INDEX_CHECKSUM));
        let slots = (0..SLOTS).map(|slot| (self.slot(slot), LABEL_CHECKSUM));
        for ((range, checksum), wrong) in blocks.into_iter().chain(slots).zip(wrong) {
            let block = &mut area[range.clone()];
            if *block == self.area[range] {
                continue;
            }
            let first = checksum.start;
            seal(block, checksum);
            if *wrong {
                block[first] ^= 1;
            }
        }
        area
    }
}

/// Returns the mutation of a field of the block that begins at `start`.
fn replaced(block: &str, start: usize, field: &Field, value: u64) -> Mutation {
    Mutation {
        what: format!("{block} {}", field.name),
        offset: start + field.offset,
        bytes: field.bytes(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX_SIZE: usize = 256;

    fn sample() -> Sample {
        let mut area = vec![0; 2 * INDEX_SIZE + SLOTS * SLOT];
        area[2 * INDEX_SIZE + 112] = 1;
        Sample::from_area(area, INDEX_SIZE, 2 * INDEX_SIZE).unwrap()
    }

    #[test]
    fn seed_gives_the_same_labels() {
        let made = |seed| sample().mutate(&mut Rng::with_seed(seed), 64 << 20);
        assert_eq!(made(7), made(7));
        assert!((0..8).any(|seed| made(seed) != made(7)));
    }

    #[test]
    fn most_changed_labels_have_the_right_checksum() {
        let sample = sample();
        let (mut right, mut wrong) = (0, 0);
        for seed in 0..1000 {
            let (mutations, choice) = sample.mutate(&mut Rng::with_seed(seed), 64 << 20);
            let area = sample.sealed(&mutations, &choice);
            for slot in (0..SLOTS).map(|slot| sample.slot(slot)) {
                let mut sealed = area[slot.clone()].to_vec();
                seal(&mut sealed, LABEL_CHECKSUM);
                let changed = area[slot.clone()] != sample.area[slot.clone()];
                right += usize::from(changed && sealed == area[slot.clone()]);
                wrong += usize::from(changed && sealed != area[slot]);
            }
        }
        assert!(wrong > 10 && right > 10 * wrong, "{right} {wrong}");
    }

    #[test]
    fn no_mutation_is_no_change() {
        let sample = sample();
        assert!(sample.sealed(&[], &[true; 2 + SLOTS]) == sample.area);
    }

    #[test]
    fn labels_without_a_namespace_are_refused() {
        let area = vec![0; 2 * INDEX_SIZE + SLOTS * SLOT];
        assert!(Sample::from_area(area, INDEX_SIZE, 2 * INDEX_SIZE).is_err());
    }
}
