// SPDX-License-Identifier: GPL-2.0

//! Bytes that tell where they belong.

/// A file full of bytes of which each depends on its place and on a seed, so that a block that is
/// missing, stale or in another's place is found.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    seed: u64,
}

/// Bytes that are made at a time.
const WORD: usize = 8;

impl Pattern {
    /// The pattern of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Eight bytes of it: the finalizer of SplitMix64, a permutation of the word's number.
    fn word(&self, number: u64) -> [u8; WORD] {
        let mut x = number.wrapping_add(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)).to_le_bytes()
    }

    /// The byte at `place` of the file.
    pub fn byte(&self, place: u64) -> u8 {
        self.word(place / WORD as u64)[(place % WORD as u64) as usize]
    }

    /// Its bytes from `place` on.
    pub fn fill(&self, bytes: &mut [u8], place: u64) {
        let head = (place.wrapping_neg() % WORD as u64) as usize;
        let (head, rest) = bytes.split_at_mut(head.min(bytes.len()));
        for (index, byte) in head.iter_mut().enumerate() {
            *byte = self.byte(place + index as u64);
        }
        let start = (place + head.len() as u64) / WORD as u64;
        for (number, word) in (start..).zip(rest.chunks_mut(WORD)) {
            word.copy_from_slice(&self.word(number)[..word.len()]);
        }
    }

    /// The index of the first of these bytes, which stand from `place` on, that is not of the
    /// pattern.
    pub fn first_difference(&self, bytes: &[u8], place: u64) -> Option<usize> {
        let mut wanted = [0; 512];
        for (number, piece) in bytes.chunks(wanted.len()).enumerate() {
            let before = number * wanted.len();
            let wanted = &mut wanted[..piece.len()];
            self.fill(wanted, place + before as u64);
            if piece != wanted {
                return piece
                    .iter()
                    .zip(wanted)
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
        fn a_piece_is_a_piece_of_the_whole(seed: u64, start in 0usize..40, length in 0usize..1200) {
            let pattern = Pattern::new(seed);
            let mut whole = [0; 1300];
            pattern.fill(&mut whole, 0);
            let mut piece = vec![0; length];
            pattern.fill(&mut piece, start as u64);
            prop_assert_eq!(&piece, &whole[start..start + length]);
            prop_assert_eq!(pattern.first_difference(&piece, start as u64), None);
            for (index, &byte) in piece.iter().enumerate() {
                prop_assert_eq!(byte, pattern.byte((start + index) as u64));
            }
        }

        #[test]
        fn a_wrong_byte_is_found(start in 0u64..100, at in 0usize..1000, flip in 1u8..) {
            let pattern = Pattern::new(1);
            let mut bytes = [0; 1000];
            pattern.fill(&mut bytes, start);
            bytes[at] ^= flip;
            prop_assert_eq!(pattern.first_difference(&bytes, start), Some(at));
        }

        #[test]
        fn a_block_in_anothers_place_is_found(a in 0u64..1000, b in 0u64..1000) {
            prop_assume!(a != b);
            let pattern = Pattern::new(7);
            let mut bytes = [0; 512];
            pattern.fill(&mut bytes, a * 512);
            prop_assert!(pattern.first_difference(&bytes, b * 512).is_some());
        }
    }
}
