// SPDX-License-Identifier: GPL-2.0

//! The checkout by virtiofs, for kernels without 9p. A process beside QEMU, virtiofsd, reads the host's files for the guest.

use crate::process::Process;
use abstractions::process::{die_with_parent, inherit};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where Debian has it.
const VIRTIOFSD: &str = "/usr/libexec/virtiofsd";

/// QEMU's device, without its channel to virtiofsd. guest/init names the tag.
pub(crate) const DEVICE: &str = "vhost-user-fs-pci,bus=pcie.0,tag=checkout";

/// Starts virtiofsd and returns it with QEMU's end of the channel. It ends with the channel, or when the value is dropped.
pub(crate) fn serve(share: &Path, log: File) -> Result<(Process, UnixStream)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path)?;
    let channel = UnixStream::connect(&path)?;
    let mut shared = OsString::from("--shared-dir=");
    shared.push(share);
    let mut command = Command::new(VIRTIOFSD);
    command
        .arg(format!("--fd={}", listener.as_raw_fd()))
        .arg(shared)
        // The build root is a sandbox already, in which nobody may make another or raise a limit.
        .args(["--readonly", "--sandbox=none", "--rlimit-nofile=0"])
        .args(["--log-level=error"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = die_with_parent(inherit(&mut command, vec![listener.into()]))
        .spawn()
        .with_context(|| format!("{VIRTIOFSD} can't be run"))?;
    Ok((Process::new(child), channel))
}
