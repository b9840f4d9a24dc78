// SPDX-License-Identifier: GPL-2.0

//! Mutated ioctl(2) requests to a disk, a bus and a DIMM (`include/uapi/linux/{fs,blkpg,ndctl}.h`).

use abstractions::raw_ioctl::{Place, Request};
use fastrand::Rng;
use std::ops::Range;

pub const BLKRRPART: u8 = 95;
pub const BLKROSET: u8 = 93;
pub const BLKZEROOUT: u8 = 127;
pub const ND_CMD_CLEAR_ERROR: u8 = 4;

const BLKRASET: u8 = 98;
const BLKFRASET: u8 = 100;
const BLKPG: u8 = 105;
const BLKBSZSET: u8 = 113;
const BLKDISCARD: u8 = 119;
const BLKSECDISCARD: u8 = 125;
const BLKGETDISKSEQ: u8 = 128;
/// `ND_CMD_CALL`, of a bus and of a DIMM.
const CALL: u8 = 10;
/// `ND_IOCTL_MAX_BUFLEN` of libnvdimm.
const LONGEST: u32 = 4 << 20;

/// What a request is made to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Disk,
    Bus,
    Dimm,
}

/// Returns a request to a device of this kind. `space` is where the namespace is in memory.
pub fn request(kind: Kind, random: &mut Rng, space: &Range<u64>) -> Request {
    let number = match kind {
        Kind::Disk => disk_number(random),
        Kind::Bus => random.choice([1, 1, 2, 3, 4, 4, 4, 4, CALL]).unwrap_or(4),
        Kind::Dimm => random
            .choice([1, 2, 3, 4, 5, 5, 6, 6, 7, 8, 9, CALL])
            .unwrap_or(4),
    };
    let number = match random.u8(0..16) {
        0 => random.u8(..),
        _ => number,
    };
    // The sequence number of a disk differs from boot to boot.
    let number = match (kind, number) {
        (Kind::Disk, BLKGETDISKSEQ) => BLKZEROOUT,
        (Kind::Disk, number) if !Request::is_disk_number(number) => BLKZEROOUT,
        (_, number) => number,
    };
    let mut bytes = match kind {
        Kind::Disk => disk_bytes(number, random, space.end - space.start),
        Kind::Bus => bus_bytes(number, random, space),
        Kind::Dimm => dimm_bytes(number, random),
    };
    if random.u8(0..16) == 0 && !bytes.is_empty() {
        let at = random.usize(0..bytes.len());
        bytes[at] = random.u8(..);
    }
    if kind == Kind::Dimm {
        spare_qemu(number, &mut bytes);
    }
    let encoded = match (kind, number) {
        (Kind::Disk, 112 | 114) => 0x8008,
        (Kind::Disk, BLKBSZSET) => 0x4008,
        (Kind::Disk, 130) => 0xc010,
        (Kind::Disk, 131 | 134..=136) => 0x4010,
        (Kind::Disk, 132 | 133) => 0x8004,
        (Kind::Disk, _) => 0,
        // libnvdimm ignores it.
        _ => 0xc000 | bytes.len() as u16,
    };
    Request {
        number,
        encoded: match random.u8(0..32) {
            0 => random.u16(..),
            _ => encoded,
        },
        link: (kind == Kind::Disk && number == BLKPG && random.u8(0..16) != 0).then_some(16),
        place: place(kind, number, bytes.len() as u16, random),
        bytes,
    }
}

fn place(kind: Kind, number: u8, length: u16, random: &mut Rng) -> Place {
    // The argument of these is a number.
    if kind == Kind::Disk && matches!(number, BLKRASET | BLKFRASET) {
        return Place::Low(random.u16(0..4096));
    }
    match random.u8(0..24) {
        0 => Place::ReadOnly,
        1 => Place::End(random.u16(0..=length)),
        2 => Place::End(length + random.u16(0..64)),
        3 => Place::Low(random.choice([0, 0, 8, 4088]).unwrap_or(0)),
        4 => Place::Kernel,
        _ => Place::Room,
    }
}

fn disk_number(random: &mut Rng) -> u8 {
    match random.u8(0..8) {
        0..3 => BLKZEROOUT,
        3 => random
            .choice([BLKDISCARD, BLKSECDISCARD])
            .unwrap_or(BLKDISCARD),
        4 => random
            .choice([BLKPG, BLKPG, BLKPG, BLKRRPART])
            .unwrap_or(BLKPG),
        5 => random
            .choice([BLKROSET, 97, BLKRASET, BLKFRASET, BLKBSZSET])
            .unwrap_or(97),
        _ => random.u8(93..137),
    }
}

/// Returns an offset, as a rule a multiple of 512 in the first part of `size` bytes, so that ranges meet.
fn offset(random: &mut Rng, size: u64) -> u64 {
    match random.u8(0..16) {
        0 => random.u64(..),
        1 => u64::MAX - random.u64(0..4096),
        2 => size - random.u64(0..64) * 512,
        3 => size + random.u64(0..64) * 512,
        4 => random.u64(0..size),
        5 => 0,
        6 | 7 => random.u64(0..size / 512) * 512,
        _ => random.u64(0..256) * 512,
    }
}

fn length(random: &mut Rng, size: u64) -> u64 {
    match random.u8(0..20) {
        0 => random.u64(..),
        1 => u64::MAX - random.u64(0..4096),
        2 => size,
        3 => 0,
        4 => random.u64(1..8192),
        5 => size + random.u64(0..4) * 512,
        6 => random.u64(0..size / 512) * 512,
        7 => random
            .choice([u64::from(u32::MAX), 1 << 32, 1 << 63])
            .unwrap_or(0),
        8 | 9 => 512,
        _ => random.u64(1..=32) * 512,
    }
}

