// SPDX-License-Identifier: GPL-2.0

//! Errors that wait for a work item, pushed by several threads.

use crate::check_interleavings;
use crate::waiting::{Waiting, PLACES};
use proptest::prelude::*;
use shuttle::{check_random, thread};
use std::cell::RefCell;
use std::sync::Arc;

/// Takes all: the start and the end of each, and how many were lost.
fn taken(waiting: &Waiting) -> (Vec<(u64, u64)>, u64) {
    let all = RefCell::new(Vec::new());
    let lost =
        waiting.take_all(|addresses| all.borrow_mut().push((addresses.start, addresses.end)));

    (all.into_inner(), lost)
}

proptest! {
    #[test]
    fn an_error_is_taken_as_it_was_pushed(page in 0..1_u64 << 40, log in 0..17_u32) {
        check_random(
            move || {
                let waiting = Waiting::new();
                let length = 1 << log;
                let start = (page << 12) & !(length - 1);

                waiting.push(start..start + length);
                assert_eq!(taken(&waiting), (vec![(start, start + length)], 0));
                assert_eq!(taken(&waiting), (vec![], 0));
            },
            1,
        );
    }
}

#[test]
fn errors_without_a_place_are_counted() {
    check_random(
        || {
            let waiting = Waiting::new();

            for page in 0..PLACES as u64 + 3 {
                waiting.push(page << 12..(page + 1) << 12);
            }
            let (all, lost) = taken(&waiting);

            assert_eq!((all.len(), lost), (PLACES, 3));
            waiting.push(0..512);
            assert_eq!(taken(&waiting), (vec![(0, 512)], 0));
        },
        1,
    );
}

#[test]
fn error_that_waits_takes_one_place() {
    check_random(
        || {
            let waiting = Waiting::new();

            for _ in 0..PLACES + 3 {
                waiting.push(4096..8192);
            }
            waiting.push(8192..12288);
            assert_eq!(taken(&waiting), (vec![(4096, 8192), (8192, 12288)], 0));
        },
        1,
    );
}

#[test]
fn each_error_is_taken_once_while_others_are_pushed() {
    check_interleavings(500, || {
        let waiting = Arc::new(Waiting::new());
        let threads: Vec<_> = (0..3_u64)
            .map(|one| {
                let waiting = waiting.clone();

                thread::spawn(move || {
                    for page in 0..4 {
                        let start = (one * 4 + page) << 12;

                        waiting.push(start..start + 4096);
                    }
                })
            })
            .collect();
        let (mut all, _) = taken(&waiting);

        for one in threads {
            one.join().expect("the thread has not panicked");
        }
        all.extend(taken(&waiting).0);
        all.sort_unstable();
        assert!(all.iter().map(|(start, _)| start >> 12).eq(0..12));
    });
}
