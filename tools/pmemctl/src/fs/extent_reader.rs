// SPDX-License-Identifier: GPL-2.0

//! Reads the extents of files of users, in a thread.
//!
//! FIEMAP waits for the lock of the inode. A write keeps that while it reads the memory of its process, which may be a
//! mapped file of a FUSE whose server does not answer.

use crate::block::remap::Spans;
use crate::waiting::{CALLS, Call};
use abstractions::extents::{self, Extent, Fork};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// The time that the extents of a file may take, of which there may be millions.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why extents are not known.
pub(crate) const WHY: &str =
    "the kernel does not tell where a file is while a process that hangs writes to it";

/// Returns the extents of a file that have some of these bytes of its device.
pub(crate) fn with_bytes(file: &File, fork: Fork, bytes: &Spans) -> Vec<Extent> {
    let mut found = Vec::new();
    // FIEMAP has places on the real-time device then, which is another volume.
    if fork == Fork::Data && extents::is_real_time(file).unwrap_or(false) {
        return found;
    }
    // FIEMAP fails on some inodes (directories of XFS).
    let _ = extents::of_file(file, fork, |extent| {
        if bytes.in_extent(extent).next().is_some() {
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
    _call: Call,
}

/// Reads the extents of one file after the other, all in one thread.
pub(crate) struct ExtentReader(Worker<Question, Vec<Extent>>);

impl ExtentReader {
    pub(crate) fn new() -> Self {
        Self(Worker {
            answer: |it| with_bytes(&it.file, it.fork, &it.wanted),
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
        // The monitor may ask for this file as well, with less patience.
        let key = format!("search in extents of {}:{}", status.dev(), status.ino());
        self.0.ask(Question {
            _call: CALLS.begin(&key).ok_or_else(timed_out)?,
            wanted: Arc::clone(wanted),
            file,
            fork,
        })
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, WHY)
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
            _ => Err(timed_out()),
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
    use crate::waiting::tests::none;

    #[test]
    fn file_without_an_answer_holds_up_no_other_and_is_not_asked_again() {
        let calls = none();
        let mut worker = Worker {
            answer: |(number, wait, _call): (u64, Option<Receiver<()>>, Call)| {
                let _ = wait.map(|wait| wait.recv());
                number
            },
            deadline: DEADLINE,
            thread: None,
        };
        let mut ask = |number: u64, wait, deadline| {
            let call = calls.begin(&number.to_string());
            worker.deadline = deadline;
            worker.ask((number, wait, call.ok_or_else(timed_out)?))
        };
        let (release, wait) = mpsc::channel();
        let error = ask(1, Some(wait), Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        for number in 2..5 {
            assert_eq!(ask(number, None, DEADLINE).unwrap(), number);
        }
        assert!(ask(1, None, DEADLINE).is_err());
        let others = (10..).map_while(|number: u64| calls.begin(&number.to_string()));
        let others: Vec<_> = others.collect();
        assert!(calls.is_full() && ask(2, None, DEADLINE).is_err());
        drop(others);
        assert!(!calls.is_full());
        // Its answer comes late, to nobody.
        drop(release);
        let answer = std::iter::repeat_with(|| {
            thread::sleep(Duration::from_millis(1));
            ask(1, None, DEADLINE).ok()
        });
        assert_eq!(answer.flatten().next(), Some(1));
    }
}