/// Returns the length of a buffer behind the request.
fn size(random: &mut Rng) -> u32 {
    match random.u8(0..16) {
        0 => 0,
        1 => u32::MAX - random.u32(0..128),
        2 => LONGEST - random.u32(0..256),
        3 => LONGEST + random.u32(0..64),
        4 => random.u32(..),
        5 => 256 - random.u32(0..80),
        _ => random.u32(0..128),
    }
}

fn disk_bytes(number: u8, random: &mut Rng, size: u64) -> Vec<u8> {
    let range = [offset(random, size), length(random, size)];
    match number {
        BLKPG => {
            let op = random.u64(0..5);
            let part = match random.u8(0..8) {
                0 => random.u64(..),
                _ => random.u64(0..8),
            };
            let mut bytes = words(&[op, random.u64(0..200), 0, range[0], range[1], part]);
            bytes.resize(24 + 152, 0);
            bytes
        }
        BLKROSET => random.u32(0..2).to_le_bytes().to_vec(),
        BLKBSZSET => {
            let block = random.choice([512, 1024, 4096, 4096, 8192, 0, 100, u32::MAX]);
            block.unwrap_or(512).to_le_bytes().to_vec()
        }
        _ => words(&range),
    }
}

fn bus_bytes(number: u8, random: &mut Rng, space: &Range<u64>) -> Vec<u8> {
    let bytes = space.end - space.start;
    let address = match random.u8(0..16) {
        0 => offset(random, bytes),
        _ => space.start.wrapping_add(offset(random, bytes)),
    };
    let range = length(random, bytes);
    match number {
        1 => words(&[address, range, 0, 0]),
        2 => words(&[address, range, random.u64(..), 0]),
        3 => [0_u32.to_le_bytes(), size(random).to_le_bytes()].concat(),
        CALL => call(random),
        // What was cleared is an output, but libnvdimm reads it to tell whether the namespace is in use.
        _ => {
            let cleared = match random.u8(0..4) {
                0 => length(random, bytes),
                1 => bytes + random.u64(0..64) * 512,
                _ => 0,
            };
            words(&[address, range, 0, cleared])
        }
    }
}

fn dimm_bytes(number: u8, random: &mut Rng) -> Vec<u8> {
    match number {
        4 => vec![0; 12],
        // An offset or an opcode, a length, and what follows.
        5 | 6 | 9 => {
            let mut bytes = [size(random).to_le_bytes(), size(random).to_le_bytes()].concat();
            bytes.resize(8 + random.usize(0..200), 0x5a);
            bytes
        }
        CALL => call(random),
        _ => vec![0; random.usize(0..140)],
    }
}

/// Changes a request that QEMU would end at: its `nvdimm_validate_rw_label_data` asserts that the length is not 0.
fn spare_qemu(number: u8, bytes: &mut [u8]) {
    match number {
        5 | 6 if bytes[4..8] == [0; 4] => bytes[4] = 1,
        // The same by `nd_command`, with a payload that may be too short for a length.
        CALL if matches!(bytes[8..12], [5 | 6, 0, 0, 0]) => bytes[8] = 4,
        _ => {}
    }
}

/// `struct nd_cmd_pkg` and its payload.
fn call(random: &mut Rng) -> Vec<u8> {
    let wild = |random: &mut Rng, most: u64| match random.u8(0..8) {
        0 => random.u64(..),
        1 => random.u64(0..64),
        _ => random.u64(0..most),
    };
    let sizes = u64::from(size(random)) | (u64::from(size(random)) << 32);
    let mut bytes = words(&[wild(random, 2), wild(random, 12), sizes, 0, 0, 0, 0, 0]);
    bytes.extend((0..random.usize(0..128)).map(|_| random.u8(..)));
    bytes
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Range<u64> = 512 << 20..520 << 20;

    #[test]
    fn seed_gives_the_same_requests() {
        for kind in [Kind::Disk, Kind::Bus, Kind::Dimm] {
            let made = |seed| request(kind, &mut Rng::with_seed(seed), &SPACE);
            assert_eq!(made(7), made(7));
            assert!((0..8).any(|seed| made(seed) != made(7)));
        }
    }

    #[test]
    fn disk_gets_no_request_with_further_addresses() {
        for seed in 0..10_000 {
            let request = request(Kind::Disk, &mut Rng::with_seed(seed), &SPACE);
            assert!(Request::is_disk_number(request.number), "{request:?}");
            assert_ne!(request.number, BLKGETDISKSEQ);
        }
    }

    #[test]
    fn qemu_gets_no_empty_range_of_labels() {
        for seed in 0..10_000 {
            let Request { number, bytes, .. } =
                request(Kind::Dimm, &mut Rng::with_seed(seed), &SPACE);
            let empty = matches!(number, 5 | 6) && bytes[4..8] == [0; 4];
            let wrapped = number == CALL && matches!(bytes[8..12], [5 | 6, 0, 0, 0]);
            assert!(!empty && !wrapped, "{bytes:?}");
        }
    }

    #[test]
    fn most_ranges_are_valid() {
        let valid = |seed: &u64| {
            let bytes = disk_bytes(BLKZEROOUT, &mut Rng::with_seed(*seed), 8 << 20);
            let [start, length] = [&bytes[..8], &bytes[8..]].map(crate::layout::number);
            let end = start.checked_add(length);
            (start | length) % 512 == 0 && length != 0 && end.is_some_and(|end| end <= 8 << 20)
        };
        let count = (0..1000).filter(valid).count();
        assert!((400..900).contains(&count), "{count}");
    }
}
