// SPDX-License-Identifier: GPL-2.0

//! The command `lease`.

use clap::Args;
use pmemctl::lease::{self, Notice, Refused};
use pmemctl::sysfs::printable;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct Lease {
    /// Keep everybody from opening the file, too; the command gets it as the open descriptor whose
    /// number is in PMEMCTL_HOLD_FD, to map it from that
    #[arg(long)]
    exclusive: bool,
    /// Do not print what is held, and for how long
    #[arg(long)]
    quiet: bool,
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What is run
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
}

/// As of env(1) and timeout(1): this program itself has failed.
const FAILED: u8 = 125;

/// The command's own status.
pub fn lease(arguments: &Lease) -> ExitCode {
    let name = printable(&arguments.file);
    let say = move |text: &str| {
        let _ = writeln!(io::stderr(), "pmemctl: {name}: {text}");
    };
    let (tell, quiet) = (say.clone(), arguments.quiet);
    let done = lease::run(
        &arguments.file,
        arguments.exclusive,
        &arguments.command,
        move |notice| match notice {
            Notice::Held { seconds, exclusive } if !quiet => tell(&format!(
                "held: who truncates it or opens it{} waits for the command, but no longer than {seconds} s",
                if exclusive { "" } else { " for writing" }
            )),
            Notice::Held { .. } => {}
            Notice::Wanted { seconds } => tell(&format!(
                "another process waits for it, and gets it in {seconds} s at the latest"
            )),
            Notice::Over => tell("the time is over: it is not held any more"),
        },
    );
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say(&format!("{error:#}"));
            let status = error
                .downcast_ref::<Refused>()
                .map_or(FAILED, |refused| refused.status);
            ExitCode::from(status)
        }
    }
}
