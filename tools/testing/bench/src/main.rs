// SPDX-License-Identifier: GPL-2.0

//! `pmem-bench`: how many instructions an operation takes, with rust_pmem and beside it with others.

mod cpus;
mod lines;
mod native;
mod plots;
mod profile;
mod report;

use anstream::{eprint, eprintln};
use anyhow::{Context, Result, bail, ensure};
use bench::{Cell, ops};
use clap::{Parser, Subcommand};
use lines::{Figure, Lines};
use profile::{Done, Profile, Symbols};
use report::Report;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};
use vm::{Ended, LogFile, Options, Vm, reports};

/// Measures disks and DAX files in one virtual machine whose clock counts instructions.
///
/// With no time in it, what comes out is the same each time, within some tenths of a percent. It counts
/// instructions of an emulated processor: what each of them costs on a real one is another matter.
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

    /// Where bench.json, bench.md and plots are written (otherwise build/bench)
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Measure only what has a line in tools/testing/bench/lines.toml; status 1 where a figure is above its
    /// line by more than 1 %
    #[arg(long)]
    check: bool,

    /// The operations (otherwise all): read-4k, ext4-fault-2m, …
    #[arg(conflicts_with = "check")]
    ops: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    Native(native::Arguments),
    Cpus(cpus::Arguments),
}

/// What is measured, and on which disk.
const DISKS: [(&str, &str); 5] = [
    ("nd_pmem", "/dev/pmem0"),
    ("rust_pmem", "/dev/pmem1"),
    ("brd", "/dev/ram0"),
    ("null_blk", "/dev/nullb0"),
    ("null_blk-memory", "/dev/nullbm"),
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
/// A disk that waits for the host, for as long as that takes: its operations are only seen from outside,
/// where instructions are counted and not time.
const VIRTIO: (&str, &str) = (report::VIRTIO, "/dev/vdb");
/// What is counted of it.
const VIRTIO_OPS: [&str; 3] = ["read-4k", "write-4k", "fsync"];
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
/// Operations on a disk that is one of 64 which a driver has.
const AMONG: [&str; 3] = ["read-4k", "write-4k", "fsync"];
/// What their names begin with.
const AMONG_PREFIX: &str = "among-64-";
/// The plugin that counts, in the checkout.
const COUNTER: &str = "build/tools/release/libpmem_counter.so";
/// The machine. Nothing in it is where it is by chance, and locked instructions stay so, though there
/// is one processor.
const MACHINE: &str = "--bare --icount --cpus 1 --memory 2G --e820 320M@512M --e820 320M@832M \
    --append 'nokaslr randomize_kstack_offset=off norandmaps noreplace-smp'";
/// Where its other 63 ranges of persistent memory begin; each is so many MiB.
const SMALL: u32 = 1152;
const SMALL_SIZE: u32 = 2;
/// No command takes so long.
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

/// Whether all that is checked is as it should be.
fn run(arguments: &Arguments) -> Result<bool> {
    let top = top()?;
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => top.join("build/bench"),
    };
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let log = LogFile::in_folder(&output)?;
    let lines = Lines::load()?;
    let wanted = Wanted {
        ops: match arguments.check {
            true => lines.ops(),
            false => arguments.ops.clone(),
        },
        compared: arguments.check,
    };
    let known = names();
    for op in &wanted.ops {
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
    let mut guest = Guest::boot(&options, folder.path(), log.path(), &wanted)?;
    guest.disks()?;
    guest.files()?;
    guest.among()?;
    guest.healthy()?;
    for op in &wanted.ops {
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
    let mut guest = Guest::boot(&options, folder.path(), log.path(), &wanted)?;
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
    report.figures = lines.figures(&report);
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
                "error: {}: {value}, line {}",
                figure.name(),
                number(figure.line)
            );
        }
    }
    Ok(!arguments.check || bad.is_empty())
}

/// All operations.
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

/// The checkout above the current folder.
fn top() -> Result<PathBuf> {
    let here = std::env::current_dir()?;
    let top = here
        .ancestors()
        .find(|folder| folder.join("Kbuild").is_file());
    Ok(top
        .context("this is in no checkout of the project")?
        .to_owned())
}

/// Bytes of a module's text, as size(1) counts.
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

/// What is to be measured.
struct Wanted {
    /// The operations; all if there are none.
    ops: Vec<String>,
    /// Only the two drivers that are compared.
    compared: bool,
}

struct Guest<'a> {
    vm: Vm,
    /// Bytes of the kernel's log before this machine took commands.
    healthy_from: u64,
    cells: Vec<Cell>,
    wanted: &'a Wanted,
}

impl<'a> Guest<'a> {
    fn boot(options: &Options, folder: &Path, log: &Path, wanted: &'a Wanted) -> Result<Self> {
        let vm = Vm::boot(options, folder, log, &mut |text| eprintln!("{text}"))?;
        let mut guest = Self {
            healthy_from: vm.serial().len(),
            vm,
            cells: Vec::new(),
            wanted,
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
        let compared = PROFILED
            .iter()
            .flat_map(|&(op, each)| DISKS[..2].iter().map(move |disk| (op, each, *disk)));
        let virtio = VIRTIO_OPS.map(|op| (op, 1, VIRTIO));
        let wanted = |op: &str, target| {
            (self.wanted.ops.is_empty() || self.wanted.ops.iter().any(|name| name == op))
                && !(self.wanted.compared && target == VIRTIO.0)
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
            Ended::Lost(_) => bail!("the machine was lost in: {command}"),
        }
    }

    /// One range for each driver; the other disks; nothing that runs by itself any more.
    fn prepare(&mut self) -> Result<()> {
        self.run("mkdir -p /run/pmem && cp /rust_pmem/build/tools/release/pmem-meter /run/pmem/")?;
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
        let targets = if self.wanted.compared { 2 } else { DISKS.len() };
        for (target, disk) in &DISKS[..targets] {
            self.measure(target, "", disk, &self.wanted.ops)?;
        }
        Ok(())
    }

    fn files(&mut self) -> Result<()> {
        for (system, make) in FILE_SYSTEMS {
            let prefix = format!("{system}-");
            if !self.wanted.ops.is_empty()
                && !self.wanted.ops.iter().any(|op| op.starts_with(&prefix))
            {
                continue;
            }
            for (target, disk) in &DISKS[..2] {
                self.run(&format!(
                    "mkdir -p /mnt/bench && {{ {make} {disk}; }} && mount -o dax=always,noatime {disk} /mnt/bench"
                ))?;
                self.measure(target, &prefix, "/mnt/bench", &self.wanted.ops)?;
                self.run("umount /mnt/bench")?;
            }
        }
        Ok(())
    }

    /// The operations on a disk of ours that is one of 64.
    fn among(&mut self) -> Result<()> {
        let mut ops = AMONG.map(|op| format!("{AMONG_PREFIX}{op}")).to_vec();
        if !self.wanted.ops.is_empty() {
            ops.retain(|op| self.wanted.ops.contains(op));
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

    /// Has these operations measured; all that there are if there are none.
    fn measure(&mut self, target: &str, prefix: &str, path: &str, ops: &[String]) -> Result<()> {
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
