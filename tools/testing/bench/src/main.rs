// SPDX-License-Identifier: GPL-2.0

//! `pmem-bench`: counts the instructions of operations, with rust_pmem and with other drivers.

mod cpus;
mod figure;
mod native;
mod plots;
mod profile;
mod report;
mod thresholds;

use anstream::{eprint, eprintln};
use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use figure::Figure;
use meter::{Cell, ops};
use profile::{Done, Profile, Symbols};
use report::Report;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};
use thresholds::Thresholds;
use vm::{Ended, LogFile, Options, Vm, reports};

/// Measures disks and DAX files in one virtual machine whose clock counts instructions.
///
/// The results differ by some tenths of a percent from run to run, because they do not depend on time. They
/// do not say what each instruction costs on a real processor.
#[derive(Parser)]
#[command(
    name = "pmem-bench",
    version,
    max_term_width = 120,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Folder of bench.json, bench.md and the plots (otherwise build/bench)
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Measure only operations that have a threshold in tools/testing/bench/thresholds.toml; status 1 if a figure exceeds
    /// its threshold by more than 1 %
    #[arg(long)]
    check: bool,

    /// Operations (otherwise all): read-4k, ext4-fault-2m, …
    #[arg(conflicts_with = "check")]
    ops: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    Native(native::Arguments),
    Cpus(cpus::Arguments),
}

/// The drivers and their disks.
const DISKS: [(&str, &str); 5] = [
    ("nd_pmem", "/dev/pmem0"),
    ("rust_pmem", "/dev/pmem1"),
    ("brd", "/dev/ram0"),
    ("null_blk", "/dev/nullb0"),
    ("null_blk-memory", "/dev/nullbm"),
];
/// File systems, and the commands that make them with files aligned for mappings of 2 MiB.
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
/// A disk that waits for the host. Its operations can only be counted by the plugin, because the time that they
/// take depends on the host.
const VIRTIO: (&str, &str) = (report::VIRTIO, "/dev/vdb");
/// Its operations.
const VIRTIO_OPS: [&str; 3] = ["read-4k", "write-4k", "fsync"];
/// Operations that are profiled, and how often each sample does them.
const PROFILED: [(&str, u32); 7] = [
    ("read-4k", 1),
    ("write-4k", 1),
    ("fsync", 1),
    ("uring-read-4k-x32", 32),
    ("read-1m-huge", 1),
    ("write-1m-huge", 1),
    ("zeroout-1m", 1),
];
/// Operations on one of 64 disks of a driver.
const AMONG: [&str; 3] = ["read-4k", "write-4k", "fsync"];
const AMONG_PREFIX: &str = "among-64-";
/// Path of the plugin that counts, from the root of the checkout.
const COUNTER: &str = "build/tools/debug/libpmem_counter.so";
/// The machine. Addresses are not random, and locked instructions keep their prefix although there is one
/// processor.
const MACHINE: &str = "--bare --icount --cpus 1 --memory 2G --e820 320M@512M --e820 320M@832M \
    --append 'nokaslr randomize_kstack_offset=off norandmaps noreplace-smp'";
/// Start of its other 63 ranges of persistent memory, in MiB.
const SMALL: u32 = 1152;
/// Size of each, in MiB.
const SMALL_SIZE: u32 = 2;
/// Time-out of a command.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        None => run(&arguments),
        Some(Command::Native(arguments)) => native::run(arguments).map(|()| true),
        Some(Command::Cpus(arguments)) => cpus::run(arguments).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pmem-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all figures that are checked hold.
