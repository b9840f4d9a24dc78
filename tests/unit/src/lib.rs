// SPDX-License-Identifier: GPL-2.0

//! The driver's pure code, compiled for the host and compared with simple models.

// `units.rs` imports it from the crate root, as in the driver.
#[cfg(test)]
use PAGE_SHIFT_4K as PAGE_SHIFT;

/// Pages of 4 KiB.
pub const PAGE_SHIFT_4K: usize = 12;

#[cfg(test)]
#[path = "../../../units.rs"]
mod units;

// The rest of the driver sees these in the place of the `kernel` crate, of its own abstractions and of other modules.
#[cfg(test)]
extern crate self as kernel;
#[cfg(test)]
#[expect(unsafe_code, reason = "as in the driver")]
mod abstractions;
#[cfg(test)]
#[expect(dead_code, reason = "other modules use the rest")]
#[path = "../../../badblocks.rs"]
mod badblocks;
#[cfg(test)]
mod badblocks_test;
#[cfg(test)]
#[path = "../../../badrange.rs"]
mod badrange;
#[cfg(test)]
pub mod alloc {
    pub use crate::prelude::Flags;
}
#[cfg(test)]
pub mod device;
#[cfg(test)]
#[path = "../../../flush.rs"]
mod flush;
#[cfg(test)]
mod flush_test;
#[cfg(test)]
pub mod page {
    pub use crate::PAGE_SHIFT_4K as PAGE_SHIFT;
}
#[cfg(test)]
pub mod prelude;
#[cfg(test)]
#[expect(dead_code, reason = "nodes are moved to other stocks by other modules")]
#[path = "../../../ranges.rs"]
mod ranges;
#[cfg(test)]
mod ranges_test;
#[cfg(test)]
pub mod rbtree;
/// The driver's scope; `abstractions::scope` also runs work items.
#[cfg(test)]
#[expect(unsafe_code, reason = "it is one of the driver's abstractions")]
#[path = "../../../abstractions/scope.rs"]
mod registrations;
#[cfg(test)]
pub mod sync;
#[cfg(test)]
pub mod time;
#[cfg(test)]
#[path = "../../../abstractions/memory_errors/waiting.rs"]
mod waiting;
#[cfg(test)]
mod waiting_test;

/// Calls `test` in `number` random interleavings of its threads, which are the same in each run; where `INTERLEAVINGS` is
/// set in the environment, in as many new ones. Returns the number. A failure prints a seed: with that in
/// `SHUTTLE_RANDOM_SEED`, the first interleaving is the one that fails.
#[cfg(test)]
fn check_interleavings(number: usize, test: impl Fn() + Send + Sync + 'static) -> usize {
    let Ok(wanted) = std::env::var("INTERLEAVINGS") else {
        shuttle::check_random_with_seed(test, 1, number);
        return number;
    };
    let wanted = wanted.parse().expect("INTERLEAVINGS is a number");

    shuttle::check_random(test, wanted);
    wanted
}

#[cfg(test)]
mod tests {
    use super::units::{
        half_open,
        intersection,
        sectors_of,
        Span, //
    };
    use proptest::prelude::*;

    const PAGE: usize = 4096;
    const SECTOR: usize = 512;
    const SIZE: usize = 64 * PAGE;

    /// An offset in the data area: any, or one at or next to the edge of a sector or page.
    fn offset() -> impl Strategy<Value = usize> {
        let beside = |unit: usize| {
            (0..=SIZE / unit, 0..3_usize)
                .prop_map(move |(n, shift)| (n * unit + shift).saturating_sub(1).min(SIZE))
        };

        prop_oneof![0..=SIZE, beside(SECTOR), beside(PAGE)]
    }

    /// Any span of the data area, including empty ones and those at its ends.
    fn span() -> impl Strategy<Value = Span> {
        (offset(), offset()).prop_map(|(a, b)| {
            Span::of_bytes(a.min(b), a.abs_diff(b), SIZE).expect("inside of the area")
        })
    }

    /// Any number, or one at or next to a power of two or to the largest one.
    fn number() -> impl Strategy<Value = u64> {
        let beside = |(bit, shift): (u32, u64)| (1_u64 << bit).wrapping_add(shift).wrapping_sub(1);

        prop_oneof![
            any::<u64>(),
            (0..64_u32, 0..3_u64).prop_map(beside),
            (0..3_u64).prop_map(|n| u64::MAX - n)
        ]
    }

    fn bytes(span: &Span) -> std::ops::Range<usize> {
        span.offset()..span.offset() + span.len()
    }

