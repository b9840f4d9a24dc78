// SPDX-License-Identifier: GPL-2.0

//! `pmem-io map`: the steps that one process does to a mapping.

use crate::mapped::{MappedFile, Pages, differences};
use abstractions::Mapping;
use abstractions::pinning::{self, Advice, Pinned};
use abstractions::process::die_with_parent;
use abstractions::sigbus;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;
use units::{PAGE, Size};

/// Bytes of each call: the capacity of a pipe.
const AT_ONCE: usize = 64 * 1024;

/// Pages of a mapping: a start and a length, or all.
#[derive(Debug, Clone, Copy)]
struct PageRange(Option<(Size, Size)>);

impl PageRange {
    /// Returns the range in bytes of the mapping.
    fn of(&self, mapping: &Mapping) -> Result<Range<usize>> {
        let Some((start, length)) = self.0 else {
            return Ok(0..mapping.len());
        };
        let start = usize::try_from(start.bytes())?;
        let end = start.checked_add(usize::try_from(length.bytes())?);
        end.filter(|&end| end <= mapping.len() && start % PAGE as usize == 0)
            .map(|end| start..end)
            .context("the range is outside the mapping or does not start at a page")
    }
}

impl FromStr for PageRange {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (start, length) = text
            .split_once('+')
            .with_context(|| format!("\"{text}\" is not a range: write START+LENGTH"))?;
        Ok(Self(Some((start.parse()?, length.parse()?))))
    }
}

#[derive(Debug, Clone)]
pub struct Step {
    name: String,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    Store(PageRange),
    Load(PageRange),
    Verify(PageRange),
    Same(PageRange),
    ReadOnly(PageRange),
    Writable,
    Unmap(PageRange),
    Advise(Advice, PageRange),
    Lock,
    Fork,
    Sigbus,
    Smaps(String),
    Status(String),
    Run(String),
    DirectRead(PathBuf),
    DirectWrite(PathBuf),
    Vmsplice,
    VmspliceOut(PageRange),
    ProcessWrite,
    ProcessRead,
    Sendfile,
    Zerocopy,
    Pin,
    PinRead(PinnedIo),
    PinWrite(PinnedIo),
}

/// Direct I/O to a file with pinned pages.
#[derive(Debug, Clone)]
struct PinnedIo {
    path: PathBuf,
    /// A shell command that runs when the pages are pinned, before the I/O.
    before: Option<String>,
}

impl From<&str> for PinnedIo {
    fn from(text: &str) -> Self {
        let (path, before) = match text.split_once(',') {
            Some((path, command)) => (path, Some(command.into())),
            None => (text, None),
        };
        Self {
            path: path.into(),
            before,
        }
    }
}

/// The end of `pmem-io map --help`.
pub const HELP: &str = "\
Steps, each of which prints a line. RANGE is START+LENGTH, such as 2M+64K; the default is all:
  store[=RANGE]        store the pattern to each page
  load[=RANGE]         load from each page
  verify[=RANGE]       compare each page with the pattern
  same[=RANGE]         compare each page with what read(2) returns
  read-only=RANGE      mprotect(2)
  writable             mprotect(2) of all, to make it writable again
  unmap=RANGE          map anonymous memory instead
  forget[=RANGE]       madvise(2) with MADV_DONTNEED
  huge, no-huge        madvise(2) with MADV_HUGEPAGE, MADV_NOHUGEPAGE
  poison=RANGE         madvise(2) with MADV_HWPOISON
  lock                 mlock(2)
  fork                 fork(2); the child maps the file as well and loads from each page
  sigbus               print the number of SIGBUS that no access raised, and the last one
  smaps=FIELD          print a line of /proc/self/smaps about the mapping
  status=FIELD         print a line of /proc/self/status
  run=COMMAND          run a shell command
  direct-read=FILE     read a file into the mapping with O_DIRECT; compare with the pattern
  direct-write=FILE    write the mapping to a file with O_DIRECT
  vmsplice             vmsplice(2) the pages to a pipe and read it; compare with the pattern
  vmsplice-out[=RANGE] vmsplice(2) the pages to standard output, a pipe, and leave them there; print no line
  process-write        process_vm_writev(2) to the mapping; compare with the pattern
  process-read         process_vm_readv(2) from the mapping; compare with the pattern
  sendfile             sendfile(2) the file to a TCP socket; compare what arrives with the pattern
  zerocopy             send(2) the mapping with MSG_ZEROCOPY; compare what arrives with the pattern
  pin                  pin the pages as a fixed buffer of an io_uring
  pin-read=FILE[,COMMAND]
                       pin, run a shell command, then read a file into the mapping with O_DIRECT; compare
                       with the pattern
  pin-write=FILE[,COMMAND]
                       the same, and write the mapping to a file with O_DIRECT";

