// SPDX-License-Identifier: GPL-2.0

//! Mutations of a namespace's metadata, field by field.

use crate::layout::{
    BLOCK, BTT, BTT_PLACES, CHECKSUM, FIRST, PFN, SIGNATURE, SIGNATURES, UUIDS, number, seal,
};
use anyhow::{Result, ensure};
use clap::ValueEnum;
use fastrand::Rng;
use std::fmt;
use std::ops::Range;

/// The kind of the sample's info block.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// An fsdax or device DAX namespace
    Pfn,
    /// A namespace in sector mode
    Btt,
}

/// Bytes that replace others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mutation {
    pub what: String,
    /// Offset in the namespace, or in the label area.
    pub offset: usize,
    pub bytes: Vec<u8>,
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if self.bytes.len() > 16 {
            return Ok(());
        }
        f.write_str("=")?;
        self.bytes
            .iter()
            .rev()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What becomes of the checksum of a mutated info block, and of its copy.
#[derive(Clone, Copy)]
pub struct Sealing {
    /// A wrong checksum.
    wrong: Option<[u8; 8]>,
    /// Whether the copy of a BTT is mutated alike.
    copied: bool,
}

/// The memory of a good namespace, whose metadata is mutated.
pub struct Sample {
    pub kind: Kind,
    pub memory: Vec<u8>,
    /// Offsets of the map, of the log, and of the copy of the info block of a BTT.
    places: Option<[usize; 3]>,
}

/// Bytes of a log group of a BTT: four entries of four numbers.
const LOG_GROUP: usize = 64;
/// Log groups of a BTT that libnvdimm made.
const LOG_GROUPS: usize = 256;

/// The UUID of all samples. A map that a mutation moves over the info block has entries from it, and whether these can be
/// read must not be chance.
const UUID: &[u8; 16] = b"pmem-fuzz sample";

impl Sample {
    /// Replaces the UUID. Fails if the memory does not have an info block of this kind.
    pub fn new(kind: Kind, mut memory: Vec<u8>) -> Result<Self> {
        ensure!(memory.len() > FIRST + BLOCK, "the sample is too short");
        let block = &memory[FIRST..FIRST + BLOCK];
        let good = match kind {
            Kind::Pfn => &SIGNATURES[..2],
            Kind::Btt => &SIGNATURES[2..],
        };
        ensure!(
            good.iter().any(|signature| block[SIGNATURE] == **signature),
            "the sample has no such info block"
        );
        let places = match kind {
            Kind::Pfn => None,
            Kind::Btt => {
                let places =
                    BTT_PLACES.map(|place| FIRST + number(&block[place..place + 8]) as usize);
                ensure!(
                    places
                        .iter()
                        .all(|&place| place + LOG_GROUPS * LOG_GROUP < memory.len()
                            || place + BLOCK <= memory.len()),
                    "the sample is shorter than its info block says"
                );
                Some(places)
            }
        };
        let copy = places.map(|[_, _, copy]| copy);
        for start in [Some(FIRST), copy].into_iter().flatten() {
            let block = &mut memory[start..start + BLOCK];
            block[UUIDS[0].clone()].copy_from_slice(UUID);
            seal(block, CHECKSUM);
        }
        Ok(Self {
            kind,
            memory,
            places,
        })
    }

    /// Returns the ranges that mutations may change, and that the driver may change when it probes.
    pub fn metadata(&self) -> Vec<Range<usize>> {
        let info_blocks = 0..FIRST + 2 * BLOCK;
        let mut ranges = Vec::from([info_blocks]);
        if let Some([map, _, copy]) = self.places {
            // Up to the end: the map, the log and the copy are behind each other.
            ranges.push(map..(copy + BLOCK).min(self.memory.len()));
        }
        ranges
    }

    /// Makes one to five mutations: most of an info block, which then has the right checksum as a rule.
    pub fn mutate(&self, random: &mut Rng) -> (Vec<Mutation>, Sealing) {
        let mut block = self.memory[FIRST..FIRST + BLOCK].to_vec();
        let mut all = Vec::new();
        loop {
            match self.places {
                Some(places) if random.u8(0..4) == 0 => all.push(self.mutate_table(places, random)),
                _ => {
                    let (what, range, bytes) = self.mutate_block(&block, random);
                    block[range.clone()].copy_from_slice(&bytes);
                    all.push(Mutation {
                        what,
                        offset: FIRST + range.start,
                        bytes,
                    });
                }
            }
            if all.len() == 5 || random.bool() {
                break;
            }
        }
        let sealing = Sealing {
            wrong: (random.u8(0..16) == 0).then(|| random.u64(..).to_le_bytes()),
            copied: random.u8(0..4) != 0,
        };
        (all, sealing)
    }

