// SPDX-License-Identifier: GPL-2.0

//! Runs programs of other packages on the contents of devices.
//!
//! The programs parse data that may be hostile: the disk of a guest, a corrupt file system. They run without
//! privileges ([`abstractions::sandbox`]), with limits, and get the device as a descriptor. Their output is limited as
//! well, because this process keeps it in its own memory.

use crate::programs;
use crate::sysfs::printable;
use abstractions::process::die_with_parent;
use abstractions::sandbox::{self, Device, Limits, confine};
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Default)]
pub struct CommandOutput {
    pub success: bool,
    /// Bytes, because names of files need not be UTF-8.
    pub output: Vec<u8>,
    /// The last line of standard error, as [`printable`] has it: it may quote a hostile image.
    pub error: String,
}

impl CommandOutput {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// Returns why the program failed, with its name.
    pub fn reason(&self, program: &str) -> String {
        let error = self.error.trim();
        match error.strip_prefix(program) {
            Some(_) => error.to_owned(),
            None if error.is_empty() => format!("{program} failed and does not say why"),
            None => format!("{program}: {error}"),
        }
    }
}

/// The seconds that a program may run. A search in all inodes of 10^8 files takes hours, but in several runs.
static DEADLINE: AtomicU64 = AtomicU64::new(3600);

/// Ends each program of this process after `limit`, from now on: a service must not wait for a hostile image.
pub fn limit_runs(limit: Duration) {
    DEADLINE.store(limit.as_secs(), Ordering::Relaxed);
}

/// Bytes of output that are kept at most.
const OUTPUT: u64 = 64 << 20;
/// Bytes of a line or field of output at most; names of files are shorter.
const FIELD: usize = 1 << 20;

fn too_much(most: usize) -> io::Error {
    io::Error::other(format!("there are more than {} MiB of it", most >> 20))
}

/// Reads until `end`, as [`BufRead::read_until`] does; fails if `to` becomes too long.
pub fn read_field(from: &mut dyn BufRead, end: u8, to: &mut Vec<u8>) -> io::Result<usize> {
    let room = FIELD.saturating_sub(to.len());
    let count = from.take(room as u64).read_until(end, to)?;
    match to.len() < FIELD {
        true => Ok(count),
        false => Err(too_much(FIELD)),
    }
}

/// Reads all; fails if it is more than `most` bytes.
fn read_all(from: &mut dyn BufRead, most: u64, to: &mut Vec<u8>) -> io::Result<()> {
    from.take(most).read_to_end(to)?;
    match from.fill_buf()?.is_empty() {
        true => Ok(()),
        false => Err(too_much(most as usize)),
    }
}

/// Paths that programs read besides the device: themselves, their libraries, and the settings of mke2fs(8).
const READABLE: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/mke2fs.conf",
    "/gnu/store",
    "/nix/store",
    "/proc",
    "/sys/devices/system",
];

/// A program that opens the device for writing, although it writes nothing.
const OPENS_FOR_WRITING: &str = "xfs_logprint";

/// Returns the address space that a program may use: a quarter of the RAM, at least 1 GiB.
fn memory() -> u64 {
    const LEAST: u64 = 1 << 30;
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| {
        let kib: u64 = line
            .strip_prefix("MemTotal:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()?;
        kib.checked_mul(1024)
    });
    (total.unwrap_or(0) / 4).max(LEAST)
}

/// Runs `program` of the Debian package `package` on `device`, its last argument, with `commands` as its input.
pub fn run(
    program: &str,
    package: &str,
    options: &[&str],
    device: &str,
    commands: &str,
) -> Result<CommandOutput> {
    let mut output = Vec::new();
    let rest = read(program, package, options, device, commands, |from| {
        read_all(from, OUTPUT, &mut output)
    })?;
    Ok(CommandOutput { output, ..rest })
}

/// Does the same, but `see` reads the output as it arrives.
pub fn read(
    program: &str,
    package: &str,
    options: &[&str],
    device: &str,
    commands: &str,
    see: impl FnOnce(&mut dyn BufRead) -> io::Result<()>,
) -> Result<CommandOutput> {
    let limit = Duration::from_secs(DEADLINE.load(Ordering::Relaxed));
    read_within(limit, program, package, options, device, commands, see)
}

/// Does the same for the device `name`, with a time limit.
fn read_within(
    limit: Duration,
    program: &str,
    package: &str,
    options: &[&str],
    name: &str,
    commands: &str,
    see: impl FnOnce(&mut dyn BufRead) -> io::Result<()>,
) -> Result<CommandOutput> {
    // Files, so that neither side blocks; in memory, because a service may have no writable directory.
    let in_memory = || memfd_create(program, MemfdFlags::CLOEXEC).map(File::from);
    let (mut input, mut errors) = (in_memory()?, in_memory()?);
    input.write_all(commands.as_bytes())?;
    input.rewind()?;
    let opened = sandbox::open_read_only(Path::new(name)).with_context(|| name.to_owned())?;
    let argument = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let path = programs::path(program);
    // A symbolic link may point out of the readable directories.
    let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    let readable: Vec<&Path> = READABLE.iter().map(Path::new).chain([&*real]).collect();
    let limits = Limits {
        memory: memory(),
        cpu: limit.as_secs().max(1),
    };
    let mut command = Command::new(&path);
    command
        .args(options)
        .arg(&argument)
        .env("LC_ALL", "C")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(errors.try_clone()?)
        // Its own group, so that its children can be killed with it.
        .process_group(0);
    let device = Device {
        file: opened.into(),
        writable: program == OPENS_FOR_WRITING,
    };
    confine(&mut command, limits, &readable, Some(device))?;
    die_with_parent(&mut command);
    let child = command
        .spawn()
        .with_context(|| format!("cannot run {program} (package {package})"))?;
    let mut running = Running {
        child,
        end: Instant::now() + limit,
    };
    let success = running
        .finish(see)
        .with_context(|| format!("output of {program}"))?;
    let mut output = Vec::new();
    errors.rewind()?;
    errors.read_to_end(&mut output)?;
    let output = String::from_utf8_lossy(&output);
    let error = output.lines().last().unwrap_or_default();
    Ok(CommandOutput {
        success,
        error: printable(error.replace(&argument, name)),
        output: Vec::new(),
    })
}

