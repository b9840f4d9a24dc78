// SPDX-License-Identifier: GPL-2.0

//! Reads the extents of files of users, in a thread.
//!
//! FIEMAP waits for the lock of the inode. A write keeps that while it reads the memory of its process, which may be a
//! mapped file of a FUSE whose server does not answer.

use crate::block::remap::Spans;
use abstractions::extents::{self, Extent, Fork};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// The time that the extents of a file may take, of which there may be millions.
const DEADLINE: Duration = Duration::from_secs(60);

/// After so many files without an answer no others are read.
const HUNG: u32 = 3;

/// A file, and the bytes of its device of which extents are wanted.
struct Question {
    file: File,
    fork: Fork,
    wanted: Arc<Spans>,
}

/// Reads the extents of one file after the other.
pub(crate) struct ExtentReader(Worker<Question, Vec<Extent>>);

impl ExtentReader {
    pub(crate) fn new() -> Self {
        Self(Worker {
            answer: |question| question.extents(),
            deadline: DEADLINE,
            thread: None,
            hung: 0,
        })
    }

    /// Returns the extents of a file that have wanted bytes; none if they are on another device.
    ///
    /// # Errors
    ///
    /// `TimedOut` if the file system does not answer.
    pub(crate) fn read(
        &mut self,
        file: File,
        fork: Fork,
        wanted: &Arc<Spans>,
    ) -> io::Result<Vec<Extent>> {
        if self.is_hung() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let wanted = Arc::clone(wanted);
        self.0.ask(Question { file, fork, wanted })
    }

    /// Returns whether too many files had no answer.
    pub(crate) fn is_hung(&self) -> bool {
        self.0.hung >= HUNG
    }
}

impl Question {
    fn extents(&self) -> Vec<Extent> {
        let mut found = Vec::new();
        // FIEMAP has places on the real-time device then, which is another volume.
        if self.fork == Fork::Data && extents::is_real_time(&self.file).unwrap_or(false) {
            return found;
        }
        // FIEMAP fails on some inodes (directories of XFS).
        let _ = extents::of_file(&self.file, self.fork, |extent| {
            if self.wanted.in_extent(extent).next().is_some() {
                found.push(*extent);
            }
        });
        found
    }
}

/// A thread that answers questions, and is left behind when one takes too long.
struct Worker<Q, A> {
    answer: fn(Q) -> A,
    deadline: Duration,
    thread: Option<(Sender<Q>, Receiver<A>)>,
    /// Threads that were left behind.
    hung: u32,
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    fn ask(&mut self, question: Q) -> io::Result<A> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => self.start()?,
        };
        let (questions, answers) = &thread;
        // It ends when nobody asks any more.
        let sent = questions.send(question);
        match answers.recv_timeout(self.deadline) {
            Ok(answer) if sent.is_ok() => {
                self.thread = Some(thread);
                Ok(answer)
            }
            _ => {
                self.hung += 1;
                let reason = format!("no answer within {} s", self.deadline.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, reason))
            }
        }
    }

    fn start(&self) -> io::Result<(Sender<Q>, Receiver<A>)> {
        let (questions, asked) = mpsc::channel();
        let (sender, answers) = mpsc::channel();
        let answer = self.answer;
        thread::Builder::new().spawn(move || {
            asked
                .into_iter()
                .try_for_each(|question| sender.send(answer(question)))
        })?;
        Ok((questions, answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_without_an_answer_does_not_hold_up_the_next_one() {
        let mut worker = Worker {
            answer: |(number, wait): (u32, Option<Receiver<()>>)| {
                let _ = wait.map(|wait| wait.recv());
                number
            },
            deadline: Duration::from_millis(100),
            thread: None,
            hung: 0,
        };
        let (release, wait) = mpsc::channel();
        let error = worker.ask((1, Some(wait))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        worker.deadline = Duration::from_secs(60);
        for number in 2..5 {
            assert_eq!(worker.ask((number, None)).unwrap(), number);
        }
        // Its answer comes late, to nobody.
        release.send(()).unwrap();
        assert_eq!(worker.ask((5, None)).unwrap(), 5);
        assert_eq!(worker.hung, 1);
    }
}
