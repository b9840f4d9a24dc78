// SPDX-License-Identifier: GPL-2.0

//! `pmem-io fail-nth`: repeats a step, with a fault at its first, second, third … allocation, until it passes without one.
//!
//! A kernel with `CONFIG_FAULT_INJECTION` counts down `/proc/thread-self/fail-nth` at each call that may fail, and makes the
//! one fail that reaches 0 (Documentation/fault-injection/fault-injection.rst): allocations, copies from and to user memory,
//! and bios. Only calls by this thread are counted.

use abstractions::mapping::Options;
use abstractions::sigbus;
use abstractions::{DirectBuffer, Mapping, module};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use units::{PAGE, Size};

/// The counter of faults of this thread.
const COUNTER: &str = "/proc/thread-self/fail-nth";

pub const HELP: &str = "\
Steps:
  write=FILE=TEXT            one write(2) of TEXT
  read=FILE                  read(2) to the end; a success has the checksum of what was read
  pread=FILE=OFFSET=LENGTH   one O_DIRECT read; a success has the checksum
  pwrite=FILE=OFFSET=LENGTH  one O_DIRECT write of zeros
  fsync=FILE                 one fsync(2)
  store=FILE=OFFSET=LENGTH   map the range, then fill its first page with 0xff: only the store is tried with faults; a
                             failure is a SIGBUS
  load=FILE[=PARAMETERS]     load a kernel module
  unload=NAME                unload a kernel module
  run=COMMAND                a shell command; it can't be the step that is tested; a success has what it printed
A step that begins with \"-\" may fail.";

#[derive(Args)]
pub struct FailNth {
    /// The step that is tested
    #[arg(allow_hyphen_values = true)]
    step: Step,
    /// A step before each try, without a fault; may be repeated
    #[arg(long, value_name = "STEP", allow_hyphen_values = true)]
    before: Vec<Step>,
    /// A step after each try, without a fault, which must succeed; may be repeated
    #[arg(long, value_name = "STEP", allow_hyphen_values = true)]
    after: Vec<Step>,
    /// Show the names that match PATTERN behind each result, without the number after their last dot
    #[arg(long, value_name = "PATTERN")]
    look: Vec<String>,
    /// Show the text of FILE behind each result, its lines joined by "+"
    #[arg(long, value_name = "FILE")]
    show: Vec<PathBuf>,
    /// A step after each try, without a fault, whose result is shown behind that of the try; may be repeated
    #[arg(long, value_name = "STEP", allow_hyphen_values = true)]
    then: Vec<Step>,
    /// Fail if the step has more allocations than this
    #[arg(long, default_value_t = 3000)]
    max: u32,
}

/// A system call, or a shell command.
#[derive(Clone)]
struct Step {
    text: String,
    kind: Kind,
    may_fail: bool,
}

#[derive(Clone)]
enum Kind {
    Write(PathBuf, String),
    Read(PathBuf),
    Pread(PathBuf, Size, Size),
    Pwrite(PathBuf, Size, Size),
    Fsync(PathBuf),
    Store(PathBuf, Size, Size),
    Load(PathBuf, CString),
    Unload(CString),
    Run(String),
}

impl FromStr for Step {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (may_fail, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (name, rest) = rest.split_once('=').context("write NAME=…")?;
        let file = |rest: &str| rest.split_once('=').unwrap_or((rest, "")).0.into();
        let more = |rest: &str| rest.split_once('=').unwrap_or((rest, "")).1.to_owned();
        let range = |rest: &str| -> Result<(Size, Size)> {
            let more = more(rest);
            let (offset, length) = more.split_once('=').context("write FILE=OFFSET=LENGTH")?;
            Ok((offset.parse()?, length.parse()?))
        };
        let kind = match name {
            "write" => Kind::Write(file(rest), more(rest)),
            "read" => Kind::Read(rest.into()),
            "pread" => {
                range(rest).map(|(offset, length)| Kind::Pread(file(rest), offset, length))?
            }
            "pwrite" => {
                range(rest).map(|(offset, length)| Kind::Pwrite(file(rest), offset, length))?
            }
            "fsync" => Kind::Fsync(rest.into()),
            "store" => {
                let (offset, length) = range(rest)?;
                ensure!(
                    offset.bytes() % PAGE == 0 && length.bytes() >= PAGE,
                    "a mapping begins at a page, and has one"
                );
                Kind::Store(file(rest), offset, length)
            }
            "load" => Kind::Load(file(rest), CString::new(more(rest))?),
            "unload" => Kind::Unload(CString::new(rest)?),
            "run" => Kind::Run(rest.to_owned()),
            _ => bail!("\"{name}\" is no step"),
        };
        Ok(Self {
            text: text.to_owned(),
            kind,
            may_fail,
        })
    }
}