/// A program that has to end in time.
struct Running {
    child: Child,
    end: Instant,
}

impl Running {
    /// Passes the output to `see`, and waits for the end. Returns whether the program succeeded.
    fn finish(&mut self, see: impl FnOnce(&mut dyn BufRead) -> io::Result<()>) -> io::Result<bool> {
        if let Some(output) = self.child.stdout.take() {
            let end = self.end;
            see(&mut BufReader::new(Timed { output, end }))?;
        }
        let pid = Pid::from_child(&self.child);
        wait(pidfd_open(pid, PidfdFlags::empty())?, self.end)?;
        Ok(self.child.wait()?.success())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A process that was waited for has no group that could be another's, as its number is free only then.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Waits until `file` can be read, or fails with `TimedOut`.
fn wait(file: impl AsFd, end: Instant) -> io::Result<()> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut polled = [PollFd::new(&file, PollFlags::IN)];
        match poll(&mut polled, Some(&left)) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it did not end in time",
                ));
            }
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Output that arrives before `end`.
struct Timed<R> {
    output: R,
    end: Instant,
}

impl<R: Read + AsFd> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        wait(&self.output, self.end)?;
        self.output.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_output_and_status_are_kept() {
        let commands = "echo a; echo x >&2; echo sh: no $1 >&2; exit 3";
        let output = run("sh", "dash", &["-s"], "/dev/null", commands).unwrap();
        assert_eq!((output.success, output.text().as_str()), (false, "a\n"));
        assert_eq!(output.reason("sh"), "sh: no /dev/null");
        assert_eq!(output.reason("bash"), "bash: sh: no /dev/null");
        let commands = r"printf 'sh: \033[2J' >&2; exit 3";
        let output = run("sh", "dash", &["-s"], "/dev/null", commands).unwrap();
        assert_eq!(output.reason("sh"), r"sh: \u{1b}[2J");
        assert!(
            CommandOutput::default()
                .reason("sh")
                .contains("does not say why")
        );
        let error = run("/none/x", "nothing", &[], "/dev/null", "").unwrap_err();
        assert!(format!("{error:#}").contains("nothing"));
    }

    #[test]
    fn program_has_the_device_and_no_privileges() {
        let device = tempfile::NamedTempFile::new().unwrap();
        fs::write(device.path(), "content\n").unwrap();
        let device = device.path().to_str().unwrap();
        let commands = "cat $1; grep CapEff /proc/self/status; ulimit -t";
        let output = run("sh", "dash", &["-s"], device, commands).unwrap();
        assert_eq!(
            output.text(),
            "content\nCapEff:\t0000000000000000\n3600\n",
            "{}",
            output.error
        );
    }

    #[test]
    fn program_that_prints_too_much_is_killed() {
        let error = run("sh", "dash", &["-s"], "/dev/null", "yes").unwrap_err();
        assert!(
            format!("{error:#}").contains("more than 64 MiB"),
            "{error:#}"
        );
        let mut output = Vec::new();
        assert!(read_all(&mut &b"abc"[..], 2, &mut output).is_err());
        output.clear();
        read_all(&mut &b"abc"[..], 3, &mut output).unwrap();
        assert_eq!(output, b"abc");

        let endless = || io::BufReader::new(io::repeat(b'x'));
        assert!(read_field(&mut endless(), b'\n', &mut Vec::new()).is_err());
        output.clear();
        let mut lines = &b"ab\ncd"[..];
        for (count, all) in [(3, "ab\n"), (2, "ab\ncd"), (0, "ab\ncd")] {
            assert_eq!(read_field(&mut lines, b'\n', &mut output).unwrap(), count);
            assert_eq!(output, all.as_bytes());
        }
    }

    #[test]
    fn program_that_hangs_is_killed() {
        let start = Instant::now();
        // The first keeps the pipe open, the second closes it and goes on.
        for commands in ["sleep 30 & sleep 30", "exec sleep 30 >&-"] {
            let limit = Duration::from_millis(200);
            let options = ["-s"];
            let hung = read_within(
                limit,
                "sh",
                "dash",
                &options,
                "/dev/null",
                commands,
                |from| from.read_to_end(&mut Vec::new()).map(drop),
            );
            let error = format!("{:#}", hung.unwrap_err());
            assert!(error.contains("did not end in time"), "{error}");
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