impl FromStr for Step {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let all_or = || value.map_or(Ok(PageRange(None)), str::parse);
        let needed = || value.with_context(|| format!("{name} needs a value"));
        let act = match name {
            "store" => Act::Store(all_or()?),
            "load" => Act::Load(all_or()?),
            "verify" => Act::Verify(all_or()?),
            "same" => Act::Same(all_or()?),
            "read-only" => Act::ReadOnly(needed()?.parse()?),
            "unmap" => Act::Unmap(needed()?.parse()?),
            "forget" => Act::Advise(Advice::Forget, all_or()?),
            "poison" => Act::Advise(Advice::Poison, needed()?.parse()?),
            "vmsplice-out" => Act::VmspliceOut(all_or()?),
            "smaps" => Act::Smaps(needed()?.into()),
            "status" => Act::Status(needed()?.into()),
            "run" => Act::Run(needed()?.into()),
            "direct-read" => Act::DirectRead(needed()?.into()),
            "direct-write" => Act::DirectWrite(needed()?.into()),
            "pin-read" => Act::PinRead(needed()?.into()),
            "pin-write" => Act::PinWrite(needed()?.into()),
            _ => {
                let act = match name {
                    "writable" => Act::Writable,
                    "huge" => Act::Advise(Advice::Huge, PageRange(None)),
                    "no-huge" => Act::Advise(Advice::NoHuge, PageRange(None)),
                    "lock" => Act::Lock,
                    "fork" => Act::Fork,
                    "sigbus" => Act::Sigbus,
                    "vmsplice" => Act::Vmsplice,
                    "process-write" => Act::ProcessWrite,
                    "process-read" => Act::ProcessRead,
                    "sendfile" => Act::Sendfile,
                    "zerocopy" => Act::Zerocopy,
                    "pin" => Act::Pin,
                    _ => bail!("unknown step \"{name}\""),
                };
                ensure!(value.is_none(), "{name} takes no value");
                act
            }
        };
        Ok(Self {
            name: name.into(),
            act,
        })
    }
}

/// Does the steps; returns how many pages failed.
pub fn follow(file: &mut MappedFile, steps: &[Step]) -> Result<usize> {
    let mut failed = 0;
    for step in steps {
        failed += file.step(step).with_context(|| step.name.clone())?;
    }
    Ok(failed)
}

fn direct(path: &Path, write: bool) -> Result<File> {
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .with_context(|| path.display().to_string())
}

