// SPDX-License-Identifier: GPL-2.0

//! Reads and writes the files of the kernel: `/sys`, `/proc`, `/dev`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
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

    /// Whether this program runs on it.
    pub fn is_here(&self) -> bool {
        self.root == Path::new("/")
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

/// The longest line that [`lines`] returns whole. A name in a table is rarely longer than a path may be.
const LONGEST_LINE: usize = 64 << 10;

/// Reads the lines of a table in `/proc`, without their ends. Users decide how many there are and how long, so they are
/// read one by one, and longer ones than [`LONGEST_LINE`] are cut. Nothing follows an error.
pub fn lines<P: AsRef<Path>>(
    file: P,
) -> io::Result<impl Iterator<Item = io::Result<Vec<u8>>> + use<P>> {
    let mut table = Some(BufReader::new(File::open(file)?));
    Ok(std::iter::from_fn(move || {
        let line = next_line(table.as_mut()?).transpose();
        if !matches!(line, Some(Ok(_))) {
            table = None;
        }
        line
    }))
}

fn next_line(table: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut piece = table.take(LONGEST_LINE as u64);
    if piece.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() == LONGEST_LINE {
        table.skip_until(b'\n')?;
    }
    Ok(Some(line))
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

/// Reads a file of sysfs. A file that does not fit into a page is read in parts and may change between them: it is read
/// until two reads are equal.
pub fn whole(file: &Path) -> io::Result<String> {
    const PAGE: usize = units::PAGE as usize;
    let read = || {
        // Without room, the first read is of a few bytes.
        let mut text = String::with_capacity(PAGE);
        File::open(file)?.read_to_string(&mut text)?;
        io::Result::Ok(text)
    };
    let mut text = read()?;
    while text.len() >= PAGE {
        let again = read()?;
        if again == text {
            break;
        }
        text = again;
    }
    Ok(text)
}

/// Writes a text to a file of sysfs, in one call; the kernel's answer is the result.
pub fn store(file: &Path, text: &str) -> io::Result<()> {
    Store::open(file)?.store(text)
}

/// A file of sysfs that is open for writing. It stays that of its device: if that goes away, writes fail, whether or not
/// another device gets the name.
pub struct Store(File);

impl Store {
    pub fn open(file: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().write(true).open(file)?))
    }

    /// Writes a text in one call.
    pub fn store(&self, text: &str) -> io::Result<()> {
        self.0.write_all_at(text.as_bytes(), 0)
    }
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

/// Returns whether a terminal shows a character as it is. Controls act on the terminal, bidirectional controls and
/// line separators (UAX #9, UAX #14) make text look like another one, and the others are invisible.
fn is_plain(c: char) -> bool {
    let spoofs = matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    );
    !c.is_control() && !spoofs
}