    /// Adds to mutations those that follow if the info block is among them: of its checksum, and of its copy.
    pub fn sealed(&self, mutations: &[Mutation], sealing: Sealing) -> Vec<Mutation> {
        let mut all = mutations.to_vec();
        let mut block = self.memory[FIRST..FIRST + BLOCK].to_vec();
        let mut in_block = false;
        for mutation in mutations {
            if let Some(start) = mutation.offset.checked_sub(FIRST).filter(|&at| at < BLOCK) {
                block[start..start + mutation.bytes.len()].copy_from_slice(&mutation.bytes);
                in_block = true;
            }
        }
        if !in_block {
            return all;
        }
        match sealing.wrong {
            None => seal(&mut block, CHECKSUM),
            Some(wrong) => block[CHECKSUM].copy_from_slice(&wrong),
        }
        let checksum = block[CHECKSUM].to_vec();
        if let Some([_, _, copy]) = self.places.filter(|_| sealing.copied) {
            all.push(Mutation {
                what: "copy".into(),
                offset: copy,
                bytes: block,
            });
        }
        all.push(Mutation {
            what: "checksum".into(),
            offset: FIRST + CHECKSUM.start,
            bytes: checksum,
        });
        all
    }

    fn mutate_block(&self, block: &[u8], random: &mut Rng) -> (String, Range<usize>, Vec<u8>) {
        match random.u8(0..16) {
            0 => {
                let mut bytes = SIGNATURES[random.usize(0..3)].to_vec();
                if random.u8(0..4) == 0 {
                    bytes[random.usize(0..16)] ^= 1 << random.u8(0..8);
                }
                ("signature".into(), SIGNATURE, bytes)
            }
            1 => {
                let range = UUIDS[random.usize(0..2)].clone();
                let mut bytes = vec![0; range.len()];
                if random.bool() {
                    random.fill(&mut bytes);
                }
                (format!("uuid at {}", range.start), range, bytes)
            }
            2 => {
                let start = random.usize(0..BLOCK - 8);
                let mut bytes = vec![0; random.usize(1..=8)];
                random.fill(&mut bytes);
                (
                    format!("bytes at {start}"),
                    start..start + bytes.len(),
                    bytes,
                )
            }
            _ => {
                let fields = match self.kind {
                    Kind::Pfn => PFN,
                    Kind::Btt => BTT,
                };
                let field = &fields[random.usize(0..fields.len())];
                let range = field.range();
                let value = limit(
                    number(&block[range.clone()]),
                    self.memory.len() as u64,
                    random,
                );
                (field.name.into(), range, field.bytes(value))
            }
        }
    }

    /// Mutates an entry of the map or of the log of a BTT.
    fn mutate_table(&self, [map, log, _]: [usize; 3], random: &mut Rng) -> Mutation {
        let (name, start, entries) = match random.bool() {
            true => ("map", map, (log - map) / 4),
            false => ("log", log, LOG_GROUPS * LOG_GROUP / 4),
        };
        // The first entries are used most.
        let most = entries.min(1 << random.u32(1..20));
        let entry = random.usize(0..most);
        let offset = start + 4 * entry;
        let value = limit(
            number(&self.memory[offset..offset + 4]),
            self.memory.len() as u64,
            random,
        );
        // The two upper bits of a map entry are flags.
        let flags = random.u64(0..4) << 30;
        Mutation {
            what: format!("{name} entry {entry}"),
            offset,
            bytes: (value ^ flags).to_le_bytes()[..4].to_vec(),
        }
    }
}

/// Returns a text that names the mutations, each after a space.
pub fn describe(mutations: &[Mutation]) -> String {
    let texts: Vec<_> = mutations.iter().map(|one| format!(" {one}")).collect();
    texts.concat()
}

