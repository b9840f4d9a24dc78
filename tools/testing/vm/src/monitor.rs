// SPDX-License-Identifier: GPL-2.0

//! QEMU's monitor.

use crate::cper::{self, Severity};
use anyhow::{Context, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

// Fields of a general media event record (CXL 3.1, table 8-45).
const UNCORRECTABLE: u8 = 1;
const ECC_ERROR: u8 = 0;
const MEDIA_SCRUB: u8 = 5;

/// The connection to the monitor: one JSON object in each line, both ways (QEMU's docs/interop/qmp-spec.rst).
///
/// A crate with all of QEMU's commands would take longer to compile than the rest of the tools.
struct Channel {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    requests: u64,
}

impl Channel {
    /// Executes a command and returns its result. Events are skipped.
    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.requests += 1;
        let id = self.requests;
        let request = json!({ "execute": command, "arguments": arguments, "id": id });
        self.writer.write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut line = String::new();
            let length = self.reader.read_line(&mut line)?;
            ensure!(length > 0, "QEMU has closed its monitor");
            let mut answer: Value = serde_json::from_str(&line)?;
            if answer["id"] != id {
                continue;
            }
            if let Some(error) = answer.get("error") {
                bail!("{}", error["desc"].as_str().unwrap_or("it failed"));
            }
            return Ok(answer["return"].take());
        }
    }
}

/// The monitor of a running guest.
pub struct Monitor {
    channel: Mutex<Channel>,
}

