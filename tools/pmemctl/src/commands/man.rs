// SPDX-License-Identifier: GPL-2.0

//! The hidden command `generate`: man pages and what shells complete, of the commands' own definitions.

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use std::fs;
use std::path::PathBuf;

#[derive(Args)]
pub struct Generate {
    /// Where to: the folders man and completions are made there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// All but what is hidden: to completions that is a command like any other.
fn shown(command: &Command) -> Command {
    let shown = Command::new("pmemctl")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .subcommands(
            command
                .get_subcommands()
                .filter(|one| !one.is_hide_set())
                .cloned(),
        );
    match (command.get_about(), command.get_long_about()) {
        (Some(about), Some(long)) => shown.about(about.clone()).long_about(long.clone()),
        (Some(about), None) => shown.about(about.clone()),
        _ => shown,
    }
}

/// Writes `man/*.1` and `completions/*`.
pub fn generate(arguments: &Generate, command: &Command) -> Result<bool> {
    let command = shown(command);
    let (man, completions) = (
        arguments.folder.join("man"),
        arguments.folder.join("completions"),
    );
    for folder in [&man, &completions] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "pmemctl", &completions)
            .with_context(|| completions.display().to_string())?;
    }
    // A page of "help" would say what each of them says.
    clap_mangen::generate_to(command.disable_help_subcommand(true), &man)
        .with_context(|| man.display().to_string())?;
    Ok(true)
}
