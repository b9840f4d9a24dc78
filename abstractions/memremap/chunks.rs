// SPDX-License-Identifier: GPL-2.0

//! Which pages may have users.

use core::{
    ops::RangeInclusive,
    sync::atomic::{
        AtomicU64,
        Ordering, //
    }, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// The pages of a chunk: 2 MiB, the size of a huge page, with pages of 4 KiB.
const CHUNK: u64 = 512;

/// The bits of a word.
const WORD: u64 = u64::BITS as u64;

/// The bits of [`WORD`] chunks, as an atomic of the core library: a load of one of the `kernel`
/// crate's, which has no bit operations either, calls a C function.
struct Word(AtomicU64);

/// The pages that may have users: a bit for each chunk of pages.
///
/// A page gets its first user from a caller to whom its pfn was returned.
pub(in crate::abstractions) struct Chunks {
    /// The first page frame of the first chunk.
    origin: u64,
    bits: KVVec<Word>,
}

// For `Vec::from_elem`.
impl Clone for Word {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl Chunks {
    /// Creates a bitmap for the pages of `range`, without users. [`ENOMEM`].
    pub(super) fn new(range: &RangeInclusive<u64>) -> Result<Self> {
        let origin = range.start() >> PAGE_SHIFT;
        let last = (range.end() >> PAGE_SHIFT).saturating_sub(origin) / CHUNK;
        let words = usize::try_from(last / WORD)?.saturating_add(1);
        let bits = KVVec::from_elem(Word(AtomicU64::new(0)), words, GFP_KERNEL)?;

        Ok(Self { origin, bits })
    }

    /// Returns the word with the bit of a chunk, and that bit.
    #[inline]
    fn bit(&self, chunk: u64) -> Option<(&AtomicU64, u64)> {
        // CAST: A pfn fits on a 64-bit architecture.
        let word = self.bits.get((chunk / WORD) as usize)?;

        Some((&word.0, 1 << (chunk % WORD)))
    }

    /// Notes that the pfns of `pages` pages from `pfn` on are returned to a caller.
    #[inline]
    pub(in crate::abstractions) fn mark(&self, pfn: u64, pages: u64) {
        let first = pfn.wrapping_sub(self.origin);
        let last = first.wrapping_add(pages).wrapping_sub(1) / CHUNK;
        let mut chunk = first / CHUNK;

        while let Some((word, bit)) = self.bit(chunk) {
            // It is set nearly always: without the write, the word stays in the caches of all CPUs.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
            if chunk >= last {
                break;
            }
            chunk = chunk.wrapping_add(1);
        }
    }

    /// Returns whether the pfn of any page was returned to a caller.
    pub(super) fn any(&self) -> bool {
        self.bits
            .iter()
            .any(|word| word.0.load(Ordering::Relaxed) != 0)
    }

    /// Returns whether pages of the chunk with page frame `pfn` may have users, and the page frame
    /// behind the chunk, or behind all chunks of the word if none of these has users.
    pub(super) fn chunk_of(&self, pfn: u64) -> (bool, u64) {
        let chunk = pfn.wrapping_sub(self.origin) / CHUNK;
        let (word, bit) = self
            .bit(chunk)
            .map_or((0, 0), |(word, bit)| (word.load(Ordering::Relaxed), bit));
        let last = if word == 0 { chunk | (WORD - 1) } else { chunk };
        let next = last.saturating_add(1).saturating_mul(CHUNK);

        (word & bit != 0, self.origin.saturating_add(next))
    }
}
