// SPDX-License-Identifier: GPL-2.0

//! QEMU's monitor.

use anyhow::{Context, Result, bail};
use qapi::qmp::{
    CxlEventLog, cxl_inject_general_media_event, cxl_inject_poison, human_monitor_command,
};
use qapi::{Qmp, Stream};
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

// Fields of a general media event record (CXL 3.1, table 8-45).
const UNCORRECTABLE: u8 = 1;
const ECC_ERROR: u8 = 0;
const MEDIA_SCRUB: u8 = 5;

/// The monitor of a running guest.
pub struct Monitor {
    qmp: Mutex<Qmp<Stream<BufReader<UnixStream>, UnixStream>>>,
}

impl Monitor {
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut qmp = Qmp::new(Stream::new(reader, stream));
        qmp.handshake().context("QEMU's monitor does not answer")?;
        Ok(Self {
            qmp: Mutex::new(qmp),
        })
    }

    /// Runs a command of the human monitor and returns its output.
    pub fn hmp(&self, command: &str) -> Result<String> {
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = qmp
            .execute(&human_monitor_command {
                cpu_index: None,
                command_line: command.to_owned(),
            })
            .with_context(|| format!("monitor command \"{command}\""))?;
        Ok(answer.replace('\r', ""))
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
        let mut qmp = self.qmp.lock().unwrap_or_else(PoisonError::into_inner);
        qmp.execute(&cxl_inject_poison {
            path: path.clone(),
            start: address,
            length: 64,
        })?;
        qmp.execute(&cxl_inject_general_media_event {
            path,
            log: CxlEventLog::failure,
            flags: 0,
            dpa: address,
            descriptor: UNCORRECTABLE,
            type_: ECC_ERROR,
            transaction_type: MEDIA_SCRUB,
            channel: None,
            rank: None,
            device: None,
            component_id: None,
        })?;
        Ok(())
    }

    /// Injects a machine check into the first processor: an uncorrected, recoverable error in 2 to the power of `lsb` bytes
    /// of memory at a physical address.
    ///
    /// Bank 9, status 0xbd00…00c0: valid, uncorrected, enabled, signalled, address and misc valid,
    /// found by memory scrubbing (Intel SDM volume 3B, "Machine-Check Architecture"); misc: the
    /// address is a physical one of that granularity.
    pub fn machine_check(&self, address: u64, lsb: u8) -> Result<()> {
        if lsb > 63 {
            bail!("2^{lsb} bytes are too many");
        }
        let misc = 0x80 | lsb;
        self.hmp_quiet(&format!(
            "mce -b 0 9 0xbd000000000000c0 0x5 {address:#x} {misc:#x}"
        ))
    }
}
