// SPDX-License-Identifier: GPL-2.0

//! What one process does to a mapping, step by step.

use crate::pattern::Pattern;
use crate::{differences, each_page};
use abstractions::Mapping;
use abstractions::pinning::{self, Advice, Pinned};
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
use std::process::Command;
use std::str::FromStr;
use std::thread;
use units::{PAGE, Size};

/// Bytes of each call where the kernel takes no more, or a pipe holds no more.
const AT_ONCE: usize = 64 * 1024;

/// A piece of a mapping; all of it where none is named.
#[derive(Debug, Clone, Copy)]
struct Piece(Option<(Size, Size)>);

impl Piece {
    fn of(&self, mapping: &Mapping) -> Result<Range<usize>> {
        let Some((start, length)) = self.0 else {
            return Ok(0..mapping.len());
        };
        let start = usize::try_from(start.bytes())?;
        let end = start.checked_add(usize::try_from(length.bytes())?);
        end.filter(|&end| end <= mapping.len() && start % PAGE as usize == 0)
            .map(|end| start..end)
            .context("not pages of the mapping")
    }
}

impl FromStr for Piece {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (start, length) = text
            .split_once('+')
            .with_context(|| format!("\"{text}\" is not a piece: write START+LENGTH"))?;
        Ok(Self(Some((start.parse()?, length.parse()?))))
    }
}

/// One thing that is done.
#[derive(Debug, Clone)]
pub struct Step {
    name: String,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    Store(Piece),
    Load(Piece),
    Verify(Piece),
    Same(Piece),
    ReadOnly(Piece),
    Writable,
    Unmap(Piece),
    Advise(Advice, Piece),
    Lock,
    Told,
    Smaps(String),
    Status(String),
    Run(String),
    DirectRead(PathBuf),
    DirectWrite(PathBuf),
    Vmsplice,
    VmspliceOut(Piece),
    ProcessWrite,
    ProcessRead,
    Sendfile,
    Zerocopy,
    Pin,
    PinRead(PathBuf),
    PinWrite(PathBuf),
}

/// What `pmem-io map --help` says of them.
pub const HELP: &str = "\
Steps, each of which prints a line; PIECE is START+LENGTH, such as 2M+64K, otherwise all:
  store[=PIECE]        store the pattern to each page
  load[=PIECE]         touch each page
  verify[=PIECE]       compare each page with the pattern
  same[=PIECE]         compare each page with what read(2) gives
  read-only=PIECE      mprotect(2)
  writable             mprotect(2) of all, so that it is as at first
  unmap=PIECE          other memory in its place
  forget[=PIECE]       madvise(2) with MADV_DONTNEED
  huge, no-huge        madvise(2) with MADV_HUGEPAGE, MADV_NOHUGEPAGE
  poison=PIECE         madvise(2) with MADV_HWPOISON
  lock                 mlock(2)
  told                 how often a SIGBUS came that no access had caused, and the last of them
  smaps=FIELD          a line of /proc/self/smaps about the mapping
  status=FIELD         a line of /proc/self/status
  run=COMMAND          by the shell
  direct-read=FILE     from a file into the mapping, with O_DIRECT; compare with the pattern
  direct-write=FILE    from the mapping to a file, with O_DIRECT
  vmsplice             lend the pages to a pipe, read them there, compare with the pattern
  vmsplice-out[=PIECE] lend the pages to the pipe that standard output is, and leave them there (prints no line)
  process-write        process_vm_writev(2) into the mapping; compare with the pattern
  process-read         process_vm_readv(2) from the mapping; compare with the pattern
  sendfile             the file to a TCP socket; compare what comes out with the pattern
  zerocopy             send(2) of the mapping with MSG_ZEROCOPY; compare what comes out with the pattern
  pin                  have an io_uring keep the pages: a fixed buffer
  pin-read=FILE        pin, then from a file into it, with O_DIRECT; compare with the pattern
  pin-write=FILE       pin, then from it to a file, with O_DIRECT";

