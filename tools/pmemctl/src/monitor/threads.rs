// SPDX-License-Identifier: GPL-2.0

//! The threads beside the main loop.

use crate::fs::kernel_reports::{self, KernelReports};
use crate::monitor::batch::{Answer, Batch};
use crate::monitor::search::{PendingSearch, QuickSearch, search};
use crate::monitor::{Event, SearchState, Targets};
use crate::sysfs::Host;
use anyhow::Result;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

/// The threads beside the main loop. They end with the process.
pub(super) struct Threads {
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) answers: mpsc::Receiver<Answer>,
    pub(super) notes: mpsc::Receiver<Event>,
    /// It can be read after each answer and note, and when a batch was handled.
    pub(super) woken: UnixStream,
    pub(super) wake: Arc<UnixStream>,
}

impl Threads {
    pub(super) fn start(
        host: &Host,
        targets: Option<Targets>,
        not_reported: bool,
        state: &SearchState,
    ) -> Result<Self> {
        let (batches, queue) = mpsc::channel();
        let (found, answers) = mpsc::channel();
        let (note, notes) = mpsc::channel();
        let (searches, to_search) = mpsc::channel();
        let (woken, wake) = wake_pair()?;
        let reports = KernelReports::default();

        let searcher = || -> Result<Searcher> {
            Ok(Searcher {
                host: host.clone(),
                reports: reports.clone(),
                answers: found.clone(),
                wake: wake.try_clone()?,
            })
        };
        let (quick, full) = (searcher()?, searcher()?);
        let handled = Arc::new(wake.try_clone()?);
        let (host, state) = (host.clone(), state.clone());
        let note = not_reported.then_some(note);
        thread::spawn(move || listen(&host, &reports, note.as_ref(), wake));
        thread::spawn(move || quick.search_files_in_use(queue, targets, &state, &searches));
        thread::spawn(move || full.search_file_systems(&to_search));
        Ok(Self {
            batches,
            answers,
            notes,
            woken,
            wake: handled,
        })
    }
}

/// Returns the two ends of a socket, to wake who reads the first one by a write to the second one. A write does not wait for
/// the reader, which may be the one who writes: a full socket wakes it as well.
fn wake_pair() -> io::Result<(UnixStream, UnixStream)> {
    let (woken, wake) = UnixStream::pair()?;
    woken.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    Ok((woken, wake))
}

/// A thread that searches for owners.
struct Searcher {
    host: Host,
    reports: KernelReports,
    answers: mpsc::Sender<Answer>,
    wake: UnixStream,
}

impl Searcher {
    /// Searches among the files in use, which are read once for all batches that wait. Passes the rest of each batch to
    /// `searches`.
    fn search_files_in_use(
        mut self,
        batches: mpsc::Receiver<Batch>,
        targets: Option<Targets>,
        state: &SearchState,
        searches: &mpsc::Sender<PendingSearch>,
    ) {
        while let Ok(first) = batches.recv() {
            state.set(Some(Instant::now()));
            let batches: Vec<Batch> = std::iter::once(first).chain(batches.try_iter()).collect();
            let targets = targets.as_ref().map(|targets| targets());
            let look = QuickSearch {
                host: &self.host,
                targets: targets.as_deref(),
                reports: &self.reports,
            };
            let mut traced: Vec<_> = batches.iter().map(|batch| look.trace(batch)).collect();
            let used = look.files_in_use(&mut traced);
            for (batch, traced) in batches.into_iter().zip(traced) {
                state.set(Some(Instant::now()));
                let (answer, affected) = look.look(&batch, traced, &used);
                // The receivers are gone only when the process ends.
                let _ = self.answers.send(answer);
                let _ = self.wake.write_all(b"x");
                if !affected.is_empty() {
                    let _ = searches.send(PendingSearch { batch, affected });
                }
            }
            state.set(None);
        }
    }

    /// Searches whole file systems, once for all batches that wait.
    fn search_file_systems(mut self, queue: &mpsc::Receiver<PendingSearch>) {
        while let Ok(first) = queue.recv() {
            let searches: Vec<PendingSearch> =
                std::iter::once(first).chain(queue.try_iter()).collect();
            for answer in search(&self.host, &self.reports, &searches) {
                let _ = self.answers.send(answer);
            }
            let _ = self.wake.write_all(b"x");
        }
    }
}

/// Listens for the kernel's reports of errors of files. Mounts without any are passed to `notes`.
fn listen(
    host: &Host,
    reports: &KernelReports,
    notes: Option<&mpsc::Sender<Event>>,
    mut wake: UnixStream,
) {
    let mut note = |mount, reason| {
        if let Some(notes) = notes {
            let _ = notes.send(Event::NotReported { mount, reason });
            let _ = wake.write_all(b"x");
        }
    };
    // Without it, files are searched for.
    if let Err(error) = kernel_reports::listen(host, reports, &mut note) {
        note("all mounts".into(), error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Handled;
    use std::io::Read;

    #[test]
    fn any_number_of_receipts_is_dropped_without_a_reader() {
        let (mut woken, wake) = wake_pair().unwrap();
        let wake = Arc::new(wake);
        for _ in 0..100_000 {
            drop(Handled(wake.clone()));
        }
        assert!(woken.read(&mut [0; 64]).unwrap() > 0);
    }
}
