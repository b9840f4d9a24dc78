// SPDX-License-Identifier: GPL-2.0

//! The bitmap of the pages that may have users, against a set of page frames.

use super::chunks::Chunks;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;

/// The pages of a chunk.
const CHUNK: u64 = 512;
/// Three words, and a part of another.
const PAGES: u64 = (3 * 64 + 5) * CHUNK + 7;

/// Any of the page frames, or one at or next to the edge of a chunk or of a word.
fn page() -> impl Strategy<Value = u64> {
    let beside = |unit: u64| {
        (0..=PAGES / unit, 0..3_u64)
            .prop_map(move |(n, shift)| (n * unit + shift).saturating_sub(1))
    };

    prop_oneof![0..PAGES, beside(CHUNK), beside(64 * CHUNK)].prop_map(|page| page.min(PAGES - 1))
}

/// The pages of one mapping: some, or all that there are.
fn pages() -> impl Strategy<Value = Range<u64>> {
    (page(), prop_oneof![1..4_u64, 1..3 * CHUNK, Just(PAGES)])
        .prop_map(|(first, len)| first..(first + len).min(PAGES))
}

/// The page frames that a walk from `pfn` on must look at.
fn walk(chunks: &Chunks, mut pfn: u64, end: u64) -> BTreeSet<u64> {
    let mut used = BTreeSet::new();

    while pfn < end {
        let (is_used, next) = chunks.chunk_of(pfn);

        assert!(next > pfn, "the walk goes on");
        if is_used {
            used.extend(pfn..next.min(end));
        }
        pfn = next;
    }
    used
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_walk_finds_the_chunks_of_all_pages_that_were_returned(
        origin in prop_oneof![Just(0), 0..1_u64 << 40],
        all in prop::collection::vec(pages(), 0..5),
        start in page(),
    ) {
        let range = origin << 12..=((origin + PAGES) << 12) - 1;
        let chunks = Chunks::new(&range).expect("there is memory");

        for pages in &all {
            chunks.mark(origin + pages.start, pages.end - pages.start);
        }
        let marked: BTreeSet<u64> = all.iter().cloned().flatten().map(|page| page / CHUNK).collect();
        let used: BTreeSet<u64> = (start..PAGES)
            .filter(|page| marked.contains(&(page / CHUNK)))
            .map(|page| origin + page)
            .collect();

        prop_assert_eq!(chunks.any(), !marked.is_empty());
        prop_assert_eq!(walk(&chunks, origin + start, origin + PAGES), used);
    }

    #[test]
    fn pages_that_are_not_there_are_not_marked(origin in 1_u64 << 32..1 << 40, pfn in any::<u64>(), pages in 1..4_u64) {
        let range = origin << 12..=((origin + CHUNK) << 12) - 1;
        let chunks = Chunks::new(&range).expect("there is memory");

        // The word of the only chunk has bits for 64.
        if pfn.wrapping_sub(origin) / CHUNK >= 64 && pfn.wrapping_add(pages).wrapping_sub(origin) / CHUNK >= 64 {
            chunks.mark(pfn, pages);
            prop_assert!(!chunks.any());
        }
    }
}