impl Monitor {
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let this = Self {
            channel: Mutex::new(Channel {
                reader: BufReader::new(stream.try_clone()?),
                writer: stream,
                requests: 0,
            }),
        };
        this.execute("qmp_capabilities", json!({}))
            .context("QEMU's monitor does not answer")?;
        Ok(this)
    }

    fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.execute(command, arguments)
    }

    /// Runs a command of the human monitor and returns its output.
    pub fn hmp(&self, command: &str) -> Result<String> {
        self.hmp_with(command, json!({ "command-line": command }))
    }

    fn hmp_with(&self, command: &str, arguments: Value) -> Result<String> {
        let answer = self
            .execute("human-monitor-command", arguments)
            .with_context(|| format!("monitor command \"{command}\""))?;
        Ok(answer.as_str().unwrap_or_default().replace('\r', ""))
    }

    /// Runs a command of the human monitor that prints only when it fails.
    pub fn hmp_quiet(&self, command: &str) -> Result<()> {
        let answer = self.hmp(command)?;
        if !answer.trim().is_empty() {
            bail!("{}", answer.trim().trim_start_matches("Error: "));
        }
        Ok(())
    }

    /// Poisons a cache line of the CXL device `name` at a device physical address, a multiple of 64, and has the device
    /// report it: an uncorrectable error of its medium, in its failure log (CXL 3.1, 8.2.9.2.1.1).
    pub fn cxl_media_error(&self, name: &str, address: u64) -> Result<()> {
        let path = format!("/machine/peripheral/{name}");
        let poison = json!({ "path": path, "start": address, "length": 64 });
        self.execute("cxl-inject-poison", poison)?;
        let event = json!({
            "path": path, "log": "failure", "flags": 0, "dpa": address, "descriptor": UNCORRECTABLE,
            "type": ECC_ERROR, "transaction-type": MEDIA_SCRUB,
        });
        self.execute("cxl-inject-general-media-event", event)?;
        Ok(())
    }

    /// Has firmware report an error in 2 to the power of `lsb` bytes of memory at a physical address (ACPI, generic hardware
    /// error source). QEMU 10.2 and later can do so, for arm64.
    pub fn firmware_error(&self, address: u64, lsb: u8, severity: Severity) -> Result<()> {
        ensure!(lsb < 64, "2^{lsb} bytes are too many");
        let record = BASE64_STANDARD.encode(cper::memory_error(address, lsb, severity));
        self.execute("inject-ghes-v2-error", json!({ "cper": record }))?;
        Ok(())
    }

    /// Injects a machine check into the first processor: an error in 2 to the power of `lsb` bytes of memory at a physical
    /// address. A corrected error is only left in the registers, where the kernel looks for it now
    /// and then.
    ///
    /// Bank 9, status 0x9c00…00c0: valid, enabled, address and misc valid; 0xbd00…: also uncorrected and signalled,
    /// found by memory scrubbing (Intel SDM volume 3B, "Machine-Check Architecture"); misc: the
    /// address is a physical one of that granularity.
    pub fn machine_check(&self, address: u64, lsb: u8, severity: Severity) -> Result<()> {
        ensure!(lsb < 64, "2^{lsb} bytes are too many");
        // MCG_STATUS: the exception is in progress and can be returned from (RIPV, MCIP), and only this processor gets it
        // (LMCE_S). Without LMCE_S, the kernel has all processors wait for each other, and emulated ones may not come.
        let (status, global) = match severity {
            Severity::Corrected => ("0x9c000000000000c0", "0x5"),
            Severity::Recoverable => ("0xbd000000000000c0", "0xd"),
        };
        self.inject(0, status, global, address, lsb)
    }

    /// Injects a machine check into a stopped processor: its last instruction has loaded from a poisoned cache line.
    ///
    /// Status 0xbd80…0134: as that of an uncorrected error, but the processor can't go on (AR), and it was a load of data. The
    /// address of the instruction is valid (MCG_STATUS: EIPV), and misc has the granularity of a line.
    pub(crate) fn machine_check_at_load(&self, processor: usize, address: u64) -> Result<()> {
        self.inject(processor, "0xbd80000000000134", "0xf", address, 6)
    }

    /// Injects a machine check with this status of bank 9, and this global one.
    fn inject(
        &self,
        processor: usize,
        status: &str,
        global: &str,
        address: u64,
        lsb: u8,
    ) -> Result<()> {
        let misc = 0x80 | lsb;
        self.hmp_quiet(&format!(
            "mce {processor} 9 {status} {global} {address:#x} {misc:#x}"
        ))
    }

    /// Returns the physical address of a virtual one, if this processor has it mapped.
    pub(crate) fn translate(&self, processor: usize, address: u64) -> Result<Option<u64>> {
        let command = format!("gva2gpa {address:#x}");
        let arguments = json!({ "command-line": command, "cpu-index": processor });
        let answer = self.hmp_with(&command, arguments)?;
        let physical = answer.trim().strip_prefix("gpa: 0x");
        Ok(physical.and_then(|digits| u64::from_str_radix(digits, 16).ok()))
    }

    /// Starts QEMU's debugger stub on a UNIX socket. The guest stops when a debugger connects.
    pub(crate) fn debugger_stub(&self, socket: &Path) -> Result<()> {
        let shown = socket.display();
        let answer = self.hmp(&format!("gdbserver unix:{shown},server=on,wait=off"))?;
        ensure!(answer.starts_with("Waiting"), "{}", answer.trim());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn answer_follows_greeting_and_events() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qemu = thread::spawn(move || {
            let mut requests = BufReader::new(theirs.try_clone().unwrap()).lines();
            let mut answer = |texts: &[&str]| {
                let request = requests.next().unwrap().unwrap();
                for text in texts {
                    writeln!(&theirs, "{text}").unwrap();
                }
                request
            };
            answer(&[r#"{"QMP": {}}"#, r#"{"return": {}, "id": 1}"#]);
            let request = answer(&[
                r#"{"event": "STOP", "data": {}}"#,
                r#"{"return": "late", "id": 1}"#,
                r#"{"return": "two\r\nlines", "id": 2}"#,
            ]);
            answer(&[r#"{"error": {"class": "GenericError", "desc": "no such device"}, "id": 3}"#]);
            request
        });
        let monitor = Monitor::new(ours).unwrap();
        assert_eq!(monitor.hmp("info \"x\"").unwrap(), "two\nlines");
        let error = monitor.cxl_media_error("mem0", 64).unwrap_err();
        assert_eq!(error.to_string(), "no such device");
        assert_eq!(
            serde_json::from_str::<Value>(&qemu.join().unwrap()).unwrap(),
            json!({ "execute": "human-monitor-command", "arguments": { "command-line": "info \"x\"" }, "id": 2 })
        );
        assert!(monitor.hmp("info").is_err());
    }
}
