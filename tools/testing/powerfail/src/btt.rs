// SPDX-License-Identifier: GPL-2.0

//! Reads a block translation table as a driver does after a power failure.
//!
//! Documentation/driver-api/nvdimm/btt.rst of the kernel; UEFI 2.7, chapter 6. One arena, as a small namespace has.

use anyhow::{Context, Result, bail, ensure};

const SIGNATURE: &[u8; 16] = b"BTT_ARENA_INFO\0\0";
/// Where the info block is: behind a gap in version 1.1, at the start in version 2.0.
const STARTS: [usize; 2] = [4096, 0];
/// Bytes of a log group: four entries, of which two are used.
const GROUP: usize = 64;
/// Flags of a map entry.
const ERROR: u32 = 1 << 30;
const ZERO: u32 = 1 << 31;

/// An arena of an image.
pub struct Btt<'a> {
    arena: &'a [u8],
    block: usize,
    blocks: u32,
    data: usize,
    map: usize,
    /// Map entries that recovery replaces: the log is newer.
    recovered: Vec<(u32, u32)>,
}

fn number(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes
        .get(at..at.saturating_add(4))
        .context("an offset is outside the arena")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

fn offset(bytes: &[u8], at: usize) -> Result<usize> {
    let (low, high) = (number(bytes, at)?, number(bytes, at + 4)?);
    Ok(((u64::from(high) << 32) | u64::from(low)) as usize)
}

impl<'a> Btt<'a> {
    /// Finds the arena of a namespace's memory, and what recovery does to its map.
    pub fn new(memory: &'a [u8]) -> Result<Self> {
        let arena = STARTS.iter().find_map(|&start| {
            memory
                .get(start..)
                .filter(|arena| arena.starts_with(SIGNATURE))
        });
        let arena = arena.context("there is no BTT")?;
        let mut btt = Self {
            arena,
            block: number(arena, 64)? as usize,
            blocks: number(arena, 60)?,
            data: offset(arena, 88)?,
            map: offset(arena, 96)?,
            recovered: Vec::new(),
        };
        let (lanes, log) = (number(arena, 72)? as usize, offset(arena, 104)?);
        for lane in 0..lanes {
            if let Some(entry) = btt
                .recover(log + lane * GROUP)
                .with_context(|| format!("lane {lane}"))?
            {
                btt.recovered.push(entry);
            }
        }
        Ok(btt)
    }

    /// Completes the last write of a lane, if the map does not have it. Returns the block and its new place.
    fn recover(&self, group: usize) -> Result<Option<(u32, u32)>> {
        let sequence = |entry: usize| number(self.arena, group + entry * 16 + 12);
        let newer = match (sequence(0)?, sequence(1)?) {
            (0, _) => 1,
            (_, 0) => 0,
            (first, second) if first == second || first > 3 || second > 3 => {
                bail!("the log has sequence numbers {first} and {second}")
            }
            // They are 1, 2, 3, 1, …
            (first, second) => usize::from(second == first % 3 + 1),
        };
        let entry = group + newer * 16;
        let field = |index: usize| {
            Ok::<_, anyhow::Error>(number(self.arena, entry + index * 4)? & !(ERROR | ZERO))
        };
        let (block, old, new) = (field(0)?, field(1)?, field(2)?);
        let unwritten = sequence(newer)? == 0 || old == new;
        Ok((!unwritten && self.mapped(block)? == Some(old)).then_some((block, new)))
    }

    /// Returns where the map has a block; none for zeros.
    fn mapped(&self, block: u32) -> Result<Option<u32>> {
        let entry = number(self.arena, self.map + block as usize * 4)?;
        Ok(match (entry & ERROR != 0, entry & ZERO != 0) {
            (false, false) => Some(block),
            (true, true) => Some(entry & !(ERROR | ZERO)),
            (false, true) => None,
            (true, false) => bail!("block {block} is marked as bad"),
        })
    }

    /// Reads a block.
    pub fn read(&self, block: u32) -> Result<Vec<u8>> {
        ensure!(block < self.blocks, "block {block} of {}", self.blocks);
        let recovered = self
            .recovered
            .iter()
            .find(|(recovered, _)| *recovered == block);
        let place = match recovered {
            Some((_, place)) => Some(*place),
            None => self.mapped(block)?,
        };
        let Some(place) = place else {
            return Ok(vec![0; self.block]);
        };
        let at = self.data + place as usize * self.block;
        let bytes = self.arena.get(at..at + self.block);
        Ok(bytes
            .with_context(|| format!("block {block} is mapped to {place}"))?
            .to_vec())
    }
}
