// SPDX-License-Identifier: GPL-2.0

//! Programs of others that are asked.

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Seek, Write};
use std::process::{Command, Stdio};

/// What a program said.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Whether it ended well.
    pub well: bool,
    /// Its output: names of files may be anything.
    pub output: Vec<u8>,
    /// The last line of its errors.
    pub error: String,
}

impl Said {
    /// Its output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// Why it did not end well, with its name.
    pub fn reason(&self, program: &str) -> String {
        let error = self.error.trim();
        match error.strip_prefix(program) {
            Some(_) => error.to_owned(),
            None if error.is_empty() => format!("{program} failed and does not say why"),
            None => format!("{program}: {error}"),
        }
    }
}

/// Runs `program`, which is of the Debian package `package`, with `commands` as its input.
pub fn run(program: &str, package: &str, arguments: &[&str], commands: &str) -> Result<Said> {
    // A file, so that neither side waits for the other; in memory, as a service may write nowhere.
    let mut input = File::from(memfd_create("commands", MemfdFlags::CLOEXEC)?);
    input.write_all(commands.as_bytes())?;
    input.rewind()?;
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::from(input))
        .output()
        .with_context(|| format!("{program} can't be run; it is of the package {package}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    Ok(Said {
        well: output.status.success(),
        error: error.lines().last().unwrap_or_default().to_owned(),
        output: output.stdout,
    })
}

/// Lines of a number and the name of a file, which may hold newlines: what begins with no number
/// goes on with the name before.
pub fn names(output: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut names: Vec<(u64, Vec<u8>)> = Vec::new();
    for line in output.split(|&byte| byte == b'\n') {
        let word = line.trim_ascii_start();
        let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = word.split_at(digits);
        let number = std::str::from_utf8(number)
            .ok()
            .and_then(|number| number.parse().ok());
        match (number, rest) {
            (Some(number), [b' ' | b'\t', name @ ..]) => names.push((number, name.to_vec())),
            _ => {
                if let Some((_, name)) = names.last_mut() {
                    name.push(b'\n');
                    name.extend_from_slice(line);
                }
            }
        }
    }
    for (_, name) in &mut names {
        while name.last() == Some(&b'\n') {
            name.pop();
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says() {
        let said = run(
            "sh",
            "dash",
            &[],
            "echo a; echo x >&2; echo sh: no >&2; exit 3",
        )
        .unwrap();
        assert_eq!((said.well, said.text().as_str()), (false, "a\n"));
        assert_eq!(said.reason("sh"), "sh: no");
        assert_eq!(said.reason("bash"), "bash: sh: no");
        assert!(Said::default().reason("sh").contains("does not say why"));
        assert!(
            format!("{:#}", run("/none/x", "nothing", &[], "").unwrap_err()).contains("nothing")
        );
    }

    #[test]
    fn names_of_files() {
        let said = b"        131 file\n        133 dir/.\n       6323 new\nline\xff\n";
        assert_eq!(
            names(said),
            [
                (131, b"file".to_vec()),
                (133, b"dir/.".to_vec()),
                (6323, b"new\nline\xff".to_vec())
            ]
        );
        assert_eq!(
            names(b"Inode\tPathname\n12\t//a b\n"),
            [(12, b"//a b".to_vec())]
        );
        assert!(names(b"").is_empty());
    }
}
