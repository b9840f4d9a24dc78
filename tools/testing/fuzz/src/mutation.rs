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
pub struct Mutation {
    what: String,
    /// Offset in the namespace.
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

impl Sample {
    /// Fails if the memory does not have an info block of this kind.
    pub fn new(kind: Kind, memory: Vec<u8>) -> Result<Self> {
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
    pub fn mutate(&self, random: &mut Rng) -> Vec<Mutation> {
        let mut block = self.memory[FIRST..FIRST + BLOCK].to_vec();
        let mut all = Vec::new();
        let mut of_block = false;
        loop {
            match self.places {
                Some(places) if random.u8(0..4) == 0 => all.push(self.mutate_table(places, random)),
                _ => {
                    let (what, range, bytes) = self.mutate_block(&block, random);
                    block[range.clone()].copy_from_slice(&bytes);
                    of_block = true;
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
        if of_block {
            self.finish(&mut block, &mut all, random);
        }
        all
    }

    /// Adds the checksum, and mutates the copy of the info block alike, or not.
    fn finish(&self, block: &mut [u8], all: &mut Vec<Mutation>, random: &mut Rng) {
        if random.u8(0..16) != 0 {
            seal(block);
        } else {
            random.fill(&mut block[CHECKSUM]);
        }
        let checksum = block[CHECKSUM].to_vec();
        let copied = self.places.filter(|_| random.u8(0..4) != 0);
        if let Some([_, _, copy]) = copied {
            all.push(Mutation {
                what: "copy".into(),
                offset: copy,
                bytes: block.to_vec(),
            });
        }
        all.push(Mutation {
            what: "checksum".into(),
            offset: FIRST + CHECKSUM.start,
            bytes: checksum,
        });
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
                let range = field.offset..field.offset + field.length;
                let value = self.value(number(&block[range.clone()]), random);
                let bytes = value.to_le_bytes()[..field.length].to_vec();
                (field.name.into(), range, bytes)
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
        let value = self.value(number(&self.memory[offset..offset + 4]), random);
        // The two upper bits of a map entry are flags.
        let flags = random.u64(0..4) << 30;
        Mutation {
            what: format!("{name} entry {entry}"),
            offset,
            bytes: (value ^ flags).to_le_bytes()[..4].to_vec(),
        }
    }

    /// Returns a value that is likely to be at a limit.
    fn value(&self, now: u64, random: &mut Rng) -> u64 {
        let size = self.memory.len() as u64;
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
        seal(&mut memory[FIRST..FIRST + BLOCK]);
        Sample::new(kind, memory).unwrap()
    }

    fn text(kind: Kind, seed: u64) -> String {
        let mutations = sample(kind).mutate(&mut Rng::with_seed(seed));
        let text: Vec<_> = mutations.iter().map(|one| format!("{one} ")).collect();
        text.concat()
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
                for mutation in sample.mutate(&mut Rng::with_seed(seed)) {
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
                seal(&mut block);
                sealed += usize::from(before == block);
            }
            assert!((850..1000).contains(&sealed), "{sealed}");
        }
    }

    #[test]
    fn sample_of_another_kind_is_refused() {
        assert!(Sample::new(Kind::Btt, sample(Kind::Pfn).memory).is_err());
        assert!(Sample::new(Kind::Pfn, vec![0; 100]).is_err());
    }
}
