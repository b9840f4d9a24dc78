// SPDX-License-Identifier: GPL-2.0

//! `pmem-vm`: a shell, or one command, in a virtual machine with persistent memory.

use anyhow::{Context, Result};
use clap::Parser;
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use vm::{Ended, Images, LogFile, Loss, Options, Serial, Vm, reports};

/// Boots a virtual machine with persistent memory, in seconds, on any x86-64 Linux, without KVM, root or a network
///
/// Gives a shell in the guest, or runs one command. The guest sees the checkout at /rust_pmem; its root is
/// not kept. The command `host` in the guest requests what only the host can do: a power cut, a machine
/// check, another device.
#[derive(Parser)]
#[command(name = "pmem-vm", version, after_help = HELP, max_term_width = 120)]
struct Arguments {
    /// Run this command line by the guest's shell and return its status, instead of starting a shell
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,

    /// End the command after this many seconds (status 124)
    #[arg(long, value_name = "SECONDS", requires = "run")]
    time_limit: Option<u64>,

    /// Driver to load first
    #[arg(long, value_name = "DRIVER", default_value = "rust_pmem")]
    driver: Driver,

    /// Keep the memory of devices without file= in this folder, from one run to the next
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// File for the kernel's log (otherwise build/vm/serial.log of the checkout, or serial-2.log, …
    /// while that is in use)
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Print QEMU's command line, and do nothing else
    #[arg(long)]
    print: bool,

    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Driver {
    #[value(name = "rust_pmem")]
    Rust,
    #[value(name = "nd_pmem")]
    C,
    None,
}

/// Exit status if the guest was lost, or did not power off after a command that succeeded.
const LOST: u8 = 125;
/// Exit status after a command that succeeded, if the kernel reported a fault.
const REPORTED: u8 = 126;

const HELP: &str = "\
Examples:
  pmem-vm
      a shell in a guest with an NVDIMM with labels (/dev/pmem0) and persistent e820 memory (/dev/pmem1)
  pmem-vm --run 'ndctl list -NR'
  pmem-vm --state build/state --run 'echo hello >/dev/pmem0'
  pmem-vm --state build/state --run 'head -c 5 /dev/pmem0'
      the memory of an NVDIMM outlives the guest (that of e820 does not: it is the guest's RAM); make clean removes build
  pmem-vm --memory 2G --e820 512M@1G --nvdimm size=1G,labels,file=build/nvdimm.img
      a memory file of your own (setup/enter shows only the checkout and the folder of RUST_PMEM_BIND)
  pmem-vm --driver nd_pmem --virtio-pmem size=512M
      the stock driver, on virtio-pmem
  pmem-vm --cxl size=256M --run 'cxl create-region -d decoder0.0 -m mem0 -t pmem -s 256M && ndctl create-namespace -m fsdax'
      a namespace on CXL memory, which takes two steps
  pmem-vm --append 'mce=off' --cpus 1 --qemu '-rtc base=2030-01-01'
      further arguments for the kernel and for QEMU

In the guest (`host` alone explains):
  host mce 0x100200000            inject a machine check at this physical address (arm64: an error that firmware reports)
  host powercut                   cut the power, now
  host add nvdimm size=256M       add an NVDIMM
  host hmp 'info memory-devices'  QEMU's monitor

Exit status: that of the command; 124 after its time-out, 125 if the guest was lost (also by a power cut or a restart that \
was requested) or if the command succeeded but the guest did not power off, 126 if the command succeeded but the kernel \
reported a fault, 1 if the guest did not boot or, with --run, the driver is not loaded, 2 for bad options.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(stderr(), "pmem-vm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let options = match arguments.options.checked() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("pmem-vm: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let images = Images::find(&options)?;
    let log = match arguments.log {
        Some(path) => LogFile::at(path)?,
        None => LogFile::in_folder(&images.share.join("build/vm"))?,
    };
    let log = log.path();
    let scratch = tempfile::tempdir().context("no folder for temporary files")?;
    let state = arguments.state.as_deref().unwrap_or(scratch.path());
    if arguments.print {
        println!("{}", vm::command_line(&options, log, state)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut note = |text: &str| eprintln!("pmem-vm: {text}");
    let mut vm = Vm::boot(&options, state, log, &mut note)?;
    // An installed system loads the driver while it boots.
    let start = match options.disk {
        Some(_) => 0,
        None => vm.serial().len(),
    };
    if let Some(problem) = load(&mut vm, arguments.driver)? {
        // A command would go on without its disks.
        anyhow::ensure!(arguments.run.is_none(), "{problem}");
        eprintln!("pmem-vm: {problem}");
    }
    let ended = match arguments.run {
        Some(command) => {
            let limit = arguments.time_limit.map(Duration::from_secs);
            let mut out = stdout().lock();
            vm.run(&command, limit, &mut |bytes| {
                // The command goes on if nobody reads its output.
                let _ = out.write_all(bytes).and_then(|()| out.flush());
            })?
        }
        None => vm.shell(log)?,
    };
    let serial = vm.serial().clone();
    let (status, hung) = match ended {
        Ended::Exited(status) => {
            let hung = !vm.power_off();
            if hung {
                eprintln!("pmem-vm: the guest has not powered off in time, and was killed");
            }
            (u8::try_from(status).unwrap_or(1), hung)
        }
        Ended::TimedOut => {
            eprintln!("pmem-vm: the command has timed out");
            (124, false)
        }
        Ended::Lost(loss) => {
            lost(loss, &serial);
            (LOST, false)
        }
    };
    let found = reports(&serial.since(start)?);
    for report in &found {
        eprintln!(
            "pmem-vm: the kernel reported: {} (see {})",
            report.title,
            log.display()
        );
    }
    Ok(ExitCode::from(exit_status(status, !found.is_empty(), hung)))
}

/// Returns the exit status after a command with this one. The kill of a guest that hangs may lose what the command has written.
fn exit_status(status: u8, reported: bool, hung: bool) -> u8 {
    match status {
        0 if reported => REPORTED,
        0 if hung => LOST,
        _ => status,
    }
}

fn lost(loss: Loss, serial: &Serial) {
    match loss {
        Loss::PowerCut => eprintln!("pmem-vm: the power was cut, as requested"),
        Loss::Restart => {
            eprintln!("pmem-vm: the guest requested a restart, which pmem-vm does not do")
        }
        Loss::Unasked => {
            eprintln!("pmem-vm: the guest is lost; the last lines of its log:");
            for line in serial.tail(20) {
                eprintln!("    {line}");
            }
        }
    }
}

/// Loads the driver. Returns why it is not loaded, if that failed.
fn load(vm: &mut Vm, driver: Driver) -> Result<Option<String>> {
    let driver = match driver {
        Driver::Rust => "rust_pmem",
        Driver::C => "nd_pmem",
        Driver::None => return Ok(None),
    };
    let command = format!(
        "TESTS=/rust_pmem/tests DRIVER={driver}; . /rust_pmem/tests/lib/test.sh; load_driver"
    );
    let (ended, output) = vm.output(&command, Duration::from_secs(60))?;
    let output = output.trim();
    Ok(match ended {
        Ended::Exited(0) => None,
        _ => Some(format!("{driver} is not loaded: {output}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_that_does_not_power_off_is_a_failure() {
        assert_eq!(exit_status(0, false, false), 0);
        assert_eq!(exit_status(0, false, true), LOST);
        // The fault is the cause.
        assert_eq!(exit_status(0, true, true), REPORTED);
        assert_eq!(exit_status(3, true, true), 3);
    }
}
