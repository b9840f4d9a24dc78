// SPDX-License-Identifier: GPL-2.0

//! Reads the extents of files of users, in a thread.
//!
//! FIEMAP waits for the lock of the inode. A write keeps that while it reads the memory of its process, which may be a
//! mapped file of a FUSE whose server does not answer.

use crate::block::remap::Spans;
use abstractions::extents::{self, Extent, Fork};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The time that the extents of a file may take, of which there may be millions.
const DEADLINE: Duration = Duration::from_secs(30);

/// The highest number of files that this process waits for; each has a thread.
const HUNG: usize = 8;

/// Files whose extents are being read, by device and inode.
struct Asked(Mutex<BTreeSet<(u64, u64)>>);

/// Those of this process.
static ASKED: Asked = Asked(Mutex::new(BTreeSet::new()));

/// Returns whether this process waits for too many files to read the extents of others.
pub(crate) fn is_hung() -> bool {
    ASKED.is_full()
}

impl Asked {
    fn files(&self) -> MutexGuard<'_, BTreeSet<(u64, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        self.files().len() >= HUNG
    }

    /// Adds a file. Fails with `TimedOut` if it is there already, or if it would be one too many.
    fn begin(&'static self, file: (u64, u64)) -> io::Result<Asking> {
        let mut files = self.files();
        match files.len() < HUNG && files.insert(file) {
            true => Ok(Asking { of: self, file }),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, WHY)),
        }
    }
}

/// A file whose extents are being read, until it is dropped.
struct Asking {
    of: &'static Asked,
    file: (u64, u64),
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.of.files().remove(&self.file);
    }
}

/// Why extents are not known.
pub(crate) const WHY: &str =
    "the kernel does not tell where a file is while a process that hangs writes to it";

/// A file, and the bytes of its device of which extents are wanted.
struct Question {
    file: File,
    fork: Fork,
    wanted: Arc<Spans>,
    _asking: Asking,
}

/// Reads the extents of one file after the other.
pub(crate) struct ExtentReader(Worker<Question, Vec<Extent>>);

impl ExtentReader {
    pub(crate) fn new() -> Self {
        Self(Worker {
            answer: |question| question.extents(),
            deadline: DEADLINE,
            thread: None,
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
        let status = file.metadata()?;
        self.0.ask(Question {
            _asking: ASKED.begin((status.dev(), status.ino()))?,
            wanted: Arc::clone(wanted),
            file,
            fork,
        })
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
            _ => Err(io::Error::new(io::ErrorKind::TimedOut, WHY)),
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
    fn file_without_an_answer_holds_up_no_other_and_is_not_asked_again() {
        let asked: &'static Asked = Box::leak(Box::new(Asked(Mutex::default())));
        let mut worker = Worker {
            answer: |(number, wait, _asking): (u64, Option<Receiver<()>>, Asking)| {
                let _ = wait.map(|wait| wait.recv());
                number
            },
            deadline: DEADLINE,
            thread: None,
        };
        let mut ask = |number, wait, deadline| {
            worker.deadline = deadline;
            worker.ask((number, wait, asked.begin((7, number))?))
        };
        let (release, wait) = mpsc::channel();
        let error = ask(1, Some(wait), Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        for number in 2..5 {
            assert_eq!(ask(number, None, DEADLINE).unwrap(), number);
        }
        assert!(ask(1, None, DEADLINE).is_err());
        let others = 10..10 + HUNG as u64 - 1;
        let others: Vec<_> = others
            .map(|number| asked.begin((7, number)).unwrap())
            .collect();
        assert!(asked.is_full() && ask(2, None, DEADLINE).is_err());
        drop(others);
        assert!(!asked.is_full());
        // Its answer comes late, to nobody.
        drop(release);
        while asked.files().contains(&(7, 1)) {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(ask(1, None, DEADLINE).unwrap(), 1);
    }
}
