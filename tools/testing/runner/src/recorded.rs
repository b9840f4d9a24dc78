// SPDX-License-Identifier: GPL-2.0

//! Results of the C driver that were recorded, so that it need not run each time.
//!
//! A recording is for all that a guest executes except the driver: kernel, image, the test's script and the libraries of the
//! tests, their provider and tools, the machine, QEMU. It is made where it is missing, and `make parity` replaces it. Recordings
//! are in the cache of the set-up, outside of the checkout.

use crate::results::TestResult;
use crate::selftest::Selftest;
use anyhow::{Context, Result, bail, ensure};
use std::cmp::Reverse;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// Its folder in the cache of the set-up. The number is that of the format of the files.
const FOLDER: &str = "recorded-1";
/// Environment variables with the cache of the set-up, and with the folder of kernel and image.
const CACHE: &str = "RUST_PMEM_CACHE";
const IMAGES: &str = "RUST_PMEM_IMAGES";
/// What all guests execute, from the root of the checkout.
const COMMON: &[&str] = &[
    "tests/lib/*",
    "tests/provider/*.[ch]",
    "tests/provider/Kbuild",
    "tools/testing/vm/guest/*",
    "tools/testing/vm/src/*.rs",
    "tools/testing/pmem-io/**/*.rs",
    "tools/abstractions/**/*.rs",
    "tools/units/**/*.rs",
    "tools/Cargo.lock",
];
/// Tools that some tests execute: a word of the script, and the sources.
const TOOLS: &[(&str, &str)] = &[
    ("pmemctl", "tools/pmemctl/src/**/*.rs"),
    ("pmem-fuzz", "tools/testing/fuzz/src/**/*.rs"),
];
/// Recordings of one test that are kept, for other checkouts.
const KEPT: usize = 4;

/// The recordings of the default kernel.
pub struct Recordings {
    top: PathBuf,
    folder: PathBuf,
    /// Describes what all guests execute.
    common: String,
}

/// Returns the SHA-256 sum of a text.
fn sum(text: &str) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("sha256sum")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "sha256sum failed");
    Ok(String::from_utf8_lossy(&output.stdout)[..64].to_owned())
}

