// SPDX-License-Identifier: GPL-2.0

//! Draws the pictures of `pmemctl` in the README: its commands and their output in a terminal.

use crate::log_file;
use crate::narrate::Story;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;
use vm::Options;

/// Picture of errors, and of their repair.
const ERRORS: &str = "pmemctl.svg";
/// Picture of the devices, and of their set-up.
const SETUP: &str = "pmemctl-setup.svg";

const PROMPT: Style = AnsiColor::Green.on_default().bold();
const PALE: Style = AnsiColor::Cyan.on_default();

const MACHINE: &str = "--cpus 1 --bare --nvdimm size=512M,labels --e820 192M@512M --e820 64M@768M";
/// Until the guest boots again, also CXL memory, which has a poison list of its own.
const CXL: &str = "--cxl size=256M --qemu '-global pxb-cxl.hdm_for_passthrough=true'";
/// Address of the poison in it.
const POISON: u64 = 0x0010_0040;

const LOAD: &str = "modprobe -a nfit nd_e820 nd_btt 2>/dev/null
insmod /rust_pmem/rust_pmem.ko inject=1 && modprobe nd_pmem && cat /sys/bus/nd/devices/ndbus*/wait_probe";

/// Sets the machine id, and mounts the disk where pmemctl saves errors.
const STATE: &str = "echo 0123456789abcdef0123456789abcdef >/etc/machine-id
mkdir -p /var/lib/pmemctl && mount /dev/vdb /var/lib/pmemctl";

/// Makes namespaces of all kinds, a misaligned partition, a disk with the C driver, and file systems with a reproducible
/// layout.
const SCENE: &str = "set -e
modprobe -a cxl_acpi cxl_pci cxl_mem cxl_pmem
until [ -e /sys/bus/cxl/devices/mem0 ] && [ -e /sys/bus/cxl/devices/decoder0.0 ]; do sleep 0.2; done
cxl create-region -d decoder0.0 -m mem0 -t pmem -s 256M -U 5f0c7b1e-3c56-4c0b-9c3c-0d6f2c4e9a11
wait_probe() { cat /sys/bus/nd/devices/ndbus*/wait_probe; }
region_of() { ndctl list -R -b $1 | jq -r '.[].dev'; }
wait_probe
for bus in ACPI.NFIT CXL; do
    ndctl disable-region -b $bus all
    ndctl init-labels -f -b $bus all
    ndctl enable-region -b $bus all
