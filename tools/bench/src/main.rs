// SPDX-License-Identifier: GPL-2.0

//! `pmem-bench`: how many instructions an operation takes, with rust_pmem and beside it with others.

mod plots;
mod profile;
mod report;

use anstream::{eprint, eprintln};
use anyhow::{Context, Result, bail, ensure};
use bench::Cell;
use clap::Parser;
use profile::{Done, Profile, Symbols};
use report::Report;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use vm::{Ended, LogFile, Options, Vm, reports};

/// Measures disks and DAX files in one virtual machine whose clock counts instructions.
///
/// With no time in it, what comes out is the same each time, within some tenths of a percent. It counts
/// instructions of an emulated processor: what each of them costs on a real one is another matter.
#[derive(Parser)]
#[command(name = "pmem-bench", version, max_term_width = 120)]
struct Arguments {
    /// Where bench.json, bench.md and plots are written (otherwise build/bench)
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// The operations (otherwise all): read-4k, ext4-fault-2m, …
    ops: Vec<String>,
}

/// What is measured, and on which disk.
const DISKS: [(&str, &str); 6] = [
    ("nd_pmem", "/dev/pmem0"),
    ("rust_pmem", "/dev/pmem1"),
    ("brd", "/dev/ram0"),
    ("null_blk", "/dev/nullb0"),
    ("null_blk-memory", "/dev/nullbm"),
    ("virtio-blk", "/dev/vdb"),
];
/// The file systems that are put on persistent memory, and how they are made and mounted: files
/// aligned for mappings of 2 MiB.
const FILE_SYSTEMS: [(&str, &str); 2] = [
    (
        "ext4",
        "mkfs.ext4 -q -F -b 4096 -E stride=512,stripe_width=512,nodiscard",
    ),
    (
        "xfs",
        "modprobe xfs && mkfs.xfs -q -f -K -d agcount=2,su=2m,sw=1",
    ),
];
/// Operations of a virtio disk that say something: it waits for the host in all others.
const VIRTIO: [&str; 3] = ["read-4k", "write-4k", "fsync"];
/// What is looked into, and how many times each of its samples does it.
const PROFILED: [(&str, u32); 7] = [
    ("read-4k", 1),
    ("write-4k", 1),
    ("fsync", 1),
    ("uring-read-4k-x32", 32),
    ("read-1m-huge", 1),
    ("write-1m-huge", 1),
    ("zeroout-1m", 1),
];
/// The plugin that counts, in the checkout.
const COUNTER: &str = "build/tools/release/libpmem_counter.so";
/// The machine. Nothing in it is where it is by chance.
const MACHINE: &str = "--bare --icount --cpus 1 --memory 2G --e820 320M@512M --e820 320M@832M \
    --append 'nokaslr randomize_kstack_offset=off norandmaps'";
/// No command takes so long.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pmem-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let here = std::env::current_dir()?;
    let top = here
        .ancestors()
        .find(|folder| folder.join("Kbuild").is_file())
        .context("this is in no checkout of the project")?;
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => top.join("build/bench"),
    };
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let log = LogFile::in_folder(&output)?;

    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.img");
    File::create(&disk)?.set_len(64 << 20)?;
    let machine = format!(
        "{MACHINE} --qemu '-drive if=none,id=disk,format=raw,file={} -device virtio-blk-pci,drive=disk'",
        disk.display()
    );
    let options = Options::from_words(&machine)?;
    let start = Instant::now();
    let mut guest = Guest::boot(&options, folder.path(), log.path(), &arguments.ops)?;
    guest.disks()?;
    guest.files()?;
    guest.healthy()?;
    for op in &arguments.ops {
        let known = guest.cells.iter().any(|cell| cell.op == *op);
        ensure!(known, "there is no operation \"{op}\"");
    }
    let kernel = guest.vm.kernel().to_owned();
    let cells = std::mem::take(&mut guest.cells);
    drop(guest);

    let counts = folder.path().join("counts");
    let options = Options::from_words(&format!(
        "{machine} --qemu '-plugin file={},out={}'",
        top.join(COUNTER).display(),
        counts.display()
    ))?;
    let mut guest = Guest::boot(&options, folder.path(), log.path(), &arguments.ops)?;
    let profiles = guest.profiles(&counts)?;
    guest.healthy()?;
    drop(guest);

    let report = Report {
        kernel,
        cells,
        profiles,
    };
    fs::write(
        output.join("bench.json"),
        serde_json::to_string_pretty(&report)?,
    )?;
    let plots = plots::write(&report, &output)?;
    fs::write(output.join("bench.md"), report.markdown(&plots))?;
    report.print();
    eprintln!(
        "{} cells in {:.0} s; {}",
        report.cells.len(),
        start.elapsed().as_secs_f64(),
        output.display()
    );
    Ok(())
}

struct Guest<'a> {
    vm: Vm,
    /// Bytes of the kernel's log before this machine took commands.
    healthy_from: u64,
    cells: Vec<Cell>,
    ops: &'a [String],
}

impl<'a> Guest<'a> {
    fn boot(options: &Options, folder: &Path, log: &Path, ops: &'a [String]) -> Result<Self> {
        let vm = Vm::boot(options, folder, log, &mut |text| eprintln!("{text}"))?;
        let mut guest = Self {
            healthy_from: vm.serial().len(),
            vm,
            cells: Vec::new(),
            ops,
        };
        guest.prepare()?;
        Ok(guest)
    }