/// A step whose files are open and whose buffers are there: only its own calls are counted.
enum Prepared<'a> {
    Write(File, &'a str),
    Read(File),
    Pread(File, DirectBuffer, u64),
    Pwrite(File, DirectBuffer, u64),
    Fsync(File),
    Store(Mapping, Vec<u8>),
    Load(File, &'a CString),
    Unload(&'a CString),
    Run(&'a str),
}

impl Step {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let open = |path: &Path, write: bool, flags: OFlags| {
            OpenOptions::new()
                .read(!write)
                .write(write)
                .custom_flags(flags.bits() as i32)
                .open(path)
                .with_context(|| path.display().to_string())
        };
        let none = OFlags::empty();
        let buffer = |length: &Size| {
            Ok::<_, anyhow::Error>(DirectBuffer::new(usize::try_from(length.bytes())?))
        };
        Ok(match &self.kind {
            Kind::Write(path, text) => Prepared::Write(open(path, true, none)?, text),
            Kind::Read(path) => Prepared::Read(open(path, false, none)?),
            Kind::Pread(path, offset, length) => Prepared::Pread(
                open(path, false, OFlags::DIRECT)?,
                buffer(length)?,
                offset.bytes(),
            ),
            Kind::Pwrite(path, offset, length) => Prepared::Pwrite(
                open(path, true, OFlags::DIRECT)?,
                buffer(length)?,
                offset.bytes(),
            ),
            Kind::Fsync(path) => Prepared::Fsync(open(path, true, none)?),
            Kind::Store(path, offset, length) => {
                // A shared mapping with PROT_WRITE needs a file that is open for both.
                let file = OpenOptions::new().read(true).write(true).open(path);
                let file = file.with_context(|| path.display().to_string())?;
                let options = Options {
                    writable: true,
                    ..Options::default()
                };
                let length = usize::try_from(length.bytes())?;
                let mapping = Mapping::new(&file, offset.bytes(), length, options);
                sigbus::catch().context("sigaction")?;
                Prepared::Store(mapping.context("mmap")?, vec![0xff; PAGE as usize])
            }
            Kind::Load(path, parameters) => Prepared::Load(open(path, false, none)?, parameters),
            Kind::Unload(name) => Prepared::Unload(name),
            Kind::Run(command) => Prepared::Run(command),
        })
    }

    /// Does the step without a fault; returns what it gave.
    fn follow(&self) -> Result<String> {
        let done = self.prepare().and_then(|mut step| Ok(step.call()?));
        match done {
            Err(error) if self.may_fail => Ok(error.to_string()),
            done => done.context(self.text.clone()),
        }
    }
}

impl Prepared<'_> {
    /// Makes the calls; returns what they gave.
    fn call(&mut self) -> io::Result<String> {
        let checksum = |bytes: &[u8]| format!("ok {:08x}", crc32fast::hash(bytes));
        match self {
            Prepared::Write(file, text) => match file.write_at(text.as_bytes(), 0)? {
                length if length == text.len() => Ok("ok".into()),
                length => Ok(format!("{length} bytes")),
            },
            Prepared::Read(file) => {
                let mut bytes = Vec::with_capacity(1 << 20);
                file.read_to_end(&mut bytes).map(|_| checksum(&bytes))
            }
            Prepared::Pread(file, buffer, offset) => {
                let length = file.read_at(buffer.bytes(), *offset)?;
                Ok(checksum(&buffer.bytes()[..length]))
            }
            Prepared::Pwrite(file, buffer, offset) => {
                let length = file.write_at(buffer.bytes(), *offset)?;
                Ok(format!("ok {length}"))
            }
            Prepared::Fsync(file) => file.sync_all().map(|()| "ok".into()),
            Prepared::Store(mapping, bytes) => match mapping.try_copy_in(0, bytes) {
                Ok(()) => Ok("ok".into()),
                Err(error) => Err(io::Error::other(format!("SIGBUS, code {}", error.code))),
            },
            Prepared::Load(file, parameters) => {
                module::load(&*file, parameters)?;
                Ok("ok".into())
            }
            Prepared::Unload(name) => {
                module::unload(name)?;
                Ok("ok".into())
            }
            Prepared::Run(command) => {
                let done = Command::new("sh")
                    .args(["-c", command])
                    .stderr(Stdio::inherit())
                    .output()?;
                let printed = one_line(&String::from_utf8_lossy(&done.stdout));
                match done.status.success() {
                    true if printed.is_empty() => Ok("ok".into()),
                    true => Ok(format!("ok {printed}")),
                    false => Err(io::Error::other(format!("{}: {printed}", done.status))),
                }
            }
        }
    }
}

impl FailNth {
    /// Prints each result with the number of faults that led to it, and the first of these.
    ///
    /// Fails if the step fails without a fault, or another one does.
    pub fn run(&self) -> Result<usize> {
        ensure!(
            !matches!(self.step.kind, Kind::Run(_)),
            "a command is another process: its allocations are not counted"
        );
        let mut results: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for n in 1..=self.max {
            let tried = self.try_with(n).with_context(|| format!("fault {n}"));
            let (result, failed, hit) = tried?;
            if !hit {
                ensure!(
                    !failed || self.step.may_fail,
                    "{} fails without a fault: {result}",
                    self.step.text
                );
                println!("without a fault: {result}");
                for (result, (count, first)) in results {
                    println!("{count} faults, first {first}: {result}");
                }
                return Ok(0);
            }
            results.entry(result).or_insert((0, n)).0 += 1;
        }
        bail!("{}: more than {} allocations", self.step.text, self.max);
    }

    /// Does all steps once, with a fault at the `n`-th allocation. Returns the result, whether it is a
    /// failure, and whether there were as many.
    fn try_with(&self, n: u32) -> Result<(String, bool, bool)> {
        for step in &self.before {
            step.follow()?;
        }
        let mut step = self.step.prepare()?;
        // Two files: this one has no lseek(2), so each is read or written once.
        let counter = |write: bool| {
            let file = OpenOptions::new().read(!write).write(write).open(COUNTER);
            file.with_context(|| format!("{COUNTER}: the kernel has no CONFIG_FAULT_INJECTION?"))
        };
        let (mut set, mut unset, mut rest) = (counter(true)?, counter(true)?, counter(false)?);
        let text = n.to_string();
        let mut left = [0; 16];
        set.write_all(text.as_bytes()).context(COUNTER)?;
        let called = step.call();
        // If one or two are left, these copies from and to user memory take the last, and fail.
        let length = rest.read(&mut left);
        match unset.write_all(b"0") {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::FAULT) => (),
            written => written.context(COUNTER)?,
        }
        let hit = length.is_ok_and(|length| &left[..length] == b"0\n");
        // Closing the file is part of the step: the kernel may end it there.
        drop(step);
        let failed = called.is_err();
        let mut result = match called {
            Ok(text) => text,
            Err(error) => error.to_string(),
        };
        for pattern in &self.look {
            result.push_str(&format!("; {}", look(pattern)?));
        }
        for path in &self.show {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            result.push_str(&format!("; {}", one_line(&text)));
        }
        for step in &self.then {
            let then = step.follow().with_context(|| result.clone())?;
            result.push_str(&format!("; {then}"));
        }
        for step in &self.after {
            step.follow().with_context(|| result.clone())?;
        }
        Ok((result, failed, hit))
    }
}

