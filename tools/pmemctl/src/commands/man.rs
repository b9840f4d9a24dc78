// SPDX-License-Identifier: GPL-2.0

//! The grouped help, and the hidden command `generate`: man pages, completions and JSON Schemas, made of the commands'
//! definitions.

use crate::commands::page::{EXIT_STATUS, Page};
use crate::commands::{
    doctor, errors, explain, layout, lease, list, metrics, monitor, plan, quarantine, repair,
    schema, scrub, status, swap_driver,
};
use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// The page of `pmemctl` itself.
const MAIN: Page = Page {
    exit_status: EXIT_STATUS,
    files: &[(
        "/var/lib/pmemctl",
        "The saved lists of errors, and the position of scrubs.",
    )],
    examples: &[
        ("pmemctl status", "Show whether all is well."),
        ("pmemctl errors", "List the files that have bad blocks."),
    ],
    see_also: &["ndctl(1)", "daxctl(1)", "cxl(1)"],
    ..Page::EMPTY
};

/// The commands by heading, as in `pmemctl --help`, with their pages.
const GROUPS: [(&str, &[(&str, &Page)]); 4] = [
    (
        "Inspect",
        &[
            ("status", &status::PAGE),
            ("list", &list::PAGE),
            ("errors", &errors::PAGE),
            ("monitor", &monitor::PAGE),
            ("explain", &explain::PAGE),
            ("metrics", &metrics::PAGE),
            ("doctor", &doctor::PAGE),
            ("layout", &layout::PAGE),
            ("plan", &plan::PAGE),
        ],
    ),
    (
        "Repair",
        &[
            ("repair", &repair::PAGE),
            ("quarantine", &quarantine::PAGE),
            ("scrub", &scrub::PAGE),
            ("lease", &lease::PAGE),
            ("errors forget", &errors::forget::PAGE),
            ("errors inject", &errors::inject::PAGE),
        ],
    ),
    (
        "Persist",
        &[
            ("errors save", &errors::save::PAGE),
            ("errors restore", &errors::restore::PAGE),
            ("errors import-cxl", &errors::import_cxl::PAGE),
        ],
    ),
    ("Move", &[("swap-driver", &swap_driver::PAGE)]),
];

/// Returns the command of some words: `errors save`.
fn find<'a>(command: &'a Command, words: &str) -> Option<&'a Command> {
    let mut words = words.split(' ');
    words.try_fold(command, |command, word| command.find_subcommand(word))
}

/// Groups the commands in the help.
pub fn complete(command: Command) -> Command {
    let mut groups = String::new();
    for (heading, commands) in GROUPS {
        let _ = writeln!(groups, "{heading}:");
        for (name, _) in commands {
            let about = find(&command, name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(groups, "  {name:<18} {about}");
        }
        groups.push('\n');
    }
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}\"pmemctl COMMAND --help\" and \
         pmemctl-COMMAND(1) describe each.\n\nOptions:\n{{options}}"
    );
    command.help_template(template)
}

#[derive(Args)]
pub struct Generate {
    /// The folders man, completions and schema are made there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Leaves out hidden commands, which completions would have.
fn visible(command: &Command) -> Command {
    let visible = Command::new("pmemctl")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommands(
            command
                .get_subcommands()
                .filter(|one| !one.is_hide_set())
                .cloned(),
        );
    match (command.get_about(), command.get_long_about()) {
        (Some(about), Some(long)) => visible.about(about.clone()).long_about(long.clone()),
        (Some(about), None) => visible.about(about.clone()),
        _ => visible,
    }
}

/// Writes `man/*.1`, `completions/*` and `schema/*.json`.
pub fn generate(arguments: &Generate, command: &Command) -> Result<bool> {
    let mut command = visible(command);
    let [man, completions, schemas] =
        ["man", "completions", "schema"].map(|name| arguments.folder.join(name));
    for folder in [&man, &completions, &schemas] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    for (name, text) in schema::texts()? {
        let file = schemas.join(schema::file_name(name));
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "pmemctl", &completions)
            .with_context(|| completions.display().to_string())?;
    }
    command.build();
    let mut pages = vec![("pmemctl".to_owned(), &MAIN, &command)];
    for (words, page) in GROUPS.iter().flat_map(|(_, commands)| commands.iter()) {
        let command = find(&command, words).with_context(|| format!("no command {words:?}"))?;
        pages.push((
            format!("pmemctl-{}", words.replace(' ', "-")),
            page,
            command,
        ));
    }
    for (name, page, command) in pages {
        let file = man.join(format!("{name}.1"));
        let text = render(command, &name, page)?;
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(true)
}

/// Returns the man page of a command, with the sections in the order of man-pages(7).
fn render(command: &Command, name: &str, page: &Page) -> Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(name)
        .source(concat!("pmemctl ", env!("CARGO_PKG_VERSION")))
        .manual("Persistent memory");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    // That of clap_mangen has neither "--" nor the values of options.
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman(usage.trim_start_matches("Usage: "))]);
    roff.to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut text)?;
    }
    let of_all = EXIT_STATUS
        .iter()
        .filter(|(status, _)| ["2", "141"].contains(status));
    let mut status = page.exit_status.to_vec();
    if name != "pmemctl" {
        status.extend(of_all);
    }
    for (heading, entries) in [
        ("EXIT STATUS", status.as_slice()),
        ("ENVIRONMENT", page.environment),
        ("FILES", page.files),
        ("EXAMPLES", page.examples),
    ] {
        if !entries.is_empty() {
            let mut roff = Roff::new();
            roff.control("SH", [heading]);
            for (word, meaning) in entries {
                roff.control("TP", []);
                roff.text([bold(*word)]);
                roff.text([roman(*meaning)]);
            }
            roff.to_writer(&mut text)?;
        }
    }
    let mut others: Vec<&str> = page.see_also.to_vec();
    if name != "pmemctl" {
        others.insert(0, "pmemctl(1)");
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.join(", "))]);
    roff.to_writer(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_exit_status_and_examples() {
        for (name, page) in GROUPS.iter().flat_map(|(_, commands)| commands.iter()) {
            assert!(!page.exit_status.is_empty(), "{name}");
            assert!(!page.examples.is_empty(), "{name}");
        }
    }

    #[test]
    fn exit_statuses_are_in_one_table() {
        for (name, page) in GROUPS.iter().flat_map(|(_, commands)| commands.iter()) {
            for (status, _) in page.exit_status {
                let of_command = *name == "lease" && ["N", "128+N"].contains(status);
                let known = EXIT_STATUS.iter().any(|(known, _)| known == status);
                assert!(known || of_command, "{name}: {status}");
            }
        }
    }
}
