// SPDX-License-Identifier: GPL-2.0

//! Recovers the file systems of crash images: e2fsck replays the journal of ext4, and the kernel of a guest the log of XFS.
//!
//! For the guest, the image is a virtio disk, so that no driver for persistent memory is involved.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;
use vm::{Ended, LogFile, Options, Vm};

/// Size of the disk that the guest copies files to, as a tar archive: enough for the records of any workload.
const FILES: u64 = 32 << 20;
/// Time to recover an image.
const TIME: Duration = Duration::from_secs(120);
/// The status of the script if the file system can't be recovered, or is not clean.
const BROKEN: i32 = 3;

const SCRIPT: &str = "blockdev --flushbufs /dev/vdb; mkdir -p /mnt; \
    mount -t xfs /dev/vdb /mnt || { dmesg | tail -n 5; exit 3; }; \
    tar -C /mnt -cf /dev/vdc . && umount /mnt || exit 4; \
    xfs_repair -n /dev/vdb >/tmp/repair 2>&1 || { tail -n 6 /tmp/repair; exit 3; }";

/// The fault of an image, as a sentence; `Ok` if it has none.
pub type Verdict = Result<(), String>;

/// The guest with its disks.
pub struct Guest {
    // Before the folder: QEMU is gone when its files are removed.
    vm: Vm,
    image: PathBuf,
    files: PathBuf,
    _folder: TempDir,
    _log: LogFile,
}

impl Guest {
    /// Boots it, with a disk of `size` bytes for images.
    pub fn boot(size: u64, logs: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("no folder for images")?;
        let (image, files) = (folder.path().join("image"), folder.path().join("files"));
        let mut options = Options::from_words("--bare --cpus 1")?;
        for (path, size) in [(&image, size), (&files, FILES)] {
            File::create(path)
                .and_then(|file| file.set_len(size))
                .with_context(|| path.display().to_string())?;
            let drive = format!(
                "-drive if=virtio,format=raw,cache.no-flush=on,file={}",
                path.display()
            );
            options.qemu.push(drive);
        }
        let log = LogFile::at(logs.join("recovery.log"))?;
        let mut vm = Vm::boot(&options, folder.path(), log.path(), &mut |note| {
            println!("    {note}")
        })?;
        let (ended, output) = vm.output("modprobe xfs", TIME)?;
        ensure!(ended == Ended::Exited(0), "no XFS in the guest: {output}");
        Ok(Self {
            vm,
            image,
            files,
            _folder: folder,
            _log: log,
        })
    }

    /// Mounts an image, which recovers it, copies its files to `files`, and checks it.
    pub fn recover(&mut self, data: &[u8], files: &Path) -> Result<Verdict> {
        // Not fs::write: the guest has this very file.
        OpenOptions::new()
            .write(true)
            .open(&self.image)
            .and_then(|mut file| file.write_all(data))
            .with_context(|| self.image.display().to_string())?;
        let limit = self.vm.limit(TIME);
        match self.vm.output(SCRIPT, limit)? {
            (Ended::Exited(0), _) => {}
            (Ended::Exited(BROKEN), said) => {
                return Ok(Err(format!(
                    "XFS does not recover, or is not clean: {}",
                    said.trim().replace('\n', " / ")
                )));
            }
            (ended, said) => bail!("the guest that recovers images: {ended:?} {}", said.trim()),
        }
        let output = run(Command::new("tar")
            .arg("-xf")
            .arg(&self.files)
            .arg("-C")
            .arg(files))?;
        ensure!(output.status.success(), "tar: {}", text(&output));
        Ok(Ok(()))
    }
}

/// Has e2fsck recover the journal, as mount does, and check the file system; copies its root folder to `files`.
pub fn recover_ext4(image: &Path, files: &Path) -> Result<Verdict> {
    // Without -f, which would make it a check that repairs. It succeeds even if a part of the journal is left out.
    let journal = run(Command::new("e2fsck")
        .args(["-p", "-E", "journal_only"])
        .arg(image))?;
    let said = String::from_utf8_lossy(&journal.stdout) + String::from_utf8_lossy(&journal.stderr);
    let is_whole = !["hecksum", "orrupt", "while recovering"]
        .iter()
        .any(|word| said.contains(word));
    if !journal.status.success() || !is_whole {
        return Ok(Err(format!(
            "the journal can't be recovered: {}",
            text(&journal)
        )));
    }
    let check = run(Command::new("e2fsck").arg("-fn").arg(image))?;
    if !check.status.success() {
        return Ok(Err(format!(
            "the file system is not clean: {}",
            text(&check)
        )));
    }
    let request = format!("rdump / {}", files.display());
    let output = run(Command::new("debugfs").args(["-R", &request]).arg(image))?;
    ensure!(output.status.success(), "debugfs: {}", text(&output));
    Ok(Ok(()))
}

fn run(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .output()
        .with_context(|| format!("{program} can't be run"))
}

/// Returns the last lines of a program's output as one.
fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(6)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_system_that_is_not_clean_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (image, files) = (folder.path().join("image"), folder.path().join("files"));
        std::fs::create_dir(&files).unwrap();
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let made = run(Command::new("mkfs.ext4")
            .args(["-q", "-b", "4096"])
            .arg(&image))
        .unwrap();
        assert!(made.status.success(), "{}", text(&made));
        assert_eq!(recover_ext4(&image, &files).unwrap(), Ok(()));
        // A block that nothing uses is not free.
        let set = ["-w", "-R", "setb 3000 1"];
        let set = run(Command::new("debugfs").args(set).arg(&image)).unwrap();
        assert!(set.status.success(), "{}", text(&set));
        let problem = recover_ext4(&image, &files).unwrap().unwrap_err();
        assert!(problem.contains("not clean"), "{problem}");
    }
}