/// Returns a value that is likely to be at a limit of the one that is there now, or of a size in bytes.
pub fn limit(now: u64, size: u64, random: &mut Rng) -> u64 {
    match random.u8(0..14) {
        0 => 0,
        1 => random.u64(1..8),
        2 => u64::MAX,
        3 => u64::MAX >> random.u32(0..64),
        4 => 1 << random.u32(0..64),
        5 => (1_u64 << random.u32(0..64)).wrapping_sub(1),
        6 => now.wrapping_add(random.u64(1..4)),
        7 => now.wrapping_sub(random.u64(1..4)),
        8 => now.wrapping_mul(2),
        9 => now / 2,
        10 => size.wrapping_sub(random.u64(0..4) * 4096),
        11 => random.u64(0..size) & !0xfff,
        12 => random.u64(0..size) & !0x1f_ffff,
        _ => random.u64(..),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: Kind) -> Sample {
        let mut memory = vec![0; 1 << 20];
        let signature = match kind {
            Kind::Pfn => SIGNATURES[0],
            Kind::Btt => SIGNATURES[2],
        };
        memory[FIRST..FIRST + 16].copy_from_slice(signature);
        for (place, value) in BTT_PLACES
            .into_iter()
            .zip([0x8_0000_u64, 0x9_0000, 0xf_e000])
        {
            memory[FIRST + place..FIRST + place + 8].copy_from_slice(&value.to_le_bytes());
        }
        seal(&mut memory[FIRST..FIRST + BLOCK], CHECKSUM);
        Sample::new(kind, memory).unwrap()
    }

    fn text(kind: Kind, seed: u64) -> String {
        let sample = sample(kind);
        let (mutations, sealing) = sample.mutate(&mut Rng::with_seed(seed));
        describe(&sample.sealed(&mutations, sealing))
    }

    #[test]
    fn seed_gives_the_same_mutations() {
        for kind in [Kind::Pfn, Kind::Btt] {
            assert_eq!(text(kind, 7), text(kind, 7));
            assert_ne!(text(kind, 7), text(kind, 8));
        }
    }

    #[test]
    fn mutations_stay_in_the_metadata_and_most_are_sealed() {
        for kind in [Kind::Pfn, Kind::Btt] {
            let sample = sample(kind);
            let mut sealed = 0;
            for seed in 0..1000 {
                let mut memory = sample.memory.clone();
                let (mutations, sealing) = sample.mutate(&mut Rng::with_seed(seed));
                for mutation in sample.sealed(&mutations, sealing) {
                    let range = mutation.offset..mutation.offset + mutation.bytes.len();
                    assert!(
                        sample
                            .metadata()
                            .iter()
                            .any(|known| known.start <= range.start && range.end <= known.end),
                        "{mutation}"
                    );
                    memory[range].copy_from_slice(&mutation.bytes);
                }
                let mut block = memory[FIRST..FIRST + BLOCK].to_vec();
                let before = block.clone();
                seal(&mut block, CHECKSUM);
                sealed += usize::from(before == block);
            }
            assert!((850..1000).contains(&sealed), "{sealed}");
        }
    }

    #[test]
    fn checksum_is_right_for_some_of_the_mutations_too() {
        let sample = sample(Kind::Btt);
        for seed in 0..1000 {
            let (mutations, sealing) = sample.mutate(&mut Rng::with_seed(seed));
            if sealing.wrong.is_some() {
                continue;
            }
            let mut memory = sample.memory.clone();
            for mutation in sample.sealed(&mutations[1..], sealing) {
                let start = mutation.offset;
                memory[start..start + mutation.bytes.len()].copy_from_slice(&mutation.bytes);
            }
            let mut block = memory[FIRST..FIRST + BLOCK].to_vec();
            seal(&mut block, CHECKSUM);
            assert!(block == memory[FIRST..FIRST + BLOCK], "{seed}");
        }
    }

    #[test]
    fn samples_do_not_differ_by_their_uuids() {
        let mut other = sample(Kind::Btt).memory;
        let [_, _, copy] = sample(Kind::Btt).places.unwrap();
        for start in [FIRST, copy] {
            other[start..start + BLOCK][UUIDS[0].clone()].fill(7);
        }
        let other = Sample::new(Kind::Btt, other).unwrap();
        assert!(other.memory == sample(Kind::Btt).memory);
    }

    #[test]
    fn sample_of_another_kind_is_refused() {
        assert!(Sample::new(Kind::Btt, sample(Kind::Pfn).memory).is_err());
        assert!(Sample::new(Kind::Pfn, vec![0; 100]).is_err());
    }
}
