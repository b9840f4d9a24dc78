// SPDX-License-Identifier: GPL-2.0

//! Reads the extents of files of users, in a thread.
//!
//! FIEMAP waits for the lock of the inode. A write keeps that while it reads the memory of its process, which may be a
//! mapped file of a FUSE whose server does not answer.

use crate::block::remap::Spans;
use crate::fs::places::{PLACES, Places};
use crate::waiting::CALLS;
use abstractions::extents::{self, Extent, Fork};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The time that the extents of a file may take, of which there may be millions.
const DEADLINE: Duration = Duration::from_secs(30);

/// Files that are read together.
const BATCH: usize = 64;

/// Why extents are not known.
pub(crate) const WHY: &str =
    "the kernel does not tell where a file is while a process that hangs writes to it";

/// Returns the extents of a file that have some of these bytes of its device; not all of them if it has some many times.
pub(crate) fn with_bytes(file: &File, fork: Fork, bytes: &Spans) -> Vec<Extent> {
    let mut found = Vec::new();
    // FIEMAP has places on the real-time device then, which is another volume.
    if fork == Fork::Data && extents::is_real_time(file).unwrap_or(false) {
        return found;
    }
    // FIEMAP fails on some inodes (directories of XFS).
    // One more than there may be in all files: who counts them learns that some are left out.
    let mut places = Places::up_to(PLACES + 1);
    let _ = extents::of_file(file, fork, |extent| {
        let mut is_kept = false;
        for (part, _) in bytes.in_extent(extent) {
            is_kept |= places.keep(part.offset);
        }
        if is_kept {
            found.push(*extent);
        }
    });
    found
}

/// A file, and the bytes of its device of which extents are wanted.
struct Question {
    file: File,
    fork: Fork,
    wanted: Arc<Spans>,
}

impl Question {
    /// Returns the extents; `None` if this process waits for the file already, or for too many.
    fn answer(&self) -> Option<Vec<Extent>> {
        let status = self.file.metadata().ok()?;
        // The monitor may ask for this file as well, with less patience.
        let key = format!("search in extents of {}:{}", status.dev(), status.ino());
        let _call = CALLS.begin(&key)?;
        Some(with_bytes(&self.file, self.fork, &self.wanted))
    }
}

/// The extents of a file with its tag; `TimedOut` if the file system does not answer.
pub(crate) type Answer<T> = (T, io::Result<Vec<Extent>>);

/// Reads the extents of files, each of which has a tag, all in one thread.
pub(crate) struct ExtentReader<T> {
    /// Files that wait to be read together: to wake a thread takes longer than to read the extents of a file.
    batch: Vec<(T, Question)>,
    worker: Worker<Question, Option<Vec<Extent>>>,
}

impl<T> ExtentReader<T> {
    pub(crate) fn new() -> Self {
        Self {
            batch: Vec::new(),
            worker: Worker {
                answer: |question| question.answer(),
                deadline: DEADLINE,
                thread: None,
            },
        }
    }

    /// Adds a file, of which the extents with wanted bytes are read: none if they are on another device. Returns those of
    /// all files that wait, if there are enough.
    pub(crate) fn add(
        &mut self,
        tag: T,
        file: File,
        fork: Fork,
        wanted: &Arc<Spans>,
    ) -> Vec<Answer<T>> {
        let wanted = Arc::clone(wanted);
        self.batch.push((tag, Question { file, fork, wanted }));
        match self.batch.len() < BATCH {
            true => Vec::new(),
            false => self.read(),
        }
    }

    /// Returns the extents of all files that wait.
    pub(crate) fn read(&mut self) -> Vec<Answer<T>> {
        let (tags, questions): (Vec<_>, VecDeque<_>) = self.batch.drain(..).unzip();
        let answers = self.worker.ask(questions).into_iter();
        let timed_out = || io::Error::new(io::ErrorKind::TimedOut, WHY);
        let answers = answers.map(|answer| answer.flatten().ok_or_else(timed_out));
        tags.into_iter().zip(answers).collect()
    }
}

/// A thread that answers questions, and is left behind when one takes too long.
struct Worker<Q, A> {
    answer: fn(Q) -> A,
    deadline: Duration,
    thread: Option<Thread<Q, A>>,
}

struct Thread<Q, A> {
    batch: Arc<Mutex<Batch<Q, A>>>,
    /// Wakes it when there are questions.
    wake: Sender<()>,
    /// It has answered all.
    done: Receiver<()>,
}

