// SPDX-License-Identifier: GPL-2.0

//! `pmem-powerfail`: cuts the power of guests at any store, and checks that nothing promised is lost.
//!
//! ```text
//!  workload    ─► guest with the plugin ─► log ─► images: the medium at each crash ─► check: promises, fsck ─► report
//! ```

mod btt;
mod check;
mod images;
mod plots;
mod recovery;
mod report;
mod workload;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use report::Row;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use vm::{Driver, Ended, Images, LogFile, Options, Vm, reports};
use workload::{WORKLOADS, Workload};

/// Cuts the power of guests at any store, and checks that nothing promised is lost
///
/// Each workload runs in a guest whose stores a plugin of QEMU follows. At fences and at random stores, without the guest's
/// help, it records the contents of the medium, with a random choice of the stores that had not certainly reached it. Each
/// such image is checked: every record that the kernel has acknowledged as durable is there, no sector of sector mode is
/// torn, file systems recover and are clean.
#[derive(Parser)]
#[command(name = "pmem-powerfail", version, max_term_width = 120)]
struct Arguments {
    /// Only these workloads (--list names them)
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,

    /// Print the workloads, and do nothing else
    #[arg(long)]
    list: bool,

    /// Number of crash images, of all workloads together
    #[arg(long, value_name = "N", default_value_t = 200)]
    images: u64,

    /// Seed of the workloads and of the images
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Driver
    #[arg(long, value_name = "DRIVER", default_value = "rust_pmem")]
    driver: Driver,

    /// Another build of rust_pmem, as a path from the root of the checkout
    #[arg(long, value_name = "FILE", default_value = "rust_pmem.ko")]
    module: PathBuf,

    /// Processor model of QEMU; -clwb and -clflushopt after a comma leave instructions out
    #[arg(long, value_name = "MODEL", default_value = "max")]
    cpu: String,

    /// CPU caches are persistent (eADR)
    #[arg(long)]
    eadr: bool,

    /// Skip workloads that this command has finished before
    #[arg(long)]
    resume: bool,

    /// Folder of the results; the table is next to it, as .md
    #[arg(long, value_name = "DIR", default_value = "build/powerfail")]
    output: PathBuf,
}

impl Arguments {
    /// Identifies what is under test: a result of another module, kernel, plugin or provider is not this one's.
    fn hash(&self) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        let mut files = vec![
            Images::find(&Options::from_words("")?)?.kernel,
            std::env::current_exe()?,
            std::env::current_exe()?.with_file_name("libpmem_powerfail.so"),
            std::env::current_exe()?.with_file_name("pmem-io"),
            PathBuf::from("tests/provider/pmem_provider.ko"),
        ];
        if self.driver == Driver::Rust {
            files.push(self.module.clone());
        }
        for file in files {
            let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
            bytes.hash(&mut hasher);
        }
        Ok(hasher.finish())
    }
}

/// Time in which a workload has taken its crash images.
const WORK: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for workload in &WORKLOADS {
            println!("{:16} {}", workload.name, workload.about);
        }
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pmem-powerfail: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the workloads; returns whether no image has lost anything, but for what nd_pmem is known to lose.
fn run(arguments: &Arguments) -> Result<bool> {
    let chosen = choose(&arguments.workloads)?;
    ensure!(arguments.images > 0, "--images 0: at least one");
    let shares: u64 = chosen.iter().map(|workload| workload.share()).sum();
    let folder = arguments.output.join(arguments.driver.name());
    let hash = arguments.hash()?;
    let mut rows = Vec::new();
    let mut good = true;
    for workload in chosen {
        let folder = folder.join(workload.name);
        let each = (arguments.images * workload.share()).div_ceil(shares);
        let key = format!(
            "{each} {} {} {} {hash:x}",
            arguments.seed, arguments.cpu, arguments.eadr
        );
        let known = Row::read(&folder, &key).filter(|_| arguments.resume);
        let row = match known {
            Some(row) => {
                println!("{}: known for this build", workload.name);
                row
            }
            None => {
                println!("{}: {}", workload.name, workload.about);
                let row = run_workload(arguments, workload, each, &folder, key)
                    .with_context(|| workload.name.to_owned())?;
                println!("    {} images, {} lost", row.images, row.problems.len());
                for problem in row.problems.iter().take(5) {
                    println!("    {problem}");
                }
                row.write(&folder)?;
                row
            }
        };
        let reason = workload.lost_by_nd_pmem;
        match reason.filter(|_| arguments.driver == Driver::C && !row.problems.is_empty()) {
            Some(reason) => println!("    as is known of nd_pmem: {reason}"),
            None => good &= row.problems.is_empty(),
        }
        rows.push(row);
    }
    let table = arguments.output.with_extension("md");
    report::write(&table, arguments.driver.name(), &rows)?;
    println!("The table is {}.", table.display());
    Ok(good)
}

fn choose(names: &[String]) -> Result<Vec<&'static Workload>> {
    let unknown = names
        .iter()
        .find(|name| !WORKLOADS.iter().any(|known| known.name == **name));
    if let Some(name) = unknown {
        bail!("there is no workload \"{name}\": --list names them");
    }
    let chosen = WORKLOADS
        .iter()
        .filter(|known| names.is_empty() || names.iter().any(|name| known.name == name));
    Ok(chosen.collect())
}

fn run_workload(
    arguments: &Arguments,
    workload: &Workload,
    each: u64,
    folder: &Path,
    key: String,
) -> Result<Row> {
    let begin = Instant::now();
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let log = folder.join("log");
    let scratch = tempfile::tempdir().context("no folder for temporary files")?;
    let serial = LogFile::at(folder.join("serial.log"))?;
    let mut options = Options::from_words(&workload.machine(arguments, &log))?;
    options.cpu = Some(arguments.cpu.clone());
    let mut vm = Vm::boot(&options, scratch.path(), serial.path(), &mut |note| {
        println!("    {note}")
    })?;
    let start = vm.serial().len();
    let script = workload.script(arguments, each);
    let (ended, output) = vm.output(&script, WORK)?;
    ensure!(
        ended == Ended::Exited(0),
        "the workload ended by {ended:?}: {}",
        output.trim()
    );
    let at = output.lines().find_map(|line| line.strip_prefix("offset "));
    let at = at
        .and_then(|text| text.trim().parse().ok())
        .context("the guest does not know where its data are")?;
    let found = images::check(&log, workload, at, folder)?;
    ensure!(
        found.images >= each,
        "{} crash images were taken, not {each}",
        found.images
    );
    ensure!(
        found.with_promises > 0,
        "no crash image was taken after the first promise: take more images"
    );
    if let Some(report) = reports(&vm.serial().since(start)?).first() {
        bail!("the kernel reported: {}", report.title);
    }
    let symbols = report::symbols(&mut vm, &found)?;
    plots::draw(&found, workload.name, folder)?;
    let problems = found.problems(&symbols);
    report::keep(&problems, arguments, workload, folder)?;
    if problems.is_empty() {
        std::fs::remove_file(&log)?;
    }
    Ok(Row {
        key,
        workload: workload.name.to_owned(),
        images: found.images,
        distinct: found.distinct(),
        most_undurable: found.most_undurable(),
        problems,
        seconds: begin.elapsed().as_secs(),
    })
}
