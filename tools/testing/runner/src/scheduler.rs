// SPDX-License-Identifier: GPL-2.0

//! Runs jobs in several threads, the longest ones first, so that all threads end at about the same time.

use crate::results::Results;
use anyhow::{Result, anyhow};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

type Work<'a> = dyn FnOnce(&mut Results) -> Result<()> + Send + 'a;

/// Work that does not depend on any other job.
pub struct Job<'a> {
    /// About how long it takes.
    seconds: u64,
    work: Box<Work<'a>>,
}

impl<'a> Job<'a> {
    /// Returns a job of about so many seconds. The work begins a group of the results.
    pub fn new(seconds: u64, work: impl FnOnce(&mut Results) -> Result<()> + Send + 'a) -> Self {
        Self {
            seconds,
            work: Box::new(work),
        }
    }
}

/// Runs all jobs, `threads` at a time. This thread shows its own results as they arrive, and those of other threads whenever
/// it has finished a job; the longest jobs are therefore run by other threads. The first error ends the run; the results until
/// then are counted.
pub fn run(mut jobs: Vec<Job<'_>>, threads: usize, results: &mut Results) -> Result<()> {
    jobs.sort_by_key(|job| Reverse(job.seconds));
    let queue = &Mutex::new(VecDeque::from(jobs));
    let done = &Mutex::new(Vec::new());
    thread::scope(|scope| {
        let buffered = |job: Job<'_>| {
            let mut results = Results::buffered();
            let ended = (job.work)(&mut results);
            locked(done).push(results);
            ended
        };
        let start = |_| {
            let first = locked(queue).pop_front();
            scope.spawn(move || drain(first, queue, buffered))
        };
        let others: Vec<_> = (1..threads).map(start).collect();
        let mut ended = drain(None, queue, |job| {
            let ended = (job.work)(results);
            merge(done, results);
            ended
        });
        for other in others {
            let _clock = results.running("waiting for other jobs");
            let other = other.join();
            merge(done, results);
            let panicked = |_| Err(anyhow!("a job panicked: see above"));
            ended = ended.and(other.unwrap_or_else(panicked));
        }
        ended
    })
}

/// Runs one job after the other until the queue is empty.
fn drain<'a>(
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

fn merge(done: &Mutex<Vec<Results>>, results: &mut Results) {
    let done = mem::take(&mut *locked(done));
    for other in done {
        results.merge(other);
    }
}

/// Locks a mutex. Its value is valid even where a thread has panicked.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Outcome, TestResult};
    use anyhow::bail;
    use std::sync::Barrier;

    /// Returns the order in which jobs of these lengths begin.
    fn order(lengths: &[u64], threads: usize) -> Vec<u64> {
        let begun = Mutex::new(Vec::new());
        let job = |&length: &u64| {
            let begun = &begun;
            Job::new(length, move |results: &mut Results| {
                locked(begun).push(length);
                results.group("group", "About");
                results.add(TestResult::new("test", Outcome::Passed));
                Ok(())
            })
        };
        let mut results = Results::buffered();
        run(lengths.iter().map(job).collect(), threads, &mut results).unwrap();
        assert_eq!(results.passed(), lengths.len());
        begun.into_inner().unwrap()
    }

    #[test]
    fn longest_job_begins_first() {
        assert_eq!(order(&[3, 1, 7, 5], 1), [7, 5, 3, 1]);
        assert!(order(&[], 2).is_empty());
    }

    #[test]
    fn each_job_is_run_and_counted_once() {
        let mut order = order(&[3, 1, 7, 5, 2], 3);
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3, 5, 7]);
    }

    #[test]
    fn two_jobs_run_at_once_and_the_longest_in_another_thread() {
        let this = thread::current().id();
        let barrier = Barrier::new(2);
        let job = |seconds, here: bool| {
            let barrier = &barrier;
            Job::new(seconds, move |_| {
                barrier.wait();
                assert_eq!(thread::current().id() == this, here);
                Ok(())
            })
        };
        let jobs = vec![job(1, true), job(2, false)];
        run(jobs, 2, &mut Results::buffered()).unwrap();
    }

    #[test]
    fn error_ends_the_run() {
        let later = || panic!("it is begun");
        let jobs = vec![
            Job::new(2, |_| bail!("no disk")),
            Job::new(1, move |_| later()),
        ];
        let error = run(jobs, 1, &mut Results::buffered()).unwrap_err();
        assert_eq!(error.to_string(), "no disk");
    }

    #[test]
    fn results_of_all_threads_are_counted_before_an_error() {
        let barrier = Barrier::new(2);
        let job = |seconds, good: bool| {
            let barrier = &barrier;
            Job::new(seconds, move |results| {
                results.group("group", "About");
                results.add(TestResult::new("test", Outcome::Passed));
                barrier.wait();
                anyhow::ensure!(good, "no disk");
                Ok(())
            })
        };
        for good in [true, false] {
            let mut results = Results::buffered();
            let error = run(vec![job(1, good), job(2, !good)], 2, &mut results).unwrap_err();
            assert_eq!(error.to_string(), "no disk");
            assert_eq!(results.passed(), 2);
        }
    }
}
