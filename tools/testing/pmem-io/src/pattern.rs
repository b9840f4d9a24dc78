// SPDX-License-Identifier: GPL-2.0

//! File contents in which each byte depends on its offset.

/// Contents that depend on the file offset and on a seed, to detect blocks that are missing, stale
/// or at the wrong offset.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    seed: u64,
}

/// Bytes that are generated at a time.
const WORD: usize = 8;

impl Pattern {
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Returns word `number`: the finalizer of SplitMix64, a permutation of the numbers.
    fn word(&self, number: u64) -> [u8; WORD] {
        let mut x = number.wrapping_add(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)).to_le_bytes()
    }

    /// Returns the byte at `offset`.
    pub fn byte(&self, offset: u64) -> u8 {
        self.word(offset / WORD as u64)[(offset % WORD as u64) as usize]
    }

    /// Fills `bytes` with the pattern from `offset`.
    pub fn fill(&self, bytes: &mut [u8], offset: u64) {
        let head = (offset.wrapping_neg() % WORD as u64) as usize;
        let (head, rest) = bytes.split_at_mut(head.min(bytes.len()));
        for (index, byte) in head.iter_mut().enumerate() {
            *byte = self.byte(offset + index as u64);
        }
        let start = (offset + head.len() as u64) / WORD as u64;
        for (number, word) in (start..).zip(rest.chunks_mut(WORD)) {
            word.copy_from_slice(&self.word(number)[..word.len()]);
        }
    }

    /// Returns the index of the first of `bytes`, which start at `offset`, that differs.
    pub fn first_difference(&self, bytes: &[u8], offset: u64) -> Option<usize> {
        let mut expected = [0; 512];
        for (number, part) in bytes.chunks(expected.len()).enumerate() {
            let before = number * expected.len();
            let expected = &mut expected[..part.len()];
            self.fill(expected, offset + before as u64);
            if part != expected {
                return part
                    .iter()
                    .zip(expected)
                    .position(|(a, b)| a != b)
                    .map(|index| before + index);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn part_of_a_fill_is_fill_of_the_part(seed: u64, start in 0usize..40, length in 0usize..1200) {
            let pattern = Pattern::new(seed);
            let mut whole = [0; 1300];
            pattern.fill(&mut whole, 0);
            let mut part = vec![0; length];
            pattern.fill(&mut part, start as u64);
            prop_assert_eq!(&part, &whole[start..start + length]);
            prop_assert_eq!(pattern.first_difference(&part, start as u64), None);
            for (index, &byte) in part.iter().enumerate() {
                prop_assert_eq!(byte, pattern.byte((start + index) as u64));
            }
        }

        #[test]
        fn first_difference_finds_a_wrong_byte(start in 0u64..100, at in 0usize..1000, flip in 1u8..) {
            let pattern = Pattern::new(1);
            let mut bytes = [0; 1000];
            pattern.fill(&mut bytes, start);
            bytes[at] ^= flip;
            prop_assert_eq!(pattern.first_difference(&bytes, start), Some(at));
        }

        #[test]
        fn first_difference_finds_a_misplaced_block(a in 0u64..1000, b in 0u64..1000) {
            prop_assume!(a != b);
            let pattern = Pattern::new(7);
            let mut bytes = [0; 512];
            pattern.fill(&mut bytes, a * 512);
            prop_assert!(pattern.first_difference(&bytes, b * 512).is_some());
        }
    }
}