done
wait_probe
ndctl create-namespace -r $(region_of ACPI.NFIT) -m fsdax -M mem -s 128M
ndctl create-namespace -r $(region_of ACPI.NFIT) -m sector -s 32M
ndctl create-namespace -r $(region_of ACPI.NFIT) -m devdax -M mem -s 64M
ndctl create-namespace -r $(region_of CXL) -m raw -s 64M
wait_probe
pmemctl swap-driver --to nd_pmem pmem2
printf 'start=2056,size=96M\\n' | sfdisk -q /dev/pmem0
until [ -b /dev/pmem0p1 ]; do sleep 0.1; done
ext4() {
    mkfs.ext4 -q -b 4096 -m 0 -J size=4 -U 0b1c2d3e-4f50-4172-8394-a5b6c7d8e9f0 \\
        -E stride=512,stripe_width=512,hash_seed=3f2b9a54-6c1e-4a7b-9d3a-0a4f5b6c7d8e,nodiscard /dev/$1
    mkdir -p $2
    mount -o dax=always /dev/$1 $2
}
ext4 pmem0p1 /data
ext4 pmem1 /srv
ext4 pmem2 /mnt
mkdir -p /srv/db /srv/log /backup
for file in 2024:24 2025:48 2026:32; do fallocate -l ${file#*:}M /srv/db/orders-${file%:*}; done
truncate -s 48M /backup/orders-2025
for file in /srv/db/orders-2025 /backup/orders-2025; do pmem-io fill $file --offset 20M --length 1M; done
for file in /srv/log/today /mnt/file; do fallocate -l 8M $file; pmem-io fill $file; done
sync
cp /rust_pmem/build/tools/debug/pmem-io /run/ledger";

/// Starts a process that maps a file, with the same process id and at the same address each time.
const LEDGER: &str = "pid=
until [ \"$pid\" = 4711 ]; do
    [ -z \"$pid\" ] || kill $pid
    echo 4710 >/proc/sys/kernel/ns_last_pid
    setarch -R /run/ledger map /srv/db/orders-2025 --read-only \\
        load run='until [ -e /run/ledger.end ]; do sleep 0.1; done' >/run/ledger.log 2>&1 &
    pid=$!
done
until grep -q load: /run/ledger.log; do sleep 0.1; done";

/// Prints the address of a page on the disk of the C driver, which does not list machine checks there.
const UNLISTED: &str = "pmem-io map /mnt/file --read-only load run='sleep 5' >/dev/null 2>&1 &
sleep 1; pmem-io phys /mnt/file --offset 4M";

const WATCH: &str = "script -qec 'pmemctl monitor' /dev/null >/run/watch 2>&1 </dev/null &
until grep -q watching /run/watch; do sleep 0.1; done";

/// Draws the pictures into a folder.
pub fn draw(story: &mut Story, into: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = log_file()?;
    let system = folder.path().join("system.img");
    File::create(&system)?.set_len(32 << 20)?;
    let system = format!(
        "--qemu '-drive if=none,id=system,format=raw,file={} -device virtio-blk-pci,drive=system,bus=pcie.0'",
        system.display()
    );
    let options = Options::from_words(&format!("{MACHINE} {CXL} {system}"))?;
    story.boot(&options, folder.path(), log.path())?;
    story.quietly(LOAD)?;
    story.quietly(&format!("mkfs.ext4 -q /dev/vdb; {STATE}"))?;
    story.quietly(SCENE)?;
    let mut errors = Terminal::default();
    let mut setup = Terminal::default();

    story.quietly(LEDGER)?;
    story.quietly(WATCH)?;
    for (file, offset) in [("/srv/db/orders-2025", "20M"), ("/srv/log/today", "1M")] {
        let address = address(story, &format!("pmem-io phys {file} --offset {offset}"))?;
        story.machine_check(address, 12)?;
        story.quietly(&format!(
            "timeout 60 sh -c 'until grep -q {file} /run/watch; do sleep 0.1; done'"
        ))?;
    }
    story.quietly("kill $(pidof pmemctl); touch /run/ledger.end; sleep 1")?;
    // On a busy host, an error is first reported without its owner.
    let said = story.quietly("grep -v 'searching for the owner' /run/watch")?;
    errors.typed("pmemctl monitor", &said);
    errors.shows(story, "pmemctl errors")?;
    errors.shows(story, "pmemctl layout --cells 256 pmem1")?;
    errors.shows(
        story,
        "pmemctl repair --from /backup/orders-2025 /srv/db/orders-2025",
    )?;

    let address = address(story, UNLISTED)?;
    story.machine_check(address, 12)?;
    story.quietly("timeout 60 sh -c 'until umount /mnt 2>/dev/null; do sleep 0.2; done'")?;
    errors.shows(story, "pmemctl scrub --rate 16M pmem2")?;
    story.quietly(&format!(
        "echo {POISON:#x} >/sys/kernel/debug/cxl/mem0/inject_poison"
    ))?;
    errors.shows(story, "pmemctl errors import-cxl --all")?;
    errors.shows(story, "pmemctl errors save pmem1 pmem2")?;

    setup.shows(story, "pmemctl list")?;
    setup.shows(story, "pmemctl doctor /data")?;
    setup.shows(story, "pmemctl plan --use database region0")?;
    setup.shows(
        story,
        "pmemctl lease /srv/db/orders-2026 -- md5sum /srv/db/orders-2026",
    )?;
    setup.shows(story, "pmemctl swap-driver pmem2")?;
    story.cut_power()?;

    let options = Options::from_words(&format!("{MACHINE} {system}"))?;
    story.boot(&options, folder.path(), log.path())?;
    story.quietly(LOAD)?;
    story.quietly(STATE)?;
    errors.happens("The machine has booted again.");
    errors.shows(story, "pmemctl errors restore pmem1 pmem2")?;
    errors.shows(story, "pmemctl errors inject pmem0 1M 4K")?;
    errors.shows(story, "pmemctl errors pmem0")?;
    errors.shows(story, "pmemctl errors forget pmem0 1M 4K")?;
    errors.shows(story, "pmemctl errors pmem0")?;
    story.healthy()?;
    errors.draw(story, &into.join(ERRORS))?;
    setup.draw(story, &into.join(SETUP))
}

/// Runs a command that prints a hexadecimal number.
fn address(story: &mut Story, command: &str) -> Result<u64> {
    let said = story.quietly(command)?;
    let number = said.trim().trim_start_matches("0x");
    u64::from_str_radix(number, 16).with_context(|| said.clone())
}

/// The text of a terminal.
#[derive(Default)]
struct Terminal(String);

impl Terminal {
    /// Runs a command and shows its output.
    fn shows(&mut self, story: &mut Story, command: &str) -> Result<()> {
        // Standard output is a terminal; standard error is a file, so that no progress is drawn, unless the command runs
        // another one, whose output must be in order. The status is ignored: some commands report findings by it.
        let line = match command.contains(" -- ") {
            true => command.to_owned(),
            false => format!("{command} 2>/run/said; cat /run/said"),
        };
        let (_, said) = story.guest_status(&format!("script -qec '{line}' /dev/null"))?;
        self.typed(command, &said);
        Ok(())
    }

    fn typed(&mut self, command: &str, said: &str) {
        let said = said.replace('\r', "");
        let _ = writeln!(self.0, "{PROMPT}#{PROMPT:#} {command}\n{said}");
    }

    /// Shows a remark.
    fn happens(&mut self, what: &str) {
        let _ = writeln!(self.0, "{PALE}{what}{PALE:#}\n");
    }

    fn draw(&self, story: &mut Story, path: &Path) -> Result<()> {
        let picture = anstyle_svg::Term::new().render_svg(self.0.trim_end());
        fs::write(path, picture).with_context(|| path.display().to_string())?;
        story.seen("drawn", &path.display().to_string());
        Ok(())
    }
}