/// Returns a text with its lines joined by "+".
fn one_line(text: &str) -> String {
    text.trim().replace('\n', "+")
}

/// Returns the names that match a pattern in their last part, without the number after their last dot.
fn look(pattern: &str) -> Result<String> {
    let (folder, pattern) = pattern.rsplit_once('/').context("write FOLDER/PATTERN")?;
    let pattern = glob::Pattern::new(pattern)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.to_owned())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if pattern.matches(&name) {
            names.push(match name.rsplit_once('.') {
                Some((start, _)) => start.to_owned(),
                None => name,
            });
        }
    }
    names.sort();
    Ok(match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_parsed() {
        for text in [
            "write=/a=b=c",
            "-read=/a",
            "pread=/a=4K=512",
            "pwrite=/a=0=1M",
            "fsync=/a",
            "store=/a=2M=4K",
            "load=/a.ko",
            "load=/a.ko=b=1 c=2",
            "unload=a",
            "run=a=b c",
        ] {
            let step: Step = text.parse().unwrap();
            assert_eq!(step.may_fail, text.starts_with('-'));
        }
        let step: Step = "load=/a.ko=b=1 c=2".parse().unwrap();
        assert!(matches!(step.kind, Kind::Load(file, more)
            if file == Path::new("/a.ko") && more.as_bytes() == b"b=1 c=2"));
        for text in [
            "",
            "write",
            "pread=/a=1",
            "nonsense=/a",
            "pread=/a=x=1",
            "store=/a=0=512",
            "store=/a=512=4K",
        ] {
            assert!(text.parse::<Step>().is_err(), "{text}");
        }
    }

    fn follow(text: &str) -> Result<String> {
        text.parse::<Step>().unwrap().follow()
    }

    // One test: only one thread may access mappings.
    #[test]
    fn a_store_fills_the_first_page_or_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [1; 3 * 4096]).unwrap();
        let file = path.display();
        assert_eq!(follow(&format!("store={file}=4K=8K")).unwrap(), "ok");
        assert_eq!(follow(&format!("fsync={file}")).unwrap(), "ok");
        let expected = [[1; 4096], [0xff; 4096], [1; 4096]].concat();
        assert!(fs::read(&path).unwrap() == expected);
        // The code is BUS_ADRERR.
        let beyond = format!("store={file}=12K=4K");
        assert!(follow(&beyond).is_err());
        assert_eq!(follow(&format!("-{beyond}")).unwrap(), "SIGBUS, code 2");
    }

    #[test]
    fn a_command_gives_what_it_prints() {
        assert_eq!(follow("run=true").unwrap(), "ok");
        assert_eq!(follow("run=seq 2").unwrap(), "ok 1+2");
        assert_eq!(follow("-run=echo a; exit 3").unwrap(), "exit status: 3: a");
    }

    #[test]
    fn names_lose_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["btt0.7", "namespace0.0", "pfn0.1", "uevent"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let path = folder.path().display();
        assert_eq!(
            look(&format!("{path}/*0.*")).unwrap(),
            "btt0 namespace0 pfn0"
        );
        assert_eq!(look(&format!("{path}/pmem*")).unwrap(), "none");
    }
}