fn run(arguments: &Arguments) -> Result<bool> {
    let top = top()?;
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => top.join("build/bench"),
    };
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let log = LogFile::in_folder(&output)?;
    let thresholds = Thresholds::load()?;
    let selection = Selection {
        ops: match arguments.check {
            true => thresholds.ops(),
            false => arguments.ops.clone(),
        },
        compared: arguments.check,
    };
    let known = names();
    for op in &selection.ops {
        ensure!(
            known.contains(op),
            "there is no operation \"{op}\"; there are {}",
            known.join(" ")
        );
    }

    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.img");
    File::create(&disk)?.set_len(64 << 20)?;
    let small = (0..63).map(|index| SMALL + index * SMALL_SIZE);
    let small: Vec<String> = small
        .map(|start| format!("--e820 {SMALL_SIZE}M@{start}M"))
        .collect();
    let machine = format!(
        "{MACHINE} {} --qemu '-drive if=none,id=disk,format=raw,file={} -device virtio-blk-pci,drive=disk'",
        small.join(" "),
        disk.display()
    );
    let options = Options::from_words(&machine)?;
    let start = Instant::now();
    let mut guest = Guest::boot(&options, folder.path(), log.path(), &selection)?;
    guest.disks()?;
    guest.files()?;
    guest.among()?;
    guest.healthy()?;
    for op in &selection.ops {
        let measured = guest.cells.iter().any(|cell| cell.op == *op);
        ensure!(measured, "{op} was not measured");
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
    let mut guest = Guest::boot(&options, folder.path(), log.path(), &selection)?;
    let profiles = guest.profiles(&counts)?;
    guest.healthy()?;
    drop(guest);

    let mut report = Report {
        kernel,
        cells,
        profiles,
        figures: Vec::new(),
        text: text_of(&top.join("rust_pmem.ko"))?,
    };
    report.figures = thresholds.figures(&report);
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
    let bad: Vec<&Figure> = report.figures.iter().filter(|it| !it.holds()).collect();
    if arguments.check {
        for figure in &bad {
            let number = |value| figure.number(value);
            let value = figure.value.map_or("not measured".to_owned(), number);
            eprintln!(
                "error: {}: {value}, threshold {}",
                figure.name(),
                number(figure.threshold)
            );
        }
    }
    Ok(!arguments.check || bad.is_empty())
}

/// Returns the names of all operations.
fn names() -> Vec<String> {
    let disk = ops::DISK.iter().map(|op| op.name.to_owned());
    let files = FILE_SYSTEMS.iter().flat_map(|(system, _)| {
        ops::FILES
            .iter()
            .map(move |op| format!("{system}-{}", op.name))
    });
    let among = AMONG.iter().map(|op| format!("{AMONG_PREFIX}{op}"));
    disk.chain(files).chain(among).collect()
}

/// Finds the checkout above the current folder.
fn top() -> Result<PathBuf> {
    let here = std::env::current_dir()?;
    let top = here
        .ancestors()
        .find(|folder| folder.join("Kbuild").is_file());
    Ok(top
        .context("the current folder is in no checkout of the project")?
        .to_owned())
}

/// Returns the bytes of a module's text, by size(1).
fn text_of(module: &Path) -> Result<u64> {
    let output = process::Command::new("size")
        .arg(module)
        .output()
        .context("size")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let number = said
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next());
    let number = number.with_context(|| format!("{}: no size", module.display()))?;
    Ok(number.parse()?)
}

/// The measurements to make.
struct Selection {
    /// Operations; all if this is empty.
    ops: Vec<String>,
    /// Whether to measure only the two drivers that are compared.
    compared: bool,
}

struct Guest<'a> {
    vm: Vm,
    /// Length of the kernel's log when the guest was ready.
    healthy_from: u64,
    cells: Vec<Cell>,
    selection: &'a Selection,
}

