// SPDX-License-Identifier: GPL-2.0

//! What there is to do, and those who do it: whoever is done with one thing takes the next, so that all
//! are done at about the same time.

use crate::tally::Tally;
use anyhow::{Result, bail};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

type Work<'a> = dyn FnOnce(&mut Tally) -> Result<()> + Send + 'a;

/// Something to do that waits for nothing else in the queue.
pub struct Job<'a> {
    /// About how long it takes, in seconds.
    seconds: u64,
    work: Box<Work<'a>>,
}

impl<'a> Job<'a> {
    /// Work of about so many seconds. It begins a group of the tally.
    pub fn new(seconds: u64, work: impl FnOnce(&mut Tally) -> Result<()> + Send + 'a) -> Self {
        Self {
            seconds,
            work: Box::new(work),
        }
    }
}

/// Does all of it, `at_once` jobs at a time, what takes longest first. This thread shows its own results as
/// they come, and those of another thread, job by job, whenever it is done with one of its own: so the
/// longest of all are others'. The first error ends it.
pub fn run(mut jobs: Vec<Job<'_>>, at_once: usize, tally: &mut Tally) -> Result<()> {
    jobs.sort_by_key(|job| Reverse(job.seconds));
    let queue = &Mutex::new(VecDeque::from(jobs));
    let done = &Mutex::new(Vec::new());
    thread::scope(|scope| {
        let beside = |job: Job<'_>| {
            let mut tally = Tally::beside();
            (job.work)(&mut tally)?;
            locked(done).push(tally);
            Ok(())
        };
        let other = |_| {
            let first = locked(queue).pop_front();
            scope.spawn(move || each(first, queue, beside))
        };
        let others: Vec<_> = (1..at_once).map(other).collect();
        each(None, queue, |job| {
            (job.work)(tally)?;
            take_over(done, tally);
            Ok(())
        })?;
        for other in others {
            let _clock = tally.running("what is not done yet");
            let result = other.join();
            take_over(done, tally);
            let Ok(result) = result else {
                bail!("one of several things at once: see above");
            };
            result?;
        }
        Ok(())
    })
}

/// Does one job after the other, as long as there are any.
fn each<'a>(
    first: Option<Job<'a>>,
    queue: &Mutex<VecDeque<Job<'a>>>,
    mut work: impl FnMut(Job<'a>) -> Result<()>,
) -> Result<()> {
    let next = || locked(queue).pop_front();
    let mut job = first.or_else(next);
    while let Some(this) = job {
        if let Err(error) = work(this) {
            locked(queue).clear();
            return Err(error);
        }
        job = next();
    }
    Ok(())
}

fn take_over(done: &Mutex<Vec<Tally>>, tally: &mut Tally) {
    let done = mem::take(&mut *locked(done));
    for other in done {
        tally.take_over(other);
    }
}

/// What it guards is whole, whoever panicked.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ktap::Outcome;
    use crate::tally::Test;
    use std::sync::Barrier;

    /// The order in which jobs of these lengths are begun.
    fn order(lengths: &[u64], at_once: usize) -> Vec<u64> {
        let begun = Mutex::new(Vec::new());
        let job = |&length: &u64| {
            let begun = &begun;
            Job::new(length, move |tally| {
                locked(begun).push(length);
                tally.group("group", "About");
                tally.add(Test::new("test", Outcome::Passed));
                Ok(())
            })
        };
        let mut tally = Tally::beside();
        run(lengths.iter().map(job).collect(), at_once, &mut tally).unwrap();
        assert_eq!(tally.passed(), lengths.len());
        begun.into_inner().unwrap()
    }

    #[test]
    fn the_longest_is_first() {
        assert_eq!(order(&[3, 1, 7, 5], 1), [7, 5, 3, 1]);
        assert!(order(&[], 2).is_empty());
    }

    #[test]
    fn each_is_done_once_and_counted_once() {
        let mut order = order(&[3, 1, 7, 5, 2], 3);
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3, 5, 7]);
    }

    #[test]
    fn two_are_done_at_once_and_the_longest_by_another() {
        let this = thread::current().id();
        let barrier = Barrier::new(2);
        let job = |seconds, its: bool| {
            let barrier = &barrier;
            Job::new(seconds, move |_| {
                barrier.wait();
                assert_eq!(thread::current().id() == this, its);
                Ok(())
            })
        };
        let jobs = vec![job(1, true), job(2, false)];
        run(jobs, 2, &mut Tally::beside()).unwrap();
    }

    #[test]
    fn an_error_ends_it() {
        let later = || panic!("it is begun");
        let jobs = vec![
            Job::new(2, |_| bail!("no disk")),
            Job::new(1, move |_| later()),
        ];
        let error = run(jobs, 1, &mut Tally::beside()).unwrap_err();
        assert_eq!(error.to_string(), "no disk");
    }
}