/// Runs a shell command.
fn run(command: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", command]).status()?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}

impl MappedFile {
    fn step(&mut self, step: &Step) -> Result<usize> {
        let name = &step.name;
        let mut failed = 0;
        let mut count = |pages: Pages| {
            failed += pages.failed();
            pages.to_string()
        };
        let what: String = match &step.act {
            Act::Store(range) => count(self.store(range.of(&self.mapping)?)),
            Act::Load(range) => count(self.load(range.of(&self.mapping)?)),
            Act::Verify(range) => count(self.verify(range.of(&self.mapping)?)),
            Act::Same(range) => {
                let file = File::open(&self.path)?;
                let range = range.of(&self.mapping)?;
                let mut differ = 0;
                for at in range.clone().step_by(PAGE as usize) {
                    let mut mapped = [0; PAGE as usize];
                    let mut read = [0; PAGE as usize];
                    self.mapping.copy_out(at, &mut mapped);
                    file.read_exact_at(&mut read, self.file_offset(at))?;
                    differ += usize::from(mapped != read);
                }
                failed += differ;
                let pages = range.len() / PAGE as usize;
                format!("{} pages of {pages}", pages - differ)
            }
            Act::ReadOnly(range) => {
                let range = range.of(&self.mapping)?;
                self.mapping.protect(range.start, range.len())?;
                "ok".into()
            }
            Act::Writable => {
                self.mapping.unprotect()?;
                "ok".into()
            }
            Act::Unmap(range) => {
                let range = range.of(&self.mapping)?;
                self.mapping.unmap(range.start, range.len())?;
                "ok".into()
            }
            Act::Advise(advice, range) => {
                let range = range.of(&self.mapping)?;
                self.mapping.advise(range.start, range.len(), *advice)?;
                "ok".into()
            }
            Act::Lock => {
                self.mapping.lock()?;
                "ok".into()
            }
            Act::Fork => {
                let mut child = Command::new("/proc/self/exe");
                child.arg("map-read").arg(&self.path);
                child.args(["--offset", &self.offset.to_string()]);
                child.args(["--length", &self.mapping.len().to_string()]);
                // With what runs between fork and exec, the kernel copies the address space.
                let status = die_with_parent(&mut child).stdout(Stdio::null()).status()?;
                ensure!(matches!(status.code(), Some(0 | 3)), "the child: {status}");
                "ok".into()
            }
            Act::Sigbus => match sigbus::notices() {
                None => "no".into(),
                Some((count, last)) => format!(
                    "{count} code {} lsb {} address {:#x}",
                    last.code,
                    last.lsb,
                    last.address.wrapping_sub(self.mapping.address())
                ),
            },
            Act::Smaps(field) => self.smaps(field)?,
            Act::Status(field) => line_of(&fs::read_to_string("/proc/self/status")?, field)?,
            Act::Run(command) => {
                run(command)?;
                "ok".into()
            }
            Act::DirectRead(path) => {
                let file = direct(path, false)?;
                let done = self.repeat(|mapping, at, length, offset| {
                    mapping.pread(&file, offset, at, length)
                })?;
                failed += self.verify(self.all()).failed();
                format!("{done} bytes")
            }
            Act::DirectWrite(path) => {
                let file = direct(path, true)?;
                let done = self.repeat(|mapping, at, length, offset| {
                    mapping.pwrite(&file, offset, at, length)
                })?;
                format!("{done} bytes")
            }
            Act::Vmsplice => {
                let (from, to) = rustix::pipe::pipe()?;
                let mut from = File::from(from);
                let mut bytes = [0; AT_ONCE];
                let done = self.repeat(|mapping, at, length, offset| {
                    let spliced = mapping.vmsplice(&to, at, length.min(AT_ONCE))?;
                    from.read_exact(&mut bytes[..spliced])?;
                    failed += differences(&self.pattern, &bytes[..spliced], offset);
                    Ok(spliced)
                })?;
                format!("{done} bytes")
            }
            Act::VmspliceOut(range) => {
                let mut range = range.of(&self.mapping)?;
                while !range.is_empty() {
                    let out = io::stdout();
                    range.start += self.mapping.vmsplice(out, range.start, range.len())?;
                }
                return Ok(0);
            }
            Act::ProcessWrite => {
                let mut bytes = [0; AT_ONCE];
                let done = self.repeat(|mapping, at, length, offset| {
                    let bytes = &mut bytes[..length.min(AT_ONCE)];
                    self.pattern.fill(bytes, offset);
                    mapping.process_write(at, bytes)
                })?;
                failed += self.verify(self.all()).failed();
                format!("{done} bytes")
            }
            Act::ProcessRead => {
                let mut bytes = [0; AT_ONCE];
                let done = self.repeat(|mapping, at, length, offset| {
                    let bytes = &mut bytes[..length.min(AT_ONCE)];
                    let read = mapping.process_read(at, bytes)?;
                    failed += differences(&self.pattern, &bytes[..read], offset);
                    Ok(read)
                })?;
                format!("{done} bytes")
            }
            Act::Sendfile => {
                let file = File::open(&self.path)?;
                let (done, differ) = self.sent(|socket| {
                    self.repeat(|_, _, length, mut offset| {
                        Ok(rustix::fs::sendfile(
                            socket,
                            &file,
                            Some(&mut offset),
                            length,
                        )?)
                    })
                })?;
                failed += differ;
                format!("{done} bytes")
            }
            Act::Zerocopy => {
                let mut copied = false;
                let (done, differ) = self.sent(|socket| {
                    pinning::allow_zerocopy(socket)?;
                    let mut calls = 0u32;
                    let done = self.repeat(|mapping, at, length, _| {
                        calls += 1;
                        mapping.send(socket, at, length)
                    })?;
                    while calls > 0 {
                        wait_for_error(socket)?;
                        let released = pinning::released(socket)?;
                        calls = calls.saturating_sub(released.calls);
                        copied |= released.copied;
                    }
                    Ok(done)
                })?;
                failed += differ;
                let how = if copied { "copied" } else { "not copied" };
                format!("{done} bytes, {how}")
            }
            Act::Pin => {
                Pinned::new(&self.mapping)?;
                "granted".into()
            }
            Act::PinRead(io) => {
                let file = direct(&io.path, false)?;
                let done = self.pinned(io, file.as_fd(), Pinned::read)?;
                failed += self.verify(self.all()).failed();
                format!("{done} bytes")
            }
            Act::PinWrite(io) => {
                let file = direct(&io.path, true)?;
                let done = self.pinned(io, file.as_fd(), Pinned::write)?;
                format!("{done} bytes")
            }
        };
        println!("{name}: {what}");
        Ok(failed)
    }

    /// Repeats a call until all bytes are done; returns how many those are.
    ///
    /// The call gets the mapping, the offset in it, the number of bytes left and the file offset,
    /// and returns how many bytes it did.
    fn repeat(
        &self,
        mut call: impl FnMut(&Mapping, usize, usize, u64) -> io::Result<usize>,
    ) -> Result<usize> {
        let length = self.mapping.len();
        let mut done = 0;
        while done < length {
            match call(&self.mapping, done, length - done, self.file_offset(done))? {
                0 => bail!("only {done} of {length} bytes were done"),
                more => done += more,
            }
        }
        Ok(done)
    }

    /// Lets `send` send all bytes to a loopback TCP socket; returns what `send` returned, and 1 if
    /// the bytes that arrived are not the pattern, otherwise 0.
    fn sent(&self, send: impl FnOnce(&TcpStream) -> Result<usize>) -> Result<(usize, usize)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        let (mut peer, _) = listener.accept()?;
        // The buffer has room for all bytes, so the reader does not slow down the sender.
        let mut received = Vec::with_capacity(self.mapping.len());
        let reader = thread::spawn(move || peer.read_to_end(&mut received).map(|_| received));
        let sent = send(&socket);
        drop(socket);
        let received = reader.join().expect("the reader does not panic")?;
        let sent = sent?;
        ensure!(
            received.len() == sent,
            "{sent} bytes were sent, {} arrived",
            received.len()
        );
        Ok((sent, differences(&self.pattern, &received, self.offset)))
    }

    /// Pins the pages and repeats a call with them until all bytes are done.
    fn pinned<'a>(
        &'a self,
        io: &PinnedIo,
        file: BorrowedFd<'_>,
        mut call: impl FnMut(&mut Pinned<'a>, BorrowedFd<'_>, u64, usize, u32) -> io::Result<usize>,
    ) -> Result<usize> {
        let mut pinned = Pinned::new(&self.mapping)?;
        io.before.as_deref().map_or(Ok(()), run)?;
        self.repeat(|_, at, length, offset| {
            call(&mut pinned, file, offset, at, length.min(AT_ONCE) as u32)
        })
    }

    /// Returns a field of the mapping's entry in /proc/self/smaps.
    fn smaps(&self, field: &str) -> Result<String> {
        let text = fs::read_to_string("/proc/self/smaps")?;
        let start = format!("{:x}-", self.mapping.address());
        let about = text
            .split_once(&start)
            .filter(|(before, _)| before.is_empty() || before.ends_with('\n'))
            .context("the mapping is not in /proc/self/smaps")?;
        line_of(about.1, field)
    }
}

/// Returns the rest of the first line that starts with `FIELD:`.
fn line_of(text: &str, field: &str) -> Result<String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line
        .with_context(|| format!("no {field}"))?
        .trim()
        .to_owned())
}

fn wait_for_error(socket: &TcpStream) -> Result<()> {
    let limit = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(socket, PollFlags::ERR)];
    ensure!(
        poll(&mut fds, Some(&limit))? > 0,
        "the kernel did not release the pages in 60 s"
    );
    Ok(())
}