impl<'a> Guest<'a> {
    fn boot(
        options: &Options,
        folder: &Path,
        log: &Path,
        selection: &'a Selection,
    ) -> Result<Self> {
        let vm = Vm::boot(options, folder, log, &mut |text| eprintln!("{text}"))?;
        let mut guest = Self {
            healthy_from: vm.serial().len(),
            vm,
            cells: Vec::new(),
            selection,
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

    /// Profiles operations by the plugin.
    fn profiles(&mut self, counts: &Path) -> Result<Vec<Profile>> {
        let compared = PROFILED
            .iter()
            .flat_map(|&(op, each)| DISKS[..2].iter().map(move |disk| (op, each, *disk)));
        let virtio = VIRTIO_OPS.map(|op| (op, 1, VIRTIO));
        let wanted = |op: &str, target| {
            (self.selection.ops.is_empty() || self.selection.ops.iter().any(|name| name == op))
                && !(self.selection.compared && target == VIRTIO.0)
        };
        let ops: Vec<_> = compared
            .chain(virtio)
            .filter(|&(op, _, (target, _))| wanted(op, target))
            .collect();
        let mut done = Vec::new();
        for (op, each, (target, disk)) in ops {
            self.run(&format!("pmem-meter --target {target} {disk} {op}"))?;
            done.push(Done {
                op: op.to_owned(),
                target: target.to_owned(),
                each,
            });
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
            Ended::Lost(_) => bail!("the guest was lost in: {command}"),
        }
    }

    /// Gives each driver one range and makes the other disks, then waits until nothing runs in the background.
    fn prepare(&mut self) -> Result<()> {
        self.run("mkdir -p /run/pmem && cp /rust_pmem/build/tools/debug/pmem-meter /run/pmem/")?;
        self.run(
            "set -e; nd=/sys/bus/nd; modprobe -a nd_e820 nd_btt; modprobe nd_pmem; cat $nd/devices/ndbus*/wait_probe
             for n in $(seq 64); do echo namespace$n.0 >$nd/drivers/nd_pmem/unbind; done
             insmod /rust_pmem/rust_pmem.ko; cat $nd/devices/ndbus*/wait_probe
             for n in $(seq 2 64); do echo namespace$n.0 >$nd/drivers/rust_pmem/unbind; done
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
        let targets = if self.selection.compared {
            2
        } else {
            DISKS.len()
        };
        for (target, disk) in &DISKS[..targets] {
            self.measure(target, "", disk, &self.selection.ops)?;
        }
        Ok(())
    }

    fn files(&mut self) -> Result<()> {
        for (system, make) in FILE_SYSTEMS {
            let prefix = format!("{system}-");
            if !self.selection.ops.is_empty()
                && !self.selection.ops.iter().any(|op| op.starts_with(&prefix))
            {
                continue;
            }
            for (target, disk) in &DISKS[..2] {
                self.run(&format!(
                    "mkdir -p /mnt/bench && {{ {make} {disk}; }} && mount -o dax=always,noatime {disk} /mnt/bench"
                ))?;
                self.measure(target, &prefix, "/mnt/bench", &self.selection.ops)?;
                self.run("umount /mnt/bench")?;
            }
        }
        Ok(())
    }

    /// Measures operations on one of 64 disks of rust_pmem.
    fn among(&mut self) -> Result<()> {
        let mut ops = AMONG.map(|op| format!("{AMONG_PREFIX}{op}")).to_vec();
        if !self.selection.ops.is_empty() {
            ops.retain(|op| self.selection.ops.contains(op));
        }
        if ops.is_empty() {
            return Ok(());
        }
        self.run(
            "set -e; cd /sys/bus/nd; for n in $(seq 2 64); do echo namespace$n.0 >drivers/rust_pmem/bind; done
             cat devices/ndbus*/wait_probe; [ $(ls -d /sys/block/pmem* | wc -l) = 65 ]",
        )?;
        let (target, disk) = DISKS[1];
        self.measure(target, AMONG_PREFIX, disk, &ops)
    }

    /// Measures these operations, or all if there are none.
    fn measure(&mut self, target: &str, prefix: &str, path: &str, ops: &[String]) -> Result<()> {
        let start = Instant::now();
        eprint!("{target} {prefix}");
        let output = self.run(&format!(
            "pmem-meter --target {target} --prefix '{prefix}' {path} {}",
            ops.join(" ")
        ))?;
        let before = self.cells.len();
        for line in output.lines() {
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