impl FromStr for Step {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let all_or = || value.map_or(Ok(Piece(None)), str::parse);
        let needed = || value.with_context(|| format!("{name}: what?"));
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
                    "huge" => Act::Advise(Advice::Huge, Piece(None)),
                    "no-huge" => Act::Advise(Advice::NoHuge, Piece(None)),
                    "lock" => Act::Lock,
                    "told" => Act::Told,
                    "vmsplice" => Act::Vmsplice,
                    "process-write" => Act::ProcessWrite,
                    "process-read" => Act::ProcessRead,
                    "sendfile" => Act::Sendfile,
                    "zerocopy" => Act::Zerocopy,
                    "pin" => Act::Pin,
                    _ => bail!("there is no step \"{name}\""),
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

/// A mapping, and where it came from.
pub struct Target {
    /// The mapping.
    pub mapping: Mapping,
    /// Its file.
    pub path: PathBuf,
    /// Where in the file it begins.
    pub offset: u64,
    /// What it shall hold.
    pub pattern: Pattern,
}

/// Does the steps; the number of pages that were refused, and of places that differ.
pub fn follow(target: &mut Target, steps: &[Step]) -> Result<usize> {
    let mut wrong = 0;
    for step in steps {
        wrong += target.step(step).with_context(|| step.name.clone())?;
    }
    Ok(wrong)
}

fn direct(path: &Path, write: bool) -> Result<File> {
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .with_context(|| path.display().to_string())
}

impl Target {
    fn step(&mut self, step: &Step) -> Result<usize> {
        let name = &step.name;
        let mut wrong = 0;
        let what: String = match &step.act {
            Act::Store(piece) => self.pages(piece, &mut wrong, |target, at, bytes, _| {
                target.pattern.fill(bytes, target.place(at));
                target.mapping.try_copy_in(at, bytes)
            })?,
            Act::Load(piece) => self.pages(piece, &mut wrong, |target, at, bytes, _| {
                target.mapping.try_copy_out(at, bytes)
            })?,
            Act::Verify(piece) => self.pages(piece, &mut wrong, |target, at, bytes, wrong| {
                target.mapping.try_copy_out(at, bytes)?;
                *wrong += differences(&target.pattern, bytes, target.place(at));
                Ok(())
            })?,
            Act::Same(piece) => {
                let file = File::open(&self.path)?;
                let piece = piece.of(&self.mapping)?;
                let mut differ = 0;
                for at in piece.clone().step_by(PAGE as usize) {
                    let mut mapped = [0; PAGE as usize];
                    let mut read = [0; PAGE as usize];
                    self.mapping.copy_out(at, &mut mapped);
                    file.read_exact_at(&mut read, self.place(at))?;
                    differ += usize::from(mapped != read);
                }
                wrong += differ;
                let pages = piece.len() / PAGE as usize;
                format!("{} pages of {pages}", pages - differ)
            }
            Act::ReadOnly(piece) => {
                let piece = piece.of(&self.mapping)?;
                self.mapping.protect(piece.start, piece.len())?;
                "ok".into()
            }
            Act::Writable => {
                self.mapping.unprotect()?;
                "ok".into()
            }
            Act::Unmap(piece) => {
                let piece = piece.of(&self.mapping)?;
                self.mapping.unmap(piece.start, piece.len())?;
                "ok".into()
            }
            Act::Advise(advice, piece) => {
                let piece = piece.of(&self.mapping)?;
                self.mapping.advise(piece.start, piece.len(), *advice)?;
                "ok".into()
            }
            Act::Lock => {
                self.mapping.lock()?;
                "ok".into()
            }
            Act::Told => match sigbus::notices() {
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
                let status = Command::new("sh").args(["-c", command]).status()?;
                ensure!(status.success(), "{command}: {status}");
                "ok".into()
            }
            Act::DirectRead(path) => {
                let file = direct(path, false)?;
                let done =
                    self.all(|mapping, at, length, place| mapping.pread(&file, place, at, length))?;
                wrong += self.compared()?;
                format!("{done} bytes")
            }
            Act::DirectWrite(path) => {
                let file = direct(path, true)?;
                let done = self
                    .all(|mapping, at, length, place| mapping.pwrite(&file, place, at, length))?;
                format!("{done} bytes")
            }
            Act::Vmsplice => {
                let (from, to) = rustix::pipe::pipe()?;
                let mut from = File::from(from);
                let mut bytes = [0; AT_ONCE];
                let done = self.all(|mapping, at, length, place| {
                    let lent = mapping.vmsplice(&to, at, length.min(AT_ONCE))?;
                    from.read_exact(&mut bytes[..lent])?;
                    wrong += differences(&self.pattern, &bytes[..lent], place);
                    Ok(lent)
                })?;
                format!("{done} bytes")
            }
            Act::VmspliceOut(piece) => {
                let mut piece = piece.of(&self.mapping)?;
                while !piece.is_empty() {
                    let out = io::stdout();
                    piece.start += self.mapping.vmsplice(out, piece.start, piece.len())?;
                }
                return Ok(0);
            }
            Act::ProcessWrite => {
                let mut bytes = [0; AT_ONCE];
                let done = self.all(|mapping, at, length, place| {
                    let bytes = &mut bytes[..length.min(AT_ONCE)];
                    self.pattern.fill(bytes, place);
                    mapping.process_write(at, bytes)
                })?;
                wrong += self.compared()?;
                format!("{done} bytes")
            }
            Act::ProcessRead => {
                let mut bytes = [0; AT_ONCE];
                let done = self.all(|mapping, at, length, place| {
                    let bytes = &mut bytes[..length.min(AT_ONCE)];
                    let read = mapping.process_read(at, bytes)?;
                    wrong += differences(&self.pattern, &bytes[..read], place);
                    Ok(read)
                })?;
                format!("{done} bytes")
            }
            Act::Sendfile => {
                let file = File::open(&self.path)?;
                let (done, differ) = self.sent(|socket| {
                    self.all(|_, _, length, mut place| {
                        Ok(rustix::fs::sendfile(
                            socket,
                            &file,
                            Some(&mut place),
                            length,
                        )?)
                    })
                })?;
                wrong += differ;
                format!("{done} bytes")
            }
            Act::Zerocopy => {
                let mut copied = false;
                let (done, differ) = self.sent(|socket| {
                    pinning::allow_zerocopy(socket)?;
                    let mut calls = 0u32;
                    let done = self.all(|mapping, at, length, _| {
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
                wrong += differ;
                let how = if copied { "copied" } else { "not copied" };
                format!("{done} bytes, {how}")
            }
            Act::Pin => {
                Pinned::new(&self.mapping)?;
                "granted".into()
            }
            Act::PinRead(path) => {
                let file = direct(path, false)?;
                let done = self.pinned(file.as_fd(), Pinned::read)?;
                wrong += self.compared()?;
                format!("{done} bytes")
            }
            Act::PinWrite(path) => {
                let file = direct(path, true)?;
                let done = self.pinned(file.as_fd(), Pinned::write)?;
                format!("{done} bytes")
            }
        };
        println!("{name}: {what}");
        Ok(wrong)
    }

    /// Where in the file the byte at `at` of the mapping is.
    fn place(&self, at: usize) -> u64 {
        self.offset + at as u64
    }

    /// Accesses each page of a piece; says how many there are, and how many were refused.
    fn pages(
        &self,
        piece: &Piece,
        wrong: &mut usize,
        access: impl Fn(&Self, usize, &mut [u8], &mut usize) -> Result<(), sigbus::Refusal>,
    ) -> Result<String> {
        let piece = piece.of(&self.mapping)?;
        let mut bytes = [0; PAGE as usize];
        let mut differ = 0;
        let refused = each_page(&self.mapping, piece.clone(), |at, length| {
            access(self, at, &mut bytes[..length], &mut differ)
        })?;
        *wrong += refused + differ;
        let pages = piece.len().div_ceil(PAGE as usize);
        Ok(match (refused, differ) {
            (0, 0) => format!("{pages} pages"),
            _ => format!("{pages} pages, {refused} refused, {differ} not the pattern"),
        })
    }

    /// Repeats a call, which is told the mapping, where in it, how many bytes are left and their
    /// place in the file, until all are done.
    fn all(
        &self,
        mut call: impl FnMut(&Mapping, usize, usize, u64) -> io::Result<usize>,
    ) -> Result<usize> {
        let length = self.mapping.len();
        let mut done = 0;
        while done < length {
            match call(&self.mapping, done, length - done, self.place(done))? {
                0 => bail!("ended after {done} bytes of {length}"),
                more => done += more,
            }
        }
        Ok(done)
    }

    /// How many places of the mapping are not the pattern's.
    fn compared(&self) -> Result<usize> {
        let mut differ = 0;
        self.pages(&Piece(None), &mut differ, |target, at, bytes, wrong| {
            target.mapping.try_copy_out(at, bytes)?;
            *wrong += differences(&target.pattern, bytes, target.place(at));
            Ok(())
        })?;
        Ok(differ)
    }

    /// Lets `send` send all of it to a socket of this machine: what it answers, and at how many
    /// places what came out is not the pattern.
    fn sent(&self, send: impl FnOnce(&TcpStream) -> Result<usize>) -> Result<(usize, usize)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        let (mut peer, _) = listener.accept()?;
        // Room for all of what comes, so that nothing waits for a reader.
        let mut received = Vec::with_capacity(self.mapping.len());
        let reader = thread::spawn(move || peer.read_to_end(&mut received).map(|_| received));
        let sent = send(&socket);
        drop(socket);
        let received = reader.join().expect("it does not panic")?;
        let sent = sent?;
        ensure!(
            received.len() == sent,
            "{sent} bytes went in, {} came out",
            received.len()
        );
        Ok((sent, differences(&self.pattern, &received, self.offset)))
    }

    /// Has the pages kept, and repeats a call with them until all bytes are done.
    fn pinned<'a>(
        &'a self,
        file: BorrowedFd<'_>,
        mut call: impl FnMut(&mut Pinned<'a>, BorrowedFd<'_>, u64, usize, u32) -> io::Result<usize>,
    ) -> Result<usize> {
        let mut pinned = Pinned::new(&self.mapping)?;
        self.all(|_, at, length, place| {
            call(&mut pinned, file, place, at, length.min(AT_ONCE) as u32)
        })
    }

    /// What the kernel says of the mapping.
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

/// What follows `FIELD:` in the first line that begins so.
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
        "pages were lent and never given back"
    );
    Ok(())
}