/// Returns the SHA-256 sums and names of the files that match these patterns.
pub fn sums(top: &Path, patterns: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for pattern in patterns {
        for path in glob::glob(&top.join(pattern).to_string_lossy())? {
            let path = path?;
            if path.is_file() {
                files.push(path.strip_prefix(top)?.to_owned());
            }
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "{patterns:?}: no such file");
    let output = Command::new("sha256sum")
        .current_dir(top)
        .arg("--")
        .args(&files)
        .output()
        .context("sha256sum")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Describes a large file by its place, length and time: its folder is named for the recipe that made it.
fn identity(path: &Path) -> Result<String> {
    let path = path
        .canonicalize()
        .with_context(|| path.display().to_string())?;
    let meta = path.metadata()?;
    let time = meta.modified()?.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(format!(
        "{} {} {}\n",
        path.display(),
        meta.len(),
        time.as_nanos()
    ))
}

impl Recordings {
    /// Finds those of this checkout, by what its guests execute.
    pub fn find(top: &Path) -> Result<Self> {
        let variable = |name: &str| {
            let value = env::var_os(name).map(PathBuf::from);
            value.with_context(|| format!("{name} is not set: start this by setup/enter"))
        };
        let images = variable(IMAGES)?;
        let mut common = sums(top, COMMON)?;
        for image in ["kernel", "guest.img"] {
            common.push_str(&identity(&images.join(image))?);
        }
        let qemu = Command::new("qemu-system-x86_64").arg("--version").output();
        common.push_str(&String::from_utf8_lossy(&qemu.context("QEMU")?.stdout));
        Ok(Self {
            top: top.to_owned(),
            folder: variable(CACHE)?.join(FOLDER),
            common,
        })
    }

    /// Returns the file of a test's recording.
    fn path(&self, test: &Selftest) -> Result<PathBuf> {
        let script = test.script.to_string_lossy();
        let text = fs::read_to_string(self.top.join(&test.script)).context(test.name.clone())?;
        let tools = TOOLS.iter().filter(|(word, _)| text.contains(word));
        let patterns: Vec<&str> = tools
            .map(|(_, sources)| *sources)
            .chain([&*script])
            .collect();
        let key = format!(
            "{}{}{:?}",
            self.common,
            sums(&self.top, &patterns)?,
            test.machine.options
        );
        Ok(self
            .folder
            .join(format!("{}-{}.json", test.name, &sum(&key)?[..16])))
    }

    /// Returns the recorded result of a test, if there is one.
    pub fn load(&self, test: &Selftest) -> Result<Option<TestResult>> {
        let path = self.path(test)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(path.display().to_string()),
        };
        let read = serde_json::from_str::<TestResult>(&text).ok();
        match read.filter(|result| result.name == test.name) {
            Some(result) => Ok(Some(result)),
            None => bail!(
                "{}: a damaged recording of nd_pmem: remove it, and it is made anew",
                path.display()
            ),
        }
    }

    /// Keeps the result of a test. A file is whole, or not there.
    pub fn save(&self, test: &Selftest, result: &TestResult) -> Result<()> {
        let path = self.path(test)?;
        fs::create_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        let written = || -> Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            serde_json::to_writer(&mut file, result)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        written().with_context(|| format!("{}: it can't be written", path.display()))?;
        self.remove_old(&test.name)
    }

    /// Removes the oldest recordings of a test.
    fn remove_old(&self, name: &str) -> Result<()> {
        let pattern = format!("{}/{name}-????????????????.json", self.folder.display());
        let time = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
        let mut files: Vec<PathBuf> = glob::glob(&pattern)?.filter_map(Result::ok).collect();
        files.sort_by_key(|path| Reverse(time(path)));
        for old in files.iter().skip(KEPT) {
            fs::remove_file(old).with_context(|| old.display().to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Outcome;
    use crate::selftest::tests::selftest;

    /// Returns recordings of a checkout with one test.
    fn recordings() -> (tempfile::TempDir, Recordings, Selftest) {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("tests")).unwrap();
        fs::write(top.path().join("tests/a.sh"), "one").unwrap();
        let recordings = Recordings {
            top: top.path().to_owned(),
            folder: top.path().join("cache"),
            common: "Linux".into(),
        };
        (top, recordings, selftest("a", "# compare"))
    }

    #[test]
    fn recording_is_found_until_something_changes() {
        let (top, mut recordings, test) = recordings();
        assert!(recordings.load(&test).unwrap().is_none());
        let mut result = TestResult::new("a", Outcome::Failed("so".into()));
        result.subtests.push(TestResult::new("b", Outcome::Passed));
        recordings.save(&test, &result).unwrap();
        assert_eq!(recordings.load(&test).unwrap(), Some(result));
        fs::write(top.path().join("tests/a.sh"), "other").unwrap();
        assert!(recordings.load(&test).unwrap().is_none());
        fs::write(top.path().join("tests/a.sh"), "one").unwrap();
        assert!(recordings.load(&test).unwrap().is_some());
        recordings.common.push('x');
        assert!(recordings.load(&test).unwrap().is_none());
    }

    #[test]
    fn damaged_recording_is_an_error_that_says_what_to_do() {
        let (_top, recordings, test) = recordings();
        let result = TestResult::new("a", Outcome::Passed);
        recordings.save(&test, &result).unwrap();
        let path = recordings.path(&test).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [&text[..text.len() / 2], "", &text.replace("\"a\"", "\"b\"")] {
            fs::write(&path, damaged).unwrap();
            let error = recordings.load(&test).unwrap_err().to_string();
            assert!(error.contains("remove it"), "{error}");
        }
    }

    #[test]
    fn few_recordings_of_a_test_are_kept() {
        let (_top, mut recordings, test) = recordings();
        for _ in 0..KEPT + 2 {
            recordings.common.push('x');
            let result = TestResult::new("a", Outcome::Passed);
            recordings.save(&test, &result).unwrap();
        }
        assert_eq!(fs::read_dir(&recordings.folder).unwrap().count(), KEPT);
        assert!(recordings.load(&test).unwrap().is_some());
    }
}