struct Batch<Q, A> {
    questions: VecDeque<Q>,
    answers: Vec<Option<A>>,
}

impl<Q, A> Default for Batch<Q, A> {
    fn default() -> Self {
        Self {
            questions: VecDeque::new(),
            answers: Vec::new(),
        }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    /// Returns an answer to each question, in their order; `None` to one that takes too long.
    fn ask(&mut self, mut questions: VecDeque<Q>) -> Vec<Option<A>> {
        let mut answers = Vec::new();
        while !questions.is_empty() {
            let started = match self.thread.take() {
                Some(thread) => Ok(thread),
                None => Thread::start(self.answer),
            };
            let Ok(thread) = started else {
                answers.extend(questions.drain(..).map(|_| None));
                break;
            };
            locked(&thread.batch).questions = std::mem::take(&mut questions);
            let _ = thread.wake.send(());
            let is_done = thread.waits_for_all(self.deadline);
            let mut batch = std::mem::take(&mut *locked(&thread.batch));
            answers.append(&mut batch.answers);
            if is_done {
                self.thread = Some(thread);
            } else {
                // It ends when it has its answer. Another one gets the rest.
                answers.push(None);
                questions = batch.questions;
            }
        }
        answers
    }
}

impl<Q: Send + 'static, A: Send + 'static> Thread<Q, A> {
    fn start(answer: fn(Q) -> A) -> io::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let (sender, done) = mpsc::channel();
        let batch = Arc::new(Mutex::new(Batch::default()));
        let its: Arc<Mutex<Batch<Q, A>>> = Arc::clone(&batch);
        thread::Builder::new().spawn(move || {
            for () in woken {
                // Not locked while it answers.
                let next = || locked(&its).questions.pop_front();
                for question in std::iter::from_fn(next) {
                    let answer = answer(question);
                    locked(&its).answers.push(Some(answer));
                }
                // Nobody listens after the deadline.
                let _ = sender.send(());
            }
        })?;
        Ok(Self { batch, wake, done })
    }

    /// Waits until all questions are answered; returns `false` if one takes longer than `deadline`.
    fn waits_for_all(&self, deadline: Duration) -> bool {
        let mut answers = 0;
        while self.done.recv_timeout(deadline).is_err() {
            let now = locked(&self.batch).answers.len();
            if now == answers {
                return false;
            }
            answers = now;
        }
        true
    }
}

fn locked<T>(queue: &Mutex<T>) -> MutexGuard<'_, T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_without_an_answer_holds_up_no_other() {
        let mut worker = Worker {
            answer: |(number, wait): (u64, Option<Receiver<()>>)| {
                let _ = wait.map(|wait| wait.recv());
                number
            },
            deadline: Duration::from_secs(1),
            thread: None,
        };
        let (release, wait) = mpsc::channel();
        let (last, second) = mpsc::channel();
        let questions = [(1, None), (2, Some(wait)), (3, None), (4, Some(second))];
        let answers = worker.ask(questions.into());
        assert_eq!(answers, [Some(1), None, Some(3), None]);
        worker.deadline = DEADLINE;
        // Their answers come late, to nobody.
        drop((release, last));
        for _ in 0..3 {
            let questions = (5..100).map(|number| (number, None)).collect();
            let answers = worker.ask(questions);
            assert!(answers.into_iter().eq((5..100).map(Some)));
        }
    }

    #[test]
    fn files_that_are_waited_for_are_not_asked_again() {
        let file = || tempfile::tempfile().unwrap();
        let wanted = Arc::default();
        let mut reader = ExtentReader::new();
        let one = file();
        let status = one.metadata().unwrap();
        let key = format!("search in extents of {}:{}", status.dev(), status.ino());
        let call = CALLS.begin(&key).unwrap();
        for (tag, file) in [(1, one.try_clone().unwrap()), (2, file())] {
            assert!(reader.add(tag, file, Fork::Data, &wanted).is_empty());
        }
        let answers = reader.read();
        let error = answers[0].1.as_ref().unwrap_err();
        assert_eq!((answers[0].0, error.kind()), (1, io::ErrorKind::TimedOut));
        assert!(answers[1].0 == 2 && answers[1].1.is_ok());
        drop(call);
        reader.add(3, one, Fork::Data, &wanted);
        assert!(reader.read()[0].1.is_ok() && reader.read().is_empty());
    }
}
