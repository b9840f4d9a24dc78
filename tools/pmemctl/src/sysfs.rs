// SPDX-License-Identifier: GPL-2.0

//! Reads and writes the files of the kernel: `/sys`, `/proc`, `/dev`.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A running system: its `/sys`, `/proc` and `/dev`.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The one that this program runs on.
    pub fn here() -> Self {
        Self::at("/")
    }

    /// A system below another root, for tests.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file of it; `path` is relative.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Maps an absolute path into the root.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The names in a folder, in order; none where there is no such folder.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A file of one line, without its end; `None` where it can't be read.
pub fn line(file: impl AsRef<Path>) -> Option<String> {
    let text = fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&text);
    Some(text.trim_end_matches(['\n', '\0']).to_owned())
}

/// A number, decimal or after 0x; `None` where the file can't be read or holds none.
pub fn number(file: impl AsRef<Path>) -> Option<u64> {
    let text = line(file)?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Returns the last component of a link's target.
pub fn link_name(link: impl AsRef<Path>) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// Reads a file of sysfs. A file longer than a page is read in parts and may change between them: it is read
/// until two reads are equal.
pub fn whole(file: &Path) -> io::Result<String> {
    let mut text = fs::read_to_string(file)?;
    while text.len() > units::PAGE as usize {
        let again = fs::read_to_string(file)?;
        if again == text {
            break;
        }
        text = again;
    }
    Ok(text)
}

/// Writes a text to a file of sysfs, in one call; the kernel's answer is the result.
pub fn store(file: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(file)?
        .write_all(text.as_bytes())
}

/// Returns the error message without the error number.
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// A word of a table in `/proc`, in which blanks, tabs, newlines and backslashes are three octal
/// digits after a backslash.
pub fn unescape(word: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = |digit: u8| {
            (b'0'..=b'7')
                .contains(&digit)
                .then(|| u32::from(digit - b'0'))
        };
        let escaped = match (first, tail) {
            (b'\\', &[a, b, c, ..]) => octal(a)
                .zip(octal(b))
                .zip(octal(c))
                .and_then(|((a, b), c)| u8::try_from((a << 6) | (b << 3) | c).ok()),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// Escapes control characters of untrusted text for a terminal.
pub fn printable(text: impl AsRef<std::ffi::OsStr>) -> String {
    let text = String::from_utf8_lossy(text.as_ref().as_bytes()).into_owned();
    text.chars()
        .flat_map(|c| {
            let plain = !c.is_control();
            let escape = (!plain).then(|| c.escape_default());
            plain
                .then_some(c)
                .into_iter()
                .chain(escape.into_iter().flatten())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn octal_escapes_decode() {
        assert_eq!(unescape(br"/mnt/a\040b\011c\012\134"), "/mnt/a b\tc\n\\");
        assert_eq!(unescape(br"\04"), r"\04");
        assert_eq!(unescape(br"\777\\040"), "\\777\\ ");
        assert_eq!(
            unescape(b"/\xff\\377"),
            OsString::from_vec(b"/\xff\xff".to_vec())
        );
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("/a\n\x1b[31mb"), r"/a\n\u{1b}[31mb");
        assert_eq!(printable("/Bär"), "/Bär");
    }

    proptest! {
        #[test]
        fn escaped_bytes_decode_to_themselves(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut word = Vec::new();
            for &byte in &bytes {
                if b" \t\n\\".contains(&byte) {
                    word.extend(format!("\\{byte:03o}").bytes());
                } else {
                    word.push(byte);
                }
            }
            prop_assert_eq!(unescape(&word), OsString::from_vec(bytes));
        }
    }
}
