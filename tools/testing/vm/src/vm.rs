// SPDX-License-Identifier: GPL-2.0

//! A running guest.

use crate::architecture::Architecture;
use crate::control::{Control, Ended, Loss, Received};
use crate::cper::Severity;
use crate::host_cache::HostCache;
use crate::monitor::Monitor;
use crate::options::{Nvdimm, Options, VirtioPmem};
use crate::poison::{Line, Poison};
use crate::process::Process;
use crate::qemu_args::{self, Images};
use crate::serial::{Serial, reports};
use crate::terminal;
use crate::virtiofs;
use abstractions::process::{die_with_parent, inherit};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A boot that logs nothing for this long hangs (one in thirty does under TCG, for an unknown reason).
const SILENCE: Duration = Duration::from_secs(25);
/// Time-out of a boot.
const BOOT: Duration = Duration::from_secs(150);
/// Factor of both for a debug kernel and for an installed system.
const SLOW: u32 = 4;
/// Time of a boot on a host of usual speed.
const USUAL_BOOT: Duration = Duration::from_secs(8);
/// Number of boots that are tried.
const TRIES: u32 = 3;
/// How long the console may take to show what the kernel has logged.
const LOG_LIMIT: Duration = Duration::from_secs(30);
/// Time-out of an orderly power-off, and of that of an installed system.
const POWER_OFF: Duration = Duration::from_secs(20);
const SYSTEM_POWER_OFF: Duration = Duration::from_secs(300);

/// Returns whether QEMU has ended because of what it was asked for: it says why, and ends with a status. A signal ends it if it has
/// failed itself (a failed assertion), and it may not fail again.
fn is_refusal(status: &str, said: &str) -> bool {
    !said.is_empty() && status.starts_with("exit status") && !status.ends_with("status: 0")
}

