// SPDX-License-Identifier: GPL-2.0

//! The host's page cache over the file of a virtio-pmem device: a power cut loses pages that no flush has made durable.
//!
//! While QEMU runs, each flush copies the device's file to FILE.durable (`tools/testing/host-cache`, preloaded). A cut leaves
//! a mark, FILE.cut, and the next boot goes back to that copy: killing QEMU alone loses nothing.

use anyhow::{Context, Result, ensure};
use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use units::PAGE;

/// The files behind devices with a volatile cache.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostCache(Vec<PathBuf>);

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl HostCache {
    /// Prepares the files for a boot: their contents are durable, except after a power cut.
    pub(crate) fn new(files: Vec<PathBuf>) -> Result<Self> {
        for path in &files {
            let (durable, cut) = (beside(path, ".durable"), beside(path, ".cut"));
            if cut.exists() {
                lose(path, &durable).with_context(|| path.display().to_string())?;
                fs::remove_file(&cut)?;
            }
            fs::copy(path, &durable).with_context(|| durable.display().to_string())?;
        }
        Ok(Self(files))
    }

    /// Forgets an earlier boot in which `path` had a volatile cache: it has none now.
    pub(crate) fn forget(path: &Path) -> Result<()> {
        for suffix in [".durable", ".cut"] {
            match fs::remove_file(beside(path, suffix)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => (),
            }
        }
        Ok(())
    }

    /// Has QEMU keep what its flushes make durable.
    pub(crate) fn preload(&self, qemu: &mut Command) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let library = env::current_exe()?.with_file_name("libpmem_host_cache.so");
        ensure!(
            library.is_file(),
            "{}: there is no such file; `make tools` builds it",
            library.display()
        );
        qemu.env("LD_PRELOAD", library);
        Ok(())
    }

    /// Makes the next boot lose all data that is not durable.
    pub(crate) fn cut(&self) -> Result<()> {
        for path in &self.0 {
            let cut = beside(path, ".cut");
            File::create(&cut).with_context(|| cut.display().to_string())?;
        }
        Ok(())
    }
}

/// Goes back to the durable contents in half of the pages: the host may have written any others.
fn lose(path: &Path, durable: &Path) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let kept = File::open(durable)?;
    let length = file.metadata()?.len();
    ensure!(
        kept.metadata()?.len() == length,
        "{} is longer or shorter; delete it and {}",
        durable.display(),
        beside(path, ".cut").display()
    );
    let (mut new, mut old) = ([0; PAGE as usize], [0; PAGE as usize]);
    for start in (0..length).step_by(PAGE as usize) {
        let page = usize::try_from(PAGE.min(length - start))?;
        file.read_exact_at(&mut new[..page], start)?;
        kept.read_exact_at(&mut old[..page], start)?;
        if new != old && fastrand::bool() {
            file.write_all_at(&old[..page], start)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: usize = 64;

    #[test]
    fn cut_loses_some_pages_that_are_not_durable_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.img");
        let pages = |value: u8| vec![value; PAGES * PAGE as usize];
        fs::write(&path, pages(1)).unwrap();
        let new = || HostCache::new(vec![path.clone()]);
        new().unwrap();
        fs::write(&path, pages(2)).unwrap();

        let cache = new().unwrap();
        assert_eq!(fs::read(&path).unwrap(), pages(2), "QEMU has ended");

        fs::write(&path, pages(3)).unwrap();
        cache.cut().unwrap();
        let cache = new().unwrap();
        let left = fs::read(&path).unwrap();
        let lost = left.chunks(PAGE as usize).filter(|page| page[0] == 2);
        assert!((1..PAGES).contains(&lost.count()));
        assert!(
            left.chunks(PAGE as usize)
                .all(|page| page.iter().all(|byte| *byte == page[0]))
        );

        cache.cut().unwrap();
        new().unwrap();
        assert_eq!(fs::read(&path).unwrap(), left, "all was durable");

        fs::write(&path, pages(4)).unwrap();
        cache.cut().unwrap();
        HostCache::forget(&path).unwrap();
        new().unwrap();
        assert_eq!(
            fs::read(&path).unwrap(),
            pages(4),
            "there was a boot without a cache meanwhile"
        );
    }
}
