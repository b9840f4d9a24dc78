// SPDX-License-Identifier: GPL-2.0

//! Shared flushes in random interleavings of their threads, some of which fail.

use crate::abstractions::block::{Bio, DiskName};
use crate::abstractions::nd::Region;
use crate::abstractions::scope::Scope;
use crate::check_interleavings;
use crate::device::Device;
use crate::flush::{Flush, LastFlush};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

const INTERLEAVINGS: usize = 2_000;
/// Threads that wait for flushes, and threads that submit bios.
const THREADS: [usize; 2] = [3, 2];
/// Flushes that each thread requests.
const REQUESTS: u64 = 3;

/// Memory that stays: threads of shuttle, and bios, refer to it.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// Each message about a flush that takes long is followed by one about its end.
fn check_messages(messages: &[String]) {
    for pair in messages.chunks(2) {
        let [late, end] = pair else {
            panic!("an end is missing: {messages:?}");
        };

        assert!(late.contains("has not ended"), "{messages:?}");
        assert!(
            end.ends_with("has ended\n") || end.ends_with("has failed\n"),
            "{messages:?}"
        );
    }
}

/// Requests flushes from all threads, and checks each result. Returns the number of flushes of the region.
fn interleave() -> usize {
    let region = leak(Region::default());
    let ended = leak(AtomicU64::new(0));
    let scope = leak(Scope::new());
    let worker = shuttle::thread::spawn(|| scope.run_works());
    let device = Device::default();
    let flush = Flush::for_disk(region, &device, DiskName, scope).expect("there is memory");
    let flush = Arc::new(flush);
    let mut threads = Vec::new();

    for _ in 0..THREADS[0] {
        let flush = flush.clone();

        threads.push(shuttle::thread::spawn(move || {
            for _ in 0..REQUESTS {
                let arrived = region.now();
                let result = flush.now();

                region.check(arrived, result);
            }
        }));
    }
    for _ in 0..THREADS[1] {
        let flush = flush.clone();

        threads.push(shuttle::thread::spawn(move || {
            for _ in 0..REQUESTS {
                flush.then_end(Bio::new(region, ended));
            }
        }));
    }
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    scope.close();
    worker.join().expect("no thread panics");
    assert_eq!(ended.load(Ordering::Relaxed), THREADS[1] as u64 * REQUESTS);
    let flushes = region.flushes();

    let unbound = leak(Device::default());

    drop(LastFlush::new(Flush::clone(&flush), unbound));
    assert_eq!(region.flushes(), flushes + 1);
    assert_eq!(unbound.messages().len(), usize::from(region.has_failed()));
    check_messages(&device.messages());
    flushes
}

/// Submits bios while the system is suspended, and checks that no flush for several of them is under way then.
fn suspend() {
    let region = leak(Region::default());
    let ended = leak(AtomicU64::new(0));
    let scope = leak(Scope::new());
    let worker = shuttle::thread::spawn(|| scope.run_works());
    let device = Device::default();
    let flush = Flush::for_disk(region, &device, DiskName, scope).expect("there is memory");
    let flush = Arc::new(flush);
    let threads: Vec<_> = (0..THREADS[1])
        .map(|_| {
            let flush = flush.clone();

            shuttle::thread::spawn(move || {
                for _ in 0..REQUESTS {
                    flush.then_end(Bio::new(region, ended));
                    shuttle::thread::yield_now();
                }
            })
        })
        .collect();

    for _ in 0..2 {
        scope.suspend(|| {
            for _ in 0..4 {
                assert!(!region.is_busy());
                shuttle::thread::yield_now();
            }
        });
    }
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    scope.close();
    worker.join().expect("no thread panics");
    assert_eq!(ended.load(Ordering::Relaxed), THREADS[1] as u64 * REQUESTS);
}

#[test]
fn no_flush_for_bios_is_under_way_while_the_system_is_suspended() {
    check_interleavings(INTERLEAVINGS, suspend);
}

#[test]
fn each_request_has_the_result_of_a_flush_that_started_after_it() {
    let flushes = Arc::new(AtomicUsize::new(0));
    let count = flushes.clone();

    let interleavings = check_interleavings(INTERLEAVINGS, move || {
        count.fetch_add(interleave(), Ordering::Relaxed);
    });
    let requests = interleavings * (THREADS[0] + THREADS[1]) * REQUESTS as usize;
    let flushes = flushes.load(Ordering::Relaxed);

    println!("{interleavings} interleavings, {requests} requests, {flushes} flushes");
    assert!(
        flushes < requests * 2 / 3,
        "{flushes} flushes for {requests} requests"
    );
}
