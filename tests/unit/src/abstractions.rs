// SPDX-License-Identifier: GPL-2.0

//! The driver's abstractions, as far as flushes need them: a region that records its flushes, bios that check how they
//! end, work items, and a timer that expires for some operations.

use crate::prelude::{CStr, Result};
use crate::sync::Arc;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

#[path = "../../../abstractions/flag.rs"]
pub(crate) mod flag;

pub(crate) mod nd {
    use super::*;
    use crate::prelude::Error;
    use shuttle::rand::{thread_rng, Rng};
    use std::sync::Mutex;

    pub(crate) const EIO: Error = Error(5);

    /// A region whose flushes take time, and fail at random.
    #[derive(Default)]
    pub(crate) struct Region {
        clock: AtomicU64,
        /// The times of the start and the end of each flush, and its result.
        flushes: Mutex<Vec<(u64, u64, Result)>>,
        under_way: AtomicU64,
    }

    /// The state of a flush for a bio.
    pub(crate) enum Flushed<'a> {
        Done(super::block::Bio<'a>, Result),
        #[expect(dead_code, reason = "no region here ends bios")]
        Pending,
    }

    impl Region {
        /// Returns the time, which is another one at each call.
        pub(crate) fn now(&self) -> u64 {
            self.clock.fetch_add(1, Ordering::Relaxed)
        }

        pub(crate) fn is_synchronous(&self) -> bool {
            false
        }

        pub(crate) fn flush(&self) -> Result {
            assert_eq!(
                self.under_way.swap(1, Ordering::Relaxed),
                0,
                "two flushes at once"
            );
            let start = self.now();

            shuttle::thread::yield_now();
            let result = match thread_rng().gen_range(0..4) {
                0 => Err(EIO),
                _ => Ok(()),
            };
            let flush = (start, self.now(), result);

            self.flushes.lock().expect("no panic").push(flush);
            self.under_way.store(0, Ordering::Relaxed);
            result
        }

        pub(crate) fn flush_for<'a>(&self, bio: super::block::Bio<'a>) -> Flushed<'a> {
            Flushed::Done(bio, self.flush())
        }

        pub(crate) fn flushes(&self) -> usize {
            self.flushes.lock().expect("no panic").len()
        }

        /// Fails unless one flush started after a request had arrived, has ended, and had this result.
        pub(crate) fn check(&self, arrived: u64, result: Result) {
            let flushes = self.flushes.lock().expect("no panic");
            let serves = |(start, _, its): &(u64, u64, Result)| *start > arrived && *its == result;

            assert!(
                flushes.iter().any(serves),
                "arrived at {arrived}, {result:?}: {flushes:?}"
            );
        }
    }
}

pub(crate) mod block {
    use super::nd::Region;
    use super::*;

    /// A bio that checks its end.
    pub(crate) struct Bio<'a> {
        region: &'static Region,
        arrived: u64,
        ended: &'static AtomicU64,
        _submitted: PhantomData<&'a ()>,
    }

    impl Bio<'_> {
        pub(crate) fn new(region: &'static Region, ended: &'static AtomicU64) -> Self {
            Self {
                region,
                arrived: region.now(),
                ended,
                _submitted: PhantomData,
            }
        }

        pub(crate) fn end(self, result: Result) {
            self.region.check(self.arrived, result);
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct DiskName;

    impl std::fmt::Display for DiskName {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("pmem0")
        }
    }

    #[derive(Default)]
    pub(crate) struct BioList(Vec<Bio<'static>>);

    impl BioList {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.is_empty()
        }

        pub(crate) fn push(&mut self, bio: Bio<'_>) {
            self.0.push(Bio {
                _submitted: PhantomData,
                ..bio
            });
        }

        pub(crate) fn end(self, result: Result) {
            for bio in self.0 {
                bio.end(result);
            }
        }
    }
}

pub(crate) mod scope {
    use super::*;

    pub(crate) struct Scope<'bound>(pub(crate) PhantomData<&'bound ()>);

    pub(crate) struct Scoped<'bound, V>(pub(crate) V, pub(crate) PhantomData<&'bound ()>);

    impl<V> Deref for Scoped<'_, V> {
        type Target = V;

        fn deref(&self) -> &V {
            &self.0
        }
    }
}

pub(crate) mod timer {
    use super::*;
    use crate::time::Delta;
    use shuttle::rand::{thread_rng, Rng};

    pub(crate) trait Late: Send + Sync {
        fn late(&self);
    }

    pub(crate) struct Watchdog<L>(L);

    impl<L: Late> Watchdog<L> {
        pub(crate) fn new(late: L) -> Result<Arc<Self>> {
            Arc::new(Self(late), crate::prelude::GFP_KERNEL)
        }

        pub(crate) fn watch<T>(
            this: &Arc<Self>,
            _limit: Delta,
            operation: impl FnOnce() -> T,
        ) -> T {
            if thread_rng().gen_range(0..4) == 0 {
                this.0.late();
            }
            operation()
        }

        pub(crate) fn late(&self) -> &L {
            &self.0
        }
    }
}

pub(crate) mod work {
    use super::scope::{Scope, Scoped};
    use super::*;
    use crate::sync::Mutex;

    pub(crate) trait Job: Send + Sync {
        fn run(&self);
    }

    pub(crate) struct Queue;

    impl Queue {
        pub(crate) fn for_reclaim(_name: &CStr) -> Result<Self> {
            Ok(Self)
        }
    }

    /// The task of a work item.
    enum State {
        Idle,
        Running,
        /// It was scheduled while it ran.
        Again,
    }

    /// A work item. The thread that schedules it runs it, unless another one does.
    pub(crate) struct Work<J> {
        job: Arc<J>,
        state: Mutex<State>,
    }

    impl<J: Job> Work<J> {
        pub(crate) fn new<'bound>(
            job: Arc<J>,
            _queue: Queue,
            _scope: &'bound Scope<'bound>,
        ) -> Result<Scoped<'bound, Self>> {
            let state = Mutex::new(State::Idle);

            Ok(Scoped(Self { job, state }, PhantomData))
        }

        pub(crate) fn schedule(&self) {
            let mut state = self.state.lock();

            if !matches!(*state, State::Idle) {
                *state = State::Again;
                return;
            }
            loop {
                *state = State::Running;
                drop(state);
                self.job.run();
                state = self.state.lock();
                if !matches!(*state, State::Again) {
                    *state = State::Idle;
                    return;
                }
            }
        }
    }
}
