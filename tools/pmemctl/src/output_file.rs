// SPDX-License-Identifier: GPL-2.0

//! Files for other programs, which a user names.

use crate::sysfs::printable;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Replaces a file that everybody may read: a reader sees the old text or the new one. Its name begins with `prefix` and
/// ends in `.new` while it is written.
///
/// No link is followed: a user who may write to the directory could put one there that leads to another file.
pub fn replace(path: &Path, prefix: &str, text: &str) -> Result<()> {
    let there = fs::symlink_metadata(path);
    // Not /dev/null or /dev/stdout either, which a rename would remove.
    ensure!(
        there.map_or(true, |there| there.is_file()),
        "{}: this is no regular file; name another file",
        printable(path)
    );
    let write = || {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        // Made with O_EXCL and mode 0600.
        let mut file = tempfile::Builder::new()
            .prefix(prefix)
            .suffix(".new")
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        let opened: &File = file.as_file();
        opened.set_permissions(Permissions::from_mode(0o644))?;
        file.persist(path)?;
        Ok::<_, io::Error>(())
    };
    write().with_context(|| {
        format!(
            "cannot write {}; its directory must exist and be writable",
            printable(path)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn link_and_device_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "old").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("none", at("broken")).unwrap();
        for path in [at("link"), at("broken"), "/dev/null".into()] {
            let error = replace(&path, ".x-", "new").unwrap_err().to_string();
            assert!(error.contains("no regular file"), "{error}");
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "old");
        assert!(!at("none").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn file_with_several_names_keeps_its_text_by_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "old").unwrap();
        fs::hard_link(at("file"), at("other")).unwrap();
        replace(&at("file"), ".x-", "new").unwrap();
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "new");
        assert_eq!(fs::read_to_string(at("other")).unwrap(), "old");
    }
}