/// Escapes untrusted text for a terminal. No information is lost: [`raw`] returns the text.
///
/// A backslash becomes two, a byte that is not UTF-8 `\xff`, a control or invisible character `\n` or `\u{202e}`.
pub fn printable(text: impl AsRef<OsStr>) -> String {
    let mut shown = String::new();
    for chunk in text.as_ref().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => shown.push_str(r"\\"),
                c if is_plain(c) => shown.push(c),
                c => shown.extend(c.escape_default()),
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// Returns the text that [`printable`] has escaped; `None` if it has not.
pub fn raw(shown: &str) -> Option<OsString> {
    let mut bytes = Vec::with_capacity(shown.len());
    let mut rest = shown.chars();
    while let Some(c) = rest.next() {
        let c = match c {
            '\\' => match rest.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'x' => {
                    let (digits, tail) = rest.as_str().split_at_checked(2)?;
                    bytes.push(u8::from_str_radix(digits, 16).ok()?);
                    rest = tail.chars();
                    continue;
                }
                'u' => {
                    let (digits, tail) = rest.as_str().strip_prefix('{')?.split_once('}')?;
                    rest = tail.chars();
                    char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
                }
                _ => return None,
            },
            c => c,
        };
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(OsString::from_vec(bytes))
}

/// Returns a path as an argument of a shell command that is to be copied.
///
/// Characters that a terminal does not show are written as `$'\033'`, which POSIX.1-2024, bash and zsh know. A leading
/// dash is no option.
pub fn shell_path(path: impl AsRef<OsStr>) -> String {
    let bytes = path.as_ref().as_bytes();
    let dot: &[u8] = if bytes.starts_with(b"-") { b"./" } else { b"" };
    let bytes = [dot, bytes].concat();
    let plain = std::str::from_utf8(&bytes)
        .ok()
        .filter(|text| text.chars().all(is_plain));
    if let Some(Ok(quoted)) = plain.map(shlex::try_quote) {
        return quoted.into_owned();
    }
    let escaped: String = bytes
        .iter()
        .map(|&byte| match byte {
            b' '..=b'~' if byte != b'\'' && byte != b'\\' => char::from(byte).to_string(),
            _ => format!("\\{byte:03o}"),
        })
        .collect();
    format!("$'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_lines_are_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &[u8]| -> Vec<Vec<u8>> {
            fs::write(file.path(), text).unwrap();
            lines(file.path()).unwrap().map(Result::unwrap).collect()
        };
        assert!(read(b"").is_empty());
        assert_eq!(read(b"a\n\nb\xff"), [&b"a"[..], b"", b"b\xff"]);
        for length in [LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1] {
            let long = vec![b'x'; length];
            let cut = &long[..length.min(LONGEST_LINE)];
            assert_eq!(read(&[&long, &b"\ny\n"[..]].concat()), [cut, b"y"]);
            assert_eq!(read(&long), [cut]);
        }
        assert!(lines(file.path().with_file_name("none")).is_err());
        // A directory can be opened, and not read.
        let failed: Vec<_> = lines("/").unwrap().collect();
        assert!(failed.len() == 1 && failed[0].is_err());
    }

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

    #[test]
    fn deceptive_characters_are_escaped() {
        for (name, shown) in [
            ("/a\u{202e}gpj.exe", r"/a\u{202e}gpj.exe"),
            ("/\u{2066}x\u{2069}", r"/\u{2066}x\u{2069}"),
            ("/a\u{2028}b\u{200b}", r"/a\u{2028}b\u{200b}"),
            ("/a\u{feff}", r"/a\u{feff}"),
        ] {
            assert_eq!(printable(name), shown);
        }
        // Joiners belong to words and emoji.
        assert_eq!(printable("/\u{200d}"), "/\u{200d}");
    }

    #[test]
    fn escaped_names_differ() {
        assert_eq!(printable(r"/a\n"), r"/a\\n");
        assert_eq!(printable(OsStr::from_bytes(b"/\xff")), r"/\xff");
        assert_eq!(printable("/\u{fffd}"), "/\u{fffd}");
        for wrong in [r"\", r"\x1", r"\q", r"\u{110000}", r"\u{1", r"\xäb"] {
            assert_eq!(raw(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shell_gets_the_name_back() {
        for (name, quoted) in [
            ("/srv/db/t.17", "/srv/db/t.17"),
            ("/srv/a b", "'/srv/a b'"),
            ("-rf", "./-rf"),
            ("/a\u{202e}b", r"$'/a\342\200\256b'"),
        ] {
            assert_eq!(shell_path(name), quoted);
        }
        assert_ne!(shell_path("/x'; touch /tmp/y; '"), "'/x'; touch /tmp/y; ''");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// /bin/bash: dash has no `$'...'`.
        #[test]
        fn bash_reads_a_quoted_name(name in prop::collection::vec(1_u8..=255, 1..20)) {
            let word = shell_path(OsStr::from_bytes(&name));
            let output = std::process::Command::new("bash")
                .args(["-c", &format!("printf %s {word}")])
                .output()
                .unwrap();
            let read = output.stdout.strip_prefix(b"./").unwrap_or(&output.stdout);
            prop_assert_eq!(read, name.strip_prefix(b"./").unwrap_or(&name));
        }
    }

    proptest! {
        #[test]
        fn printable_text_reads_back(name in prop::collection::vec(any::<u8>(), 0..40)) {
            let shown = printable(OsStr::from_bytes(&name));
            prop_assert!(shown.chars().all(is_plain));
            prop_assert_eq!(raw(&shown), Some(OsString::from_vec(name)));
        }

        #[test]
        fn printable_string_reads_back(name in any::<String>()) {
            let shown = printable(&name);
            prop_assert_eq!(raw(&shown), Some(OsString::from(name)));
        }

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
