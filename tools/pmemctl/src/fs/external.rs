// SPDX-License-Identifier: GPL-2.0

//! Runs programs of other packages.

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::process::{Command, Stdio};

#[derive(Debug, Clone, Default)]
pub struct CommandOutput {
    pub success: bool,
    /// Bytes, because names of files need not be UTF-8.
    pub output: Vec<u8>,
    /// The last line of standard error.
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

/// Runs `program` of the Debian package `package` with `commands` as its input.
pub fn run(
    program: &str,
    package: &str,
    arguments: &[&str],
    commands: &str,
) -> Result<CommandOutput> {
    let mut output = Vec::new();
    let rest = read(program, package, arguments, commands, |from| {
        from.read_to_end(&mut output).map(|_| ())
    })?;
    Ok(CommandOutput { output, ..rest })
}

/// Does the same, but `see` reads the output as it arrives.
pub fn read(
    program: &str,
    package: &str,
    arguments: &[&str],
    commands: &str,
    see: impl FnOnce(&mut dyn BufRead) -> io::Result<()>,
) -> Result<CommandOutput> {
    // Files, so that neither side blocks; in memory, because a service may have no writable directory.
    let in_memory = || memfd_create(program, MemfdFlags::CLOEXEC).map(File::from);
    let (mut input, mut errors) = (in_memory()?, in_memory()?);
    input.write_all(commands.as_bytes())?;
    input.rewind()?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(errors.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot run {program} (package {package})"))?;
    let seen = match child.stdout.take() {
        Some(output) => see(&mut BufReader::new(output)),
        None => Ok(()),
    };
    let success = child.wait()?.success();
    seen.with_context(|| format!("output of {program}"))?;
    let mut output = Vec::new();
    errors.rewind()?;
    errors.read_to_end(&mut output)?;
    let output = String::from_utf8_lossy(&output);
    Ok(CommandOutput {
        success,
        error: output.lines().last().unwrap_or_default().to_owned(),
        output: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_output_and_status_are_kept() {
        let output = run(
            "sh",
            "dash",
            &[],
            "echo a; echo x >&2; echo sh: no >&2; exit 3",
        )
        .unwrap();
        assert_eq!((output.success, output.text().as_str()), (false, "a\n"));
        assert_eq!(output.reason("sh"), "sh: no");
        assert_eq!(output.reason("bash"), "bash: sh: no");
        assert!(
            CommandOutput::default()
                .reason("sh")
                .contains("does not say why")
        );
        assert!(
            format!("{:#}", run("/none/x", "nothing", &[], "").unwrap_err()).contains("nothing")
        );
    }
}