    #[test]
    fn span_is_checked_at_the_ends_of_the_area() {
        assert!(Span::of_bytes(SIZE, 0, SIZE).is_some());
        assert!(Span::of_bytes(SIZE, 1, SIZE).is_none());
        assert!(Span::of_bytes(SIZE + 1, 0, SIZE).is_none());
        assert!(Span::of_bytes(0, SIZE, SIZE).is_some());
        assert!(Span::of_sectors((SIZE / SECTOR) as u64 - 1, 512, SIZE).is_some());
        assert!(Span::of_sectors((SIZE / SECTOR) as u64 - 1, 513, SIZE).is_none());
        assert!(Span::of_pages(63, 1, SIZE).is_some());
        assert!(Span::of_pages(63, 2, SIZE).is_none());
    }

    #[test]
    fn span_with_overflowing_shift_is_refused() {
        assert_eq!(Span::of_sectors(1 << 55, 512, usize::MAX), None);
        assert_eq!(Span::of_sectors(u64::MAX, 512, SIZE), None);
        assert_eq!(Span::of_pages(1 << 52, 1, usize::MAX), None);
        assert_eq!(Span::of_pages(1, u64::MAX, usize::MAX), None);
        assert_eq!(Span::of_bytes(usize::MAX, 1, usize::MAX), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..Default::default() })]

        #[test]
        fn span_is_created_if_and_only_if_it_fits(
            offset in offset(),
            len in offset(),
            size in offset(),
        ) {
            let made = Span::of_bytes(offset, len, size);

            prop_assert_eq!(made.is_some(), offset + len <= size);
            if let Some(span) = made {
                prop_assert_eq!((span.offset(), span.len()), (offset, len));
            }
        }

        #[test]
        fn span_of_sectors_and_pages_equals_span_of_bytes(sector in 0..1024_u64, page in 0..128_u64, n in 0..64_u64) {
            let bytes = n as usize * SECTOR;

            prop_assert_eq!(
                Span::of_sectors(sector, bytes as u32, SIZE),
                Span::of_bytes(sector as usize * SECTOR, bytes, SIZE)
            );
            prop_assert_eq!(
                Span::of_pages(page, n, SIZE),
                Span::of_bytes(page as usize * PAGE, n as usize * PAGE, SIZE)
            );
        }

        #[test]
        fn conversions_are_exact_up_to_the_largest_numbers(
            a in number(),
            b in number(),
            base in number(),
            size in number(),
            len in any::<u32>(),
        ) {
            let exact = |number: u64| u128::from(number);
            let touched = |bytes: &std::ops::Range<u64>, unit: u64| {
                exact(bytes.start / unit)..exact(bytes.end).div_ceil(exact(unit))
            };
            let wide = |range: std::ops::Range<u64>| exact(range.start)..exact(range.end);
            let range = a.min(b)..a.max(b);
            let base = base.min(range.start);
            let span = Span::of_bytes(range.start as usize, (range.end - range.start) as usize, usize::MAX)
                .expect("inside of the numbers");

            prop_assert_eq!(
                Span::of_sectors(a, len, size as usize).is_some(),
                exact(a) * 512 + exact(len.into()) <= exact(size)
            );
            prop_assert_eq!(
                Span::of_pages(a, b, size as usize).is_some(),
                (exact(a) + exact(b)) * 4096 <= exact(size)
            );
            // But for the last number itself.
            prop_assert_eq!(
                exact(half_open(&(range.start..=range.end)).end),
                (exact(range.end) + 1).min(exact(u64::MAX))
            );
            if !range.is_empty() {
                let pages = touched(&range, 4096);

                prop_assert_eq!(
                    wide(sectors_of(&range, base)),
                    touched(&(range.start - base..range.end - base), 512)
                );
                prop_assert_eq!(wide(span.sectors_of_pages()), pages.start * 8..pages.end * 8);
            }
            let mut rest = span;
            let front = rest.take_to_page_of(size);
            let page = exact(size / 8) * 4096;

            prop_assert_eq!(exact(front.len() as u64), page.saturating_sub(exact(range.start)).min(exact(range.end - range.start)));
            prop_assert_eq!(rest.offset() + rest.len(), span.offset() + span.len());
        }

        #[test]
        fn take_returns_all_bytes_in_order(mut rest in span(), piece in 1..9000_usize) {
            let all = bytes(&rest);
            let mut next = all.start;

            while rest.len() > 0 {
                let head = rest.take(piece);

                prop_assert!(head.len() <= piece && head.len() > 0);
                prop_assert_eq!(head.offset(), next);
                next += head.len();
                prop_assert_eq!(bytes(&rest), next..all.end);
            }
            prop_assert_eq!(next, all.end);
        }

        #[test]
        fn sectors_have_a_byte_of_the_span(span in span()) {
            let sectors = span.sectors();
            let touched = |sector: u64| {
                let first = sector as usize * SECTOR;

                span.len() > 0 && first < bytes(&span).end && bytes(&span).start < first + SECTOR
            };

            for sector in 0..(SIZE / SECTOR) as u64 {
                prop_assert_eq!(touched(sector), sectors.contains(&sector));
            }
        }

        #[test]
        fn sectors_of_pages_are_in_pages_with_a_byte_of_the_span(span in span()) {
            let sectors = span.sectors_of_pages();
            let touched = |sector: u64| {
                let first = sector as usize * SECTOR / PAGE * PAGE;

                span.len() > 0 && first < bytes(&span).end && bytes(&span).start < first + PAGE
            };

            for sector in 0..(SIZE / SECTOR) as u64 {
                prop_assert_eq!(touched(sector), sectors.contains(&sector));
            }
            prop_assert!(sectors.end <= (SIZE / SECTOR) as u64);
        }

        #[test]
        fn take_page_returns_all_bytes_page_by_page(mut rest in span()) {
            let all = bytes(&rest);
            let mut next = all.start;

            while rest.len() > 0 {
                let part = bytes(&rest.take_page());

                prop_assert_eq!(part.start, next);
                prop_assert_eq!(part.start / PAGE, (part.end - 1) / PAGE);
                prop_assert!(part.end == all.end || part.end % PAGE == 0);
                next = part.end;
            }
            prop_assert_eq!(next, all.end);
        }

        #[test]
        fn take_to_page_of_leaves_the_bytes_from_that_page_on(all in span(), sector in 0..2 * SIZE / SECTOR) {
            let (mut rest, page) = (all, sector * SECTOR / PAGE * PAGE);
            let front = bytes(&rest.take_to_page_of(sector as u64));

            prop_assert_eq!(front.start, all.offset());
            prop_assert_eq!(front.end, bytes(&rest).start);
            prop_assert_eq!(bytes(&rest).end, bytes(&all).end);
            prop_assert!(front.end <= page.max(all.offset()));
            prop_assert!(rest.len() == 0 || bytes(&rest).start >= page);
        }

        #[test]
        fn whole_pages_and_sectors_are_covered(span in span()) {
            let covers = |unit| bytes(&span)
                .all(|byte| bytes(&span).contains(&(byte / unit * unit))
                    && bytes(&span).contains(&(byte / unit * unit + unit - 1)));

            if span.len() > 0 {
                prop_assert_eq!(span.is_whole_pages(), covers(PAGE));
                prop_assert_eq!(span.is_whole_sectors(), covers(512));
            }
        }

        #[test]
        fn half_open_has_the_same_addresses(start in 0..64_u64, len in 0..64_u64) {
            let range = start..=start + len;
            prop_assert_eq!(half_open(&range).collect::<Vec<_>>(), range.collect::<Vec<_>>());
        }

        #[test]
        fn intersection_has_the_common_addresses(a in 0..64_u64, n in 0..64_u64, b in 0..64_u64, m in 0..64_u64) {
            let (a, b) = (a..a + n, b..b + m);
            let both: Vec<u64> = a.clone().filter(|x| b.contains(x)).collect();
            prop_assert_eq!(intersection(&a, &b).map_or(Vec::new(), |range| range.collect()), both);
        }

        #[test]
        fn sectors_of_addresses_have_one_of_the_addresses(base in 0..4096_u64, start in 0..8192_u64, len in 0..8192_u64) {
            let sectors = sectors_of(&(base + start..base + start + len), base);
            let held: Vec<u64> = (0..64).filter(|s| (0..512).any(|b| (start..start + len).contains(&(s * 512 + b)))).collect();
            prop_assert_eq!(sectors.collect::<Vec<_>>(), held);
        }

        #[test]
        fn whole_pages_before_counts_pages_in_front_of_the_sector(first in 0..64_u64, pages in 0..64_u64, at in 0..512_u64) {
            let pages = pages.min(64 - first);
            let span = Span::of_pages(first, pages, SIZE).expect("inside of the area");
            let good = (first..first + pages).take_while(|page| page * 8 + 8 <= at).count();

            if at >= first * 8 {
                prop_assert_eq!(span.whole_pages_before(at), good as u64);
            }
        }
    }
}