    /// Fails if the kernel reported anything.
    fn healthy(&self) -> Result<()> {
        if let Some(report) = reports(&self.vm.serial().since(self.healthy_from)?).first() {
            bail!("the kernel reported: {}", report.title);
        }
        Ok(())
    }

    /// Where the instructions of some operations go, as the counter sees it from outside.
    fn profiles(&mut self, counts: &Path) -> Result<Vec<Profile>> {
        let wanted =
            |(op, _): &(&str, u32)| self.ops.is_empty() || self.ops.iter().any(|name| name == op);
        let ops: Vec<(&str, u32)> = PROFILED.into_iter().filter(wanted).collect();
        let mut done = Vec::new();
        for (op, each) in ops {
            for (target, disk) in &DISKS[..2] {
                self.run(&format!("pmem-meter --target {target} {disk} {op}"))?;
                done.push(Done {
                    op: op.to_owned(),
                    target: (*target).to_owned(),
                    each,
                });
            }
        }
        if done.is_empty() {
            return Ok(Vec::new());
        }
        let symbols = self.run(
            "echo 1 >/proc/sys/kernel/kptr_restrict; awk 'tolower($2) == \"t\" { print $1, $3, $4 }' /proc/kallsyms",
        )?;
        let text = fs::read_to_string(counts).with_context(|| counts.display().to_string())?;
        profile::read(&text, &done, &Symbols::new(&symbols)?)
    }

    fn run(&mut self, command: &str) -> Result<String> {
        let line = format!("PATH=/run/pmem:$PATH; {command}");
        let (ended, output) = self.vm.output(&line, LIMIT)?;
        match ended {
            Ended::Exited(0) => Ok(output),
            Ended::Exited(status) => bail!("status {status} of: {command}\n{output}"),
            Ended::TimedOut => bail!("not done after {} s: {command}", LIMIT.as_secs()),
            Ended::Lost(_) => bail!("the machine was lost in: {command}"),
        }
    }

    /// One range for each driver; the other disks; nothing that runs by itself any more.
    fn prepare(&mut self) -> Result<()> {
        self.run("mkdir -p /run/pmem && cp /rust_pmem/build/tools/release/pmem-meter /run/pmem/")?;
        self.run(
            "set -e; nd=/sys/bus/nd; modprobe -a nd_e820 nd_btt; modprobe nd_pmem; cat $nd/devices/ndbus*/wait_probe
             echo namespace1.0 >$nd/drivers/nd_pmem/unbind
             insmod /rust_pmem/rust_pmem.ko; cat $nd/devices/ndbus*/wait_probe
             [ \"$(basename $(readlink /sys/block/pmem0/device/driver))\" = nd_pmem ]
             [ \"$(basename $(readlink /sys/block/pmem1/device/driver))\" = rust_pmem ]",
        )?;
        self.run(
            "set -e; modprobe brd rd_nr=1 rd_size=65536 max_part=0; modprobe null_blk nr_devices=1 queue_mode=0 gb=1
             mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
             mkdir /sys/kernel/config/nullb/nullbm; cd /sys/kernel/config/nullb/nullbm
             echo 1 >memory_backed; echo 0 >queue_mode; echo 64 >size; echo 1 >power
             for d in /sys/block/nullb*; do [ -e /dev/nullbm ] || [ ${d##*/} = nullb0 ] || ln -s /dev/${d##*/} /dev/nullbm; done
             sleep 3",
        )?;
        Ok(())
    }

    fn disks(&mut self) -> Result<()> {
        for (target, disk) in DISKS {
            let all: Vec<String> = match target {
                "virtio-blk" => VIRTIO.map(str::to_owned).into(),
                _ => Vec::new(),
            };
            self.measure(target, "", disk, &all)?;
        }
        Ok(())
    }

    fn files(&mut self) -> Result<()> {
        for (system, make) in FILE_SYSTEMS {
            let prefix = format!("{system}-");
            if !self.ops.is_empty() && !self.ops.iter().any(|op| op.starts_with(&prefix)) {
                continue;
            }
            for (target, disk) in &DISKS[..2] {
                self.run(&format!(
                    "mkdir -p /mnt/bench && {{ {make} {disk}; }} && mount -o dax=always,noatime {disk} /mnt/bench"
                ))?;
                self.measure(target, &prefix, "/mnt/bench", &[])?;
                self.run("umount /mnt/bench")?;
            }
        }
        Ok(())
    }

    /// Has the operations that are wanted measured, of `all` that there are.
    fn measure(&mut self, target: &str, prefix: &str, path: &str, all: &[String]) -> Result<()> {
        let ops: Vec<&str> = match (self.ops.is_empty(), all.is_empty()) {
            (true, _) => all.iter().map(String::as_str).collect(),
            (false, true) => self.ops.iter().map(String::as_str).collect(),
            (false, false) => {
                let wanted = self.ops.iter().filter(|op| all.contains(op));
                let wanted: Vec<_> = wanted.map(String::as_str).collect();
                if wanted.is_empty() {
                    return Ok(());
                }
                wanted
            }
        };
        let start = Instant::now();
        eprint!("{target} {prefix}");
        let said = self.run(&format!(
            "pmem-meter --target {target} --prefix '{prefix}' {path} {}",
            ops.join(" ")
        ))?;
        let before = self.cells.len();
        for line in said.lines() {
            let cell = serde_json::from_str(line).with_context(|| line.to_owned())?;
            self.cells.push(cell);
        }
        eprintln!(
            ": {} operations, {:.0} s",
            self.cells.len() - before,
            start.elapsed().as_secs_f64()
        );
        Ok(())
    }
}
