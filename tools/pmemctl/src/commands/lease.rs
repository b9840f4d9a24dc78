// SPDX-License-Identifier: GPL-2.0

//! The command `lease`.

use crate::commands::page::Page;
use clap::Args;
use pmemctl::lease::{self, Notice, Refused};
use pmemctl::sysfs::printable;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

pub const PAGE: Page = Page {
    exit_status: &[
        ("N", "The command ended with N."),
        ("128+N", "The command was killed by signal N."),
        ("125", "The lease could not be taken."),
        ("126", "The command could not be run."),
        ("127", "The command was not found."),
    ],
    environment: &[(
        "PMEMCTL_LEASE_FD",
        "With --exclusive: the number of the open descriptor, for the command.",
    )],
    files: &[(
        "/proc/sys/fs/lease-break-time",
        "How many seconds the kernel lets other processes wait.",
    )],
    examples: &[(
        "pmemctl lease /srv/db/t.17 -- md5sum /srv/db/t.17",
        "Read a file that cannot shrink meanwhile.",
    )],
    see_also: &["fcntl(2)", "fuser(1)"],
};

/// Run a command while others cannot truncate a file
///
/// Takes a lease (fcntl(2)) on the file while the command runs. A process that truncates the file by name or opens
/// it for writing waits until the command ends, at most for /proc/sys/fs/lease-break-time (45 s); after that the
/// command's mapping may lose its pages. With O_NONBLOCK, as truncate(1) uses it, such a process fails at once, but
/// the time limit runs as well.
///
/// Fails if the file is already open for writing. Does not prevent unlink or rename, which take no page from a
/// mapping, nor changes by clients of a network file system or by the file system itself. The command opens the
/// file for reading; to write, use --exclusive and map the inherited descriptor. Needs the owner of the file or
/// root. Signals are passed on to the command.
#[derive(Args)]
pub struct Lease {
    /// Prevent other opens as well; the command gets the file as descriptor number $PMEMCTL_LEASE_FD
    #[arg(long)]
    exclusive: bool,
    /// Do not print that the lease is held
    #[arg(long)]
    quiet: bool,
    /// A regular file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The command to run, and its arguments
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
}

/// As of env(1) and timeout(1): this program itself has failed.
const FAILED: u8 = 125;

/// The command's own status.
pub fn lease(arguments: &Lease) -> ExitCode {
    let name = printable(&arguments.file);
    let print = move |text: &str| {
        let _ = writeln!(io::stderr(), "pmemctl: {name}: {text}");
    };
    let (notify, quiet) = (print.clone(), arguments.quiet);
    let done = lease::run(
        &arguments.file,
        arguments.exclusive,
        &arguments.command,
        move |notice| match notice {
            Notice::Held { seconds, exclusive } if !quiet => notify(&format!(
                "lease taken: a process that truncates it or opens it{} waits for the command, no longer than {seconds} s",
                if exclusive { "" } else { " for writing" }
            )),
            Notice::Held { .. } => {}
            Notice::Wanted { seconds } => notify(&format!(
                "another process waits for it, for at most {seconds} s"
            )),
            Notice::Over => notify("the time limit has expired: the lease is not held any more"),
        },
    );
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            print(&format!("{error:#}"));
            let status = error
                .downcast_ref::<Refused>()
                .map_or(FAILED, |refused| refused.status);
            ExitCode::from(status)
        }
    }
}
