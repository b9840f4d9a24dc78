// SPDX-License-Identifier: GPL-2.0

//! The picture of `pmemctl` in the README: its commands and what they print, in a terminal.

use crate::story::Story;
use crate::{Driver, load, log_file};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use vm::Options;

const PROMPT: Style = AnsiColor::Green.on_default().bold();

/// A file system whose files are where they always are, with two bad pages: one of a file, one of nobody.
const SCENE: &str = "set -e
ndctl create-namespace -f -e \"$(ndctl list -N --bus ACPI.NFIT | jq -r '.[0].dev')\" -m fsdax -M mem >/dev/null
mkfs.ext4 -q -b 4096 -m 0 -E stride=512,stripe_width=512,hash_seed=3f2b9a54-6c1e-4a7b-9d3a-0a4f5b6c7d8e,nodiscard \
    -U 0b1c2d3e-4f50-4172-8394-a5b6c7d8e9f0 -J size=16 /dev/pmem0
mkdir -p /srv && mount -o dax=always /dev/pmem0 /srv && mkdir /srv/db /srv/log
for file in 2024:96 2025:128 2026:64; do fallocate -l ${file#*:}M /srv/db/orders-${file%:*}; done
dd if=/dev/zero of=/srv/db/orders-2025 bs=1M count=1 seek=20 conv=notrunc status=none
fallocate -l 8M /srv/log/today && sync -f /srv
echo 204800 8 >/sys/block/pmem0/badblocks";

/// What is shown of it.
const SHOWN: [&str; 5] = [
    "pmemctl list",
    "pmemctl bad",
    "pmemctl repair --zero --dry-run /srv/db/orders-2025",
    "pmemctl doctor /srv/db/orders-2026",
    "pmemctl map --cells 512 pmem0",
];

/// Draws it into a file.
pub fn draw(story: &mut Story, driver: Driver, path: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = log_file()?;
    let options = Options::from_words("--bare --nvdimm size=512M --e820 64M@512M")?;
    story.boot(&options, folder.path(), log.path())?;
    load(story, driver)?;
    story.quietly(SCENE)?;
    let address = story.quietly("pmem-io phys --offset 20M /srv/db/orders-2025")?;
    let address = address.trim().trim_start_matches("0x");
    let address = u64::from_str_radix(address, 16).with_context(|| address.to_owned())?;
    story.machine_check(address, 12)?;
    story.quietly("until [ $(wc -l </sys/block/pmem0/badblocks) = 2 ]; do sleep 0.1; done")?;
    let mut text = String::new();
    for command in SHOWN {
        // As in a terminal, less the progress; some have a status that says what was found.
        let line = format!("script -qec '{command} 2>/dev/null' /dev/null");
        let (_, said) = story.guest_status(&line)?;
        write!(
            text,
            "{PROMPT}#{PROMPT:#} {command}\n{}\n",
            said.replace('\r', "")
        )?;
    }
    story.healthy()?;
    let picture = anstyle_svg::Term::new().render_svg(text.trim_end());
    fs::write(path, picture).with_context(|| path.display().to_string())?;
    story.seen("drawn", &path.display().to_string());
    Ok(())
}
