// SPDX-License-Identifier: GPL-2.0

//! Handles of registrations that are dropped by several threads, or leaked.

use crate::check_interleavings;
use crate::prelude::{PinInit, Result, EIO};
use crate::registrations::{Registered, Scope, Scoped};
use pinned_init::PinnedDrop;
use pinned_init::__internal::OnlyCallFromDrop;
use shuttle::rand::{thread_rng, Rng};
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::{check_random, thread};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;

/// What has happened to a value.
#[derive(Default)]
struct Fate {
    ended: AtomicU32,
    freed: AtomicU32,
}

impl Fate {
    /// Returns how often the registration has ended, and how often the value was freed.
    fn counts(&self) -> (u32, u32) {
        (
            self.ended.load(Ordering::SeqCst),
            self.freed.load(Ordering::SeqCst),
        )
    }
}

struct Value(Arc<Fate>);

// SAFETY: Nothing but references uses the value.
unsafe impl Registered for Value {
    unsafe fn unregister(&self) {
        assert_eq!(self.0.counts(), (0, 0));
        self.0.ended.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.freed.fetch_add(1, Ordering::SeqCst);
    }
}

/// A scope that is never freed: handles may be dropped while it ends.
#[derive(Clone, Copy)]
struct Leaked(*mut Scope<'static>);

// SAFETY: The list of a scope has a lock, and the scope is never freed.
unsafe impl Send for Leaked {}

impl Leaked {
    fn new() -> Self {
        let scope = Scope::new().value().expect("there is memory");

        Self(Box::into_raw(Box::new(scope)))
    }

    fn register(self, fate: &Arc<Fate>, result: Result) -> Result<Scoped<'static, Value>> {
        // SAFETY: It is never freed.
        let scope = unsafe { &*self.0 };

        Scoped::new(scope, Value(fate.clone()), |_| result)
    }

    /// Does what the drop does before the fields are dropped. This is called once.
    fn end(self) {
        // SAFETY: It is never freed or moved, and the drop takes the lock for the list that handles use.
        unsafe { PinnedDrop::drop(Pin::new_unchecked(&mut *self.0), OnlyCallFromDrop::new()) };
    }
}

#[test]
fn registrations_of_several_threads_end_once() {
    check_interleavings(500, || {
        let scope = Leaked::new();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                thread::spawn(move || {
                    let fates: [Arc<Fate>; 4] = Default::default();
                    let handles: Result<Vec<_>> = fates
                        .iter()
                        .map(|fate| scope.register(fate, Ok(())))
                        .collect();
                    let mut handles = handles.expect("there is memory");

                    // In any order, and the last one is leaked.
                    while handles.len() > 1 {
                        drop(handles.swap_remove(thread_rng().gen_range(0..handles.len())));
                    }
                    handles.into_iter().for_each(mem::forget);
                    fates
                })
            })
            .collect();
        let fates: Vec<_> = threads
            .into_iter()
            .map(|one| one.join().expect("the thread has not panicked"))
            .collect();

        for of_thread in &fates {
            let counts: Vec<_> = of_thread.iter().map(|fate| fate.counts()).collect();

            assert_eq!(counts.iter().filter(|counts| **counts == (1, 1)).count(), 3);
            assert_eq!(counts.iter().filter(|counts| **counts == (0, 0)).count(), 1);
        }
        scope.end();
        // The scope has ended those that were leaked. Their values may still be in use.
        for fate in fates.iter().flatten() {
            assert_eq!(fate.counts().0, 1);
        }
    });
}

#[test]
fn scope_frees_no_value_of_a_handle() {
    check_interleavings(500, || {
        let scope = Leaked::new();
        let fates: [Arc<Fate>; 3] = Default::default();
        let threads = fates.clone().map(|fate| {
            let handle = scope.register(&fate, Ok(())).expect("there is memory");

            thread::spawn(move || {
                let before = fate.counts();

                drop(handle);
                (before, fate.counts())
            })
        });

        scope.end();
        for one in threads {
            let (before, after) = one.join().expect("the thread has not panicked");

            // Once the scope has ended a registration, it may still be at work when the handle is dropped.
            assert!(before.0 == 0 || after == (1, 0), "{before:?} {after:?}");
        }
        for fate in &fates {
            assert_eq!(fate.counts().0, 1);
        }
    });
}

#[test]
fn value_that_is_not_registered_is_freed() {
    check_random(
        || {
            let (scope, fate) = (Leaked::new(), Arc::new(Fate::default()));
            let refused = scope.register(&fate, Err(EIO));

            assert!(refused.is_err_and(|error| error == EIO));
            assert_eq!(fate.counts(), (0, 1));
            scope.end();
            assert_eq!(fate.counts(), (0, 1));
        },
        1,
    );
}
