// SPDX-License-Identifier: GPL-2.0

//! Poisoned cache lines: whoever loads from one gets a machine check at that instruction.
//!
//! QEMU emulates no poison. Its debugger stub stops the guest behind an instruction that has loaded from a watched
//! line, and the monitor injects the machine check, which the processor takes in front of the next one.

use crate::monitor::Monitor;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// Length of a cache line.
const LINE: u64 = 64;
/// How often the guest is stopped until the stub has taken a change. The stub ignores a stop in front of a packet.
const STOP_AGAIN: Duration = Duration::from_millis(200);
/// Time-out of a change.
const LIMIT: Duration = Duration::from_secs(30);

/// QEMU's debugger stub. It takes and sends packets `$TEXT#CHECKSUM`, which the other side acknowledges by `+` (GDB manual,
/// appendix E, "GDB Remote Serial Protocol").
struct Stub {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Stub {
    fn new(stream: UnixStream) -> Result<Self> {
        Ok(Self {
            reader: BufReader::new(stream.try_clone()?),
            writer: stream,
        })
    }

    fn send(&mut self, text: &str) -> Result<()> {
        let sum = text.bytes().fold(0_u8, u8::wrapping_add);
        // At once: a request to stop may come between two writes.
        let packet = format!("${text}#{sum:02x}");
        Ok(self.writer.write_all(packet.as_bytes())?)
    }

    /// Waits for a packet. `None` if QEMU ends.
    fn receive(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        self.reader.read_until(b'$', &mut bytes)?;
        bytes.clear();
        self.reader.read_until(b'#', &mut bytes)?;
        if bytes.pop() != Some(b'#') {
            return Ok(None);
        }
        self.reader.read_exact(&mut [0; 2])?;
        self.writer.write_all(b"+")?;
        Ok(Some(String::from_utf8(bytes)?))
    }

    fn ask(&mut self, text: &str) -> Result<String> {
        self.send(text)?;
        self.receive()?.context("QEMU has ended")
    }

    /// Sends a packet that is answered by `OK`, or by an error.
    fn command(&mut self, text: &str) -> Result<()> {
        match self.ask(text)?.as_str() {
            "OK" => Ok(()),
            answer => bail!("the debugger stub answers \"{answer}\" to \"{text}\""),
        }
    }

    /// Undoes the step of `rep movsb` in which this processor has stopped: it does not get the byte. Other instructions are left
    /// as they are.
    fn undo_step(&mut self, processor: usize) -> Result<()> {
        self.command(&format!("Hg{:x}", processor + 1))?;
        let mut registers = Registers::parse(&self.ask("g")?)?;
        let instruction = registers.0[Registers::INSTRUCTION];
        if self.ask(&format!("m{instruction:x},2"))? == "f3a4" {
            registers.undo_step();
            self.command(&format!("G{registers}"))?;
        }
        Ok(())
    }

    /// Watches loads from a line, or ends that.
    fn watch(&mut self, is: bool, line: &Line) -> Result<()> {
        let verb = if is { 'Z' } else { 'z' };
        self.command(&format!("{verb}3,{:x},{LINE:x}", line.address))
    }
}

/// A processor's registers for integers, as the stub sends them: 16 digits each, the low byte first.
struct Registers(Vec<u64>);

impl Registers {
    // Their order (GDB's features/i386/64bit-core.xml).
    const COUNT: usize = 2;
    const SOURCE: usize = 4;
    const TARGET: usize = 5;
    const INSTRUCTION: usize = 16;
    const SENT: usize = 17;

    fn parse(text: &str) -> Result<Self> {
        let register = |index| {
            let digits = text.get(16 * index..16 * (index + 1))?;
            u64::from_str_radix(digits, 16).ok().map(u64::swap_bytes)
        };
        let registers: Option<_> = (0..Self::SENT).map(register).collect();
        registers
            .map(Self)
            .with_context(|| format!("\"{text}\" are no registers"))
    }

    /// Undoes the last step of `rep movsb`.
    fn undo_step(&mut self) {
        for (register, by) in [(Self::COUNT, 1), (Self::SOURCE, -1), (Self::TARGET, -1)] {
            self.0[register] = self.0[register].wrapping_add_signed(by);
        }
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut registers = self.0.iter();
        registers.try_for_each(|register| write!(f, "{:016x}", register.swap_bytes()))
    }
}

/// A poisoned cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its virtual address, in the kernel or in a process.
    pub address: u64,
    pub physical: u64,
}

/// Returns the index of the processor that has loaded from a line, and the line, if the guest has stopped for that:
/// `T05thread:01;rwatch:ffff888020000000;`.
fn load(stop: &str, lines: &[Line]) -> Option<(usize, Line)> {
    let mut fields = stop
        .get(3..)?
        .split(';')
        .filter_map(|field| field.split_once(':'));
    let (_, thread) = fields.clone().find(|(key, _)| *key == "thread")?;
    let (_, address) = fields.find(|(key, _)| *key == "rwatch")?;
    // Threads count from 1, and may have a process in front.
    let thread = thread.rsplit('.').next()?;
    let processor = usize::from_str_radix(thread, 16).ok()?.checked_sub(1)?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let line = lines.iter().find(|line| line.address == address)?;
    Some((processor, *line))
}