/// Why a guest did not boot.
#[derive(Debug)]
pub enum BootError {
    /// QEMU did not start, with its message.
    Refused(String),
    /// The guest was not ready in time.
    NotReady {
        /// How each try ended.
        tries: Vec<String>,
        /// Last lines of the log.
        tail: Vec<String>,
    },
    /// A failure on the host.
    Other(anyhow::Error),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Refused(said) => write!(f, "QEMU would not start: {said}"),
            BootError::NotReady { tries, tail } => {
                write!(f, "the machine did not come up in {} tries:", tries.len())?;
                for (index, how) in tries.iter().enumerate() {
                    write!(f, "{} {how}", if index == 0 { "" } else { ";" })?;
                }
                for line in tail {
                    write!(f, "\n    {line}")?;
                }
                Ok(())
            }
            BootError::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for BootError {}

impl From<anyhow::Error> for BootError {
    fn from(error: anyhow::Error) -> Self {
        BootError::Other(error)
    }
}

/// QEMU's process, and why it ended if that was requested.
#[derive(Debug)]
struct Qemu {
    process: Process,
    _virtiofsd: Option<Process>,
    requested: Mutex<Option<Loss>>,
    cache: HostCache,
}

/// Parses a decimal or hexadecimal address.
fn parse_address(text: &str) -> Result<u64> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    number.with_context(|| format!("\"{text}\" is not an address"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Qemu {
    /// Kills it, by a power cut that was requested.
    fn cut(&self) {
        *locked(&self.requested) = Some(Loss::PowerCut);
        self.process.kill();
    }
}

/// A running guest. Dropping it kills QEMU.
pub struct Vm {
    qemu: Arc<Qemu>,
    monitor: Arc<Monitor>,
    control: Control,
    console: UnixStream,
    sysrq: UnixStream,
    serial: Serial,
    kernel: String,
    boot_time: Duration,
    /// It has an installed system, with systemd.
    installed: bool,
}

/// QEMU after its start, with this program's ends of the channels.
struct Started {
    qemu: Qemu,
    control: UnixStream,
    host: UnixStream,
    sysrq: UnixStream,
    console: UnixStream,
    monitor: UnixStream,
}

/// Path of QEMU's messages.
fn qemu_log(folder: &Path) -> PathBuf {
    folder.join("qemu.log")
}

fn start(
    mut command: Command,
    mut arguments: Vec<OsString>,
    images: &Images,
    folder: &Path,
    cache: HostCache,
) -> Result<Started> {
    let log = File::create(qemu_log(folder))?;
    let mut theirs = Vec::new();
    let mut give = |channel: UnixStream, name: &str, option: &str, value: &str| {
        let fd = channel.as_raw_fd();
        arguments.extend([
            "-chardev".into(),
            format!("socket,id={name},fd={fd}").into(),
        ]);
        arguments.extend([option.into(), format!("{value},chardev={name}").into()]);
        theirs.push(channel.into());
    };
    let mut virtiofsd = None;
    if images.virtiofs {
        let (process, channel) = virtiofs::serve(&images.share, log.try_clone()?)?;
        give(channel, "checkout", "-device", virtiofs::DEVICE);
        virtiofsd = Some(process);
    }
    let mut line = |name: &str, option: &str, value: &str| -> Result<UnixStream> {
        let (ours, other) = UnixStream::pair()?;
        give(other, name, option, value);
        Ok(ours)
    };
    let control = line("control", "-device", "virtserialport,name=control")?;
    let host = line("host", "-device", "virtserialport,name=host")?;
    let sysrq = line("sysrq", "-device", "virtserialport,name=sysrq")?;
    let console = line("console", "-device", "virtconsole")?;
    let monitor = line("monitor", "-mon", "mode=control")?;
    command
        .args(&arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let program = command.get_program().to_string_lossy().into_owned();
    let child = die_with_parent(inherit(&mut command, theirs))
        .spawn()
        .with_context(|| format!("{program} can't be run"))?;
    let qemu = Qemu {
        process: Process::new(child),
        _virtiofsd: virtiofsd,
        requested: Mutex::new(None),
        cache,
    };
    Ok(Started {
        qemu,
        control,
        host,
        sysrq,
        console,
        monitor,
    })
}

/// Returns QEMU's command line for a machine, to be read by people.
pub fn command_line(options: &Options, serial: &Path, folder: &Path) -> Result<String> {
    let images = Images::find(options)?;
    let arguments = qemu_args::arguments(options, &images, serial, folder)?;
    let words = arguments.iter().map(|word| word.to_string_lossy());
    let words: Vec<_> = words.collect();
    Ok(format!(
        "{} {}",
        images.architecture.qemu(),
        shlex::try_join(words.iter().map(AsRef::as_ref))?
    ))
}

impl Vm {
    /// Boots a guest and waits until it takes commands.
    ///
    /// Files of devices without a name are in `folder`, and are reused if they exist. The kernel's log is appended to
    /// `serial`. A boot that hangs or ends early is tried again, which `note` reports. QEMU is killed when the calling
    /// thread ends, so that thread must live as long as the guest.
    pub fn boot(
        options: &Options,
        folder: &Path,
        serial: &Path,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, BootError> {
        let images = Images::find(options)?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        if let Some(parent) = serial.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        let arguments = qemu_args::arguments(options, &images, serial, folder)?;
        let (volatile, others) = qemu_args::virtio_pmem_files(options, folder);
        for path in &others {
            HostCache::forget(path)?;
        }
        let cache = HostCache::new(volatile)?;
        let serial = Serial::new(serial);
        let mut tries = Vec::new();
        loop {
            match Self::boot_once(options, &images, &arguments, folder, &serial, &cache)? {
                Ok(vm) => return Ok(vm),
                Err(how) => {
                    tries.push(how);
                    // An installed system loads the driver while it boots.
                    if options.disk.is_some() || tries.len() >= TRIES as usize {
                        return Err(BootError::NotReady {
                            tries,
                            tail: serial.tail(20),
                        });
                    }
                    note(&format!(
                        "boot tried again: {}",
                        tries.last().map_or("", String::as_str)
                    ));
                }
            }
        }
    }

    /// Tries to boot once. The inner error is why a boot that can be tried again failed.
    fn boot_once(
        options: &Options,
        images: &Images,
        arguments: &[OsString],
        folder: &Path,
        serial: &Serial,
        cache: &HostCache,
    ) -> Result<Result<Self, String>, BootError> {
        let slow = images.debug.is_some() || options.disk.is_some();
        let patience = if slow { SLOW } else { 1 };
        let (silence, boot) = (SILENCE * patience, BOOT * patience);
        let begin = Instant::now();
        let log_start = serial.len();
        let mut progress = (log_start, begin);
        let mut program = qemu_args::program(options, images)?;
        cache.preload(&mut program)?;
        let started = start(program, arguments.to_vec(), images, folder, cache.clone())?;
        let mut control = Control::new(started.control);
        let said = || {
            fs::read_to_string(qemu_log(folder))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let kernel = loop {
            let tick = Instant::now() + Duration::from_millis(250);
            match control
                .receive("ready", Some(tick), &mut |_| ())
                .context("the line to the guest")?
            {
                Received::End(kernel) => break kernel,
                Received::Closed => {
                    started.qemu.process.wait(Duration::from_secs(5));
                    let status = started
                        .qemu
                        .process
                        .ended()
                        .unwrap_or_else(|| "still there".into());
                    if is_refusal(&status, &said()) {
                        return Err(BootError::Refused(said()));
                    }
                    let seconds = begin.elapsed().as_secs();
                    let log = serial.since(log_start).unwrap_or_default();
                    return Ok(Err(match reports(&log).pop() {
                        Some(report) => report.title,
                        None => format!("QEMU ended after {seconds} s ({status}): {}", said()),
                    }));
                }
                Received::TooLate => {}
            }
            if serial.len() != progress.0 {
                progress = (serial.len(), Instant::now());
            }
            if progress.1.elapsed() > silence {
                return Ok(Err(format!("silent for {silence:.0?}")));
            }
            if begin.elapsed() > boot {
                return Ok(Err(format!("not ready after {boot:.0?}")));
            }
        };
        let monitor = Arc::new(Monitor::new(started.monitor)?);
        let qemu = Arc::new(started.qemu);
        let requests = Requests {
            qemu: Arc::clone(&qemu),
            monitor: Arc::clone(&monitor),
            architecture: images.architecture,
            folder: folder.to_owned(),
            slots: options.slots,
            added: AtomicUsize::new(0),
            slots_used: AtomicUsize::new(0),
            poison: Mutex::new(None),
        };
        let host = started.host;
        thread::spawn(move || requests.serve(&host));
        Ok(Ok(Self {
            qemu,
            monitor,
            control,
            console: started.console,
            sysrq: started.sysrq,
            serial: serial.clone(),
            kernel,
            boot_time: begin.elapsed(),
            installed: options.disk.is_some(),
        }))
    }

    /// Runs a command line by the guest's shell, with empty standard input, and passes its output to `sink` as it arrives.
    ///
    /// After [`Ended::TimedOut`] and [`Ended::Lost`] the guest takes no more commands.
    pub fn run(
        &mut self,
        command: &str,
        limit: Option<Duration>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Ended> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let Ok(nonce) = self.control.send(command) else {
            return Ok(Ended::Lost(self.loss()));
        };
        Ok(
            match self
                .control
                .receive(&nonce, deadline, sink)
                .context("the line to the guest")?
            {
                Received::End(status) => {
                    self.settle(&nonce)?;
                    Ended::Exited(
                        status
                            .trim()
                            .parse()
                            .with_context(|| format!("the guest's status \"{status}\""))?,
                    )
                }
                Received::TooLate => Ended::TimedOut,
                Received::Closed => Ended::Lost(self.loss()),
            },
        )
    }

    /// Waits until the log contains the command's end, and with it everything that the kernel logged before: a thread
    /// may print it.
    fn settle(&self, nonce: &str) -> Result<()> {
        let start = self.serial.len().saturating_sub(16 * 1024);
        let begin = Instant::now();
        while !self.serial.since(start)?.contains(nonce) {
            ensure!(
                begin.elapsed() < LOG_LIMIT,
                "the kernel's log lacks the command's end: the console does not show all messages"
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Runs a command line and returns how it ended, and its output.
    pub fn output(&mut self, command: &str, limit: Duration) -> Result<(Ended, String)> {
        let mut bytes = Vec::new();
        let ended = self.run(command, Some(limit), &mut |piece| {
            bytes.extend_from_slice(piece)
        })?;
        Ok((ended, String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn loss(&self) -> Loss {
        self.qemu.process.wait(Duration::from_secs(5));
        locked(&self.qemu.requested).unwrap_or(Loss::Unasked)
    }

    /// Cuts the power, without a warning to the guest. An error says that a volatile cache is not lost.
    pub fn cut_power(self) -> Result<()> {
        self.power_switch().off()
    }

    /// Lets the guest sync and power off, or an installed system shut down; kills it after a time-out. Returns whether it has
    /// powered off.
    pub fn power_off(mut self) -> bool {
        let (command, limit) = match self.installed {
            false => (
                "sync; umount -a -t ext4,xfs 2>/dev/null; sync; echo o >/proc/sysrq-trigger; sleep infinity",
                POWER_OFF,
            ),
            true => ("systemctl poweroff; sleep infinity", SYSTEM_POWER_OFF),
        };
        let limit = self.limit(limit);
        let _ = self.run(command, Some(limit), &mut |_| ());
        self.qemu.process.wait(Duration::from_secs(5))
    }

    /// Has the guest's kernel write its blocked tasks, and a backtrace of each processor, to its log. Works while a command
    /// runs.
    pub fn dump_blocked_tasks(&mut self) {
        for key in ['w', 'l'] {
            let _ = writeln!(self.sysrq, "{key}");
        }
        thread::sleep(Duration::from_secs(2));
    }

    /// Returns a switch that another thread can use.
    pub fn power_switch(&self) -> PowerSwitch {
        PowerSwitch(Arc::clone(&self.qemu))
    }

    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Gives this program's terminal a shell in the guest, until that ends. `log` is shown as the place of the kernel's log.
    pub fn shell(&mut self, log: &Path) -> Result<Ended> {
        eprintln!(
            "Linux {} booted in {:.1} s; its log: {}\nLeave the shell to power off; Ctrl-] cuts the power.",
            self.kernel,
            self.boot_time.as_secs_f64(),
            log.display()
        );
        let (rows, columns) = terminal::size().unwrap_or((24, 80));
        let command = format!(
            "exec setsid -c -w sh -c 'stty rows {rows} cols {columns}; cd /rust_pmem; exec bash -l' \
             </dev/hvc0 >/dev/hvc0 2>&1"
        );
        let switch = self.power_switch();
        let cut_power = move || {
            if let Err(error) = switch.off() {
                eprintln!("the power can't be cut: {error:#}");
            }
        };
        let _terminal = terminal::connect(self.console.try_clone()?, cut_power)?;
        self.run(&command, None, &mut |_| ())
    }

    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Returns the kernel's release.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Returns the time from the start of QEMU until the guest took commands.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Scales a time-out to the speed of this host, which is the one at which the guest booted, or less later on.
    pub fn limit(&self, time: Duration) -> Duration {
        const LATER: f64 = 3.0;
        let slow = self.boot_time.as_secs_f64() / USUAL_BOOT.as_secs_f64();
        time.mul_f64(LATER * slow.max(1.0))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // The thread that serves the guest's requests holds a reference until QEMU ends.
        self.qemu.process.kill();
    }
}

/// Cuts the power of a guest.
#[derive(Debug)]
pub struct PowerSwitch(Arc<Qemu>);

impl PowerSwitch {
    /// Cuts the power. An error says that a volatile cache is not lost.
    pub fn off(self) -> Result<()> {
        let marked = self.0.cache.cut();
        self.0.cut();
        marked
    }
}

const PAGE: usize = units::PAGE as usize;

/// Serves the requests of the guest's command `host`.
struct Requests {
    qemu: Arc<Qemu>,
    monitor: Arc<Monitor>,
    architecture: Architecture,
    folder: PathBuf,
    slots: u8,
    added: AtomicUsize,
    slots_used: AtomicUsize,
    poison: Mutex<Option<Poison>>,
}

impl Requests {
    fn serve(&self, line: &UnixStream) {
        let Ok(reader) = line.try_clone() else { return };
        for request in BufReader::new(reader).lines() {
            let Ok(request) = request else { return };
            let answer = match self.answer(request.trim()) {
                Ok(text) => format!("ok {}", text.trim_end().replace('\n', "\x1e")),
                Err(error) => format!("error {}", format!("{error:#}").replace('\n', "; ")),
            };
            let mut line = line;
            if writeln!(line, "{answer}").is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &str) -> Result<String> {
        let (verb, rest) = request.split_once(' ').unwrap_or((request, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (verb, words.as_slice()) {
            ("mce", [address]) => self.memory_error(address, "12", Severity::Recoverable),
            ("mce", [address, lsb]) => self.memory_error(address, lsb, Severity::Recoverable),
            ("corrected", [address]) => self.memory_error(address, "12", Severity::Corrected),
            ("poison", ["none"]) => self.poison(None),
            ("poison", [address, physical]) => self.poison(Some(Line {
                address: parse_address(address)?,
                physical: parse_address(physical)?,
            })),
            ("powercut", []) => {
                self.qemu.cache.cut()?;
                self.qemu.cut();
                Ok(String::new())
            }
            ("shutdown", []) => {
                *locked(&self.qemu.requested) = Some(Loss::Restart);
                Ok(String::new())
            }
            ("reboot", []) => {
                *locked(&self.qemu.requested) = Some(Loss::Restart);
                self.monitor.hmp_quiet("quit")?;
                Ok(String::new())
            }
            ("add", [kind]) => self.add(kind, ""),
            ("add", [kind, what]) => self.add(kind, what),
            ("remove", [name]) => self
                .monitor
                .hmp_quiet(&format!("device_del {name}"))
                .map(|()| String::new()),
            ("md5", [id, pages @ ..]) => self.md5(id, pages),
            ("cxl-media-error", [name, address]) => self
                .monitor
                .cxl_media_error(name, parse_address(address)?)
                .map(|()| String::new()),
            ("hmp", [_, ..]) => self.monitor.hmp(rest),
            _ => bail!(
                "\"{request}\" is no request: mce ADDRESS [LSB], corrected ADDRESS, poison VIRTUAL PHYSICAL, poison none, powercut, reboot, shutdown, add KIND WHAT, remove NAME, md5 NAME [PAGE…], cxl-media-error NAME ADDRESS, hmp COMMAND"
            ),
        }
    }

    /// Returns the MD5 sum of the memory behind a device, as this host sees it, with zeros in place of these pages.
    fn md5(&self, id: &str, pages: &[&str]) -> Result<String> {
        let path = self.folder.join(format!("{id}.img"));
        let mut bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        for page in pages {
            let start = page.parse::<usize>()?.saturating_mul(PAGE);
            let page = bytes.get_mut(start..start.saturating_add(PAGE));
            page.context("a page is not in the memory")?.fill(0);
        }
        let mut child = Command::new("md5sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("md5sum")?;
        // md5sum prints nothing before it has read everything.
        let mut input = child.stdin.take().context("no pipe to md5sum")?;
        input.write_all(&bytes)?;
        drop(input);
        let output = String::from_utf8(child.wait_with_output()?.stdout)?;
        let sum = output.split_whitespace().next();
        Ok(sum.context("md5sum printed nothing")?.to_owned())
    }

    /// Injects a memory error, as the architecture reports it.
    fn memory_error(&self, address: &str, lsb: &str, severity: Severity) -> Result<String> {
        let lsb = lsb
            .parse()
            .with_context(|| format!("\"{lsb}\" is not a number of bits"))?;
        let address = parse_address(address)?;
        match self.architecture {
            Architecture::X86_64 => self.monitor.machine_check(address, lsb, severity)?,
            Architecture::Arm64 => self.monitor.firmware_error(address, lsb, severity)?,
        }
        Ok(String::new())
    }

    /// Poisons a cache line, or makes all lines good.
    fn poison(&self, line: Option<Line>) -> Result<String> {
        ensure!(
            self.architecture == Architecture::X86_64,
            "poison: for x86-64 only"
        );
        let mut poison = locked(&self.poison);
        let poison = match &mut *poison {
            Some(poison) => poison,
            none => none.insert(Poison::new(Arc::clone(&self.monitor))?),
        };
        poison.change(line).map(|()| String::new())
    }

    fn add(&self, kind: &str, what: &str) -> Result<String> {
        let count = self.added.fetch_add(1, Ordering::Relaxed);
        let (id, device) = match kind {
            "nvdimm" => {
                let dimm: Nvdimm = what.parse()?;
                let id = dimm.id.clone().unwrap_or_else(|| format!("added{count}"));
                (id.clone(), dimm.device(&id, &self.folder)?)
            }
            "virtio-pmem" => {
                let device: VirtioPmem = what.parse()?;
                ensure!(
                    !device.volatile_cache,
                    "volatile-cache: only of devices that the guest boots with"
                );
                let id = device.id.clone().unwrap_or_else(|| format!("added{count}"));
                let slot = self.slots_used.fetch_add(1, Ordering::Relaxed);
                ensure!(
                    slot < self.slots.into(),
                    "no free slot: boot with --slots {}",
                    slot + 1
                );
                let mut made = device.device(&id, &self.folder)?;
                made.device.push_str(&format!(",bus=slot{slot}"));
                (id, made)
            }
            _ => bail!("\"{kind}\" is no kind of device that can be added: nvdimm, virtio-pmem"),
        };
        for object in &device.objects {
            self.monitor.hmp_quiet(&format!("object_add {object}"))?;
        }
        self.monitor
            .hmp_quiet(&format!("device_add {}", device.device))?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_assertion_of_qemu_is_no_refusal() {
        assert!(is_refusal("exit status: 1", "qemu: no such device"));
        assert!(!is_refusal(
            "signal: 6 (SIGABRT) (core dumped)",
            "qemu: Assertion failed"
        ));
        assert!(!is_refusal("exit status: 0", "qemu: warning"));
        assert!(!is_refusal("exit status: 1", ""));
    }
}