/// A change of the poisoned lines, and where its result goes.
struct Change {
    /// The line to add. `None` makes all lines good.
    add: Option<Line>,
    result: Sender<Result<()>>,
}

/// The poisoned cache lines of a running guest.
pub(crate) struct Poison {
    changes: Sender<Change>,
    /// For requests to stop.
    writer: UnixStream,
}

impl Poison {
    pub(crate) fn new(monitor: Arc<Monitor>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("debugger");
        monitor.debugger_stub(&path)?;
        let stub = Stub::new(UnixStream::connect(&path).context("QEMU's debugger stub")?)?;
        let writer = stub.writer.try_clone()?;
        let (changes, receiver) = mpsc::channel();
        thread::spawn(move || {
            if let Err(error) = serve(stub, &monitor, &receiver) {
                eprintln!("no more poison, and the guest is stopped: {error:#}");
            }
        });
        Ok(Self { changes, writer })
    }

    /// Poisons a line, or makes all lines good.
    pub(crate) fn change(&mut self, add: Option<Line>) -> Result<()> {
        let (result, answer) = mpsc::channel();
        let end = Instant::now() + LIMIT;
        self.changes.send(Change { add, result }).ok();
        while Instant::now() < end {
            self.writer.write_all(b"\x03")?;
            match answer.recv_timeout(STOP_AGAIN) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        bail!("QEMU's debugger stub does not answer")
    }
}

/// Injects the machine checks, until QEMU ends.
fn serve(mut stub: Stub, monitor: &Monitor, changes: &Receiver<Change>) -> Result<()> {
    let mut lines = Vec::new();
    // The guest stops when a debugger connects.
    stub.send("?")?;
    while let Some(stop) = stub.receive()? {
        if let Some((processor, line)) = load(&stop, &lines) {
            // Processes may have other memory at that address.
            if monitor.translate(processor, line.address)? == Some(line.physical) {
                stub.undo_step(processor)?;
                monitor.machine_check_at_load(processor, line.physical)?;
            }
        }
        for change in changes.try_iter() {
            let _ = change.result.send(apply(&mut stub, &mut lines, change.add));
        }
        stub.send("c")?;
    }
    Ok(())
}

/// Applies a change while the guest is stopped.
fn apply(stub: &mut Stub, lines: &mut Vec<Line>, add: Option<Line>) -> Result<()> {
    match add {
        Some(line) => {
            stub.watch(true, &line)?;
            lines.push(line);
        }
        None => {
            for line in lines.drain(..) {
                stub.watch(false, &line)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POISONED: Line = Line {
        address: 0xff11_0000_2000_0000,
        physical: 0x2000_0000,
    };

    #[test]
    fn stop_behind_a_load_names_processor_and_line() {
        let stop = "T05thread:02;rwatch:ff11000020000000;";
        assert_eq!(load(stop, &[POISONED]), Some((1, POISONED)));
        let with_process = "T05thread:p01.01;rwatch:ff11000020000000;";
        assert_eq!(load(with_process, &[POISONED]), Some((0, POISONED)));
    }

    #[test]
    fn other_stops_are_no_loads() {
        for stop in [
            "",
            "T02thread:01;",
            "T05thread:01;rwatch:ff11000020000040;",
            "T05thread:00;rwatch:ff11000020000000;",
            "T05rwatch:ff11000020000000;",
        ] {
            assert_eq!(load(stop, &[POISONED]), None, "{stop}");
        }
    }

    #[test]
    fn step_of_a_copy_is_undone() {
        let registers: Vec<_> = (0..17).map(|n| format!("{n:02x}{:014}", 0)).collect();
        let text = registers.concat();
        let mut registers = Registers::parse(&format!("{text}00000000")).unwrap();
        assert_eq!(registers.to_string(), text);
        registers.undo_step();
        assert_eq!(registers.0[..6], [0, 1, 3, 3, 3, 4]);
        assert!(Registers::parse(&text[1..]).is_err());
    }

    #[test]
    fn packets_have_checksums_and_are_acknowledged() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut stub = Stub::new(ours).unwrap();
        theirs.write_all(b"+$OK#9a").unwrap();
        stub.watch(true, &POISONED).unwrap();
        let mut packet = [0; 27];
        theirs.read_exact(&mut packet).unwrap();
        assert_eq!(&packet, b"$Z3,ff11000020000000,40#b9+");
        theirs.write_all(b"+$E22#a9").unwrap();
        let error = stub.watch(false, &POISONED).unwrap_err().to_string();
        assert!(error.contains("E22"), "{error}");
        // A socket with bytes that nobody has read ends by an error.
        theirs.read_exact(&mut packet).unwrap();
        drop(theirs);
        assert_eq!(stub.receive().unwrap(), None);
    }
}
