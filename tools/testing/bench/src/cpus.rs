// SPDX-License-Identifier: GPL-2.0

//! Runs fio on several processors at once: a driver must not serialize them.

use anstream::{eprint, eprintln, println};
use anyhow::{Context, Result, bail};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;
use std::time::Duration;
use vm::{Ended, LogFile, Options, Vm};

/// Runs fio on several processors at once, with nd_pmem and rust_pmem in turns
///
/// A sanity check: times in an emulator are noise, and equal drivers have differed threefold. It can show
/// that one driver stalls where the other does not.
#[derive(clap::Args)]
pub struct Arguments {
    /// Number of processors, and of fio's jobs
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,

    /// Number of rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The drivers and their disks.
const DISKS: [(&str, &str); 2] = [("nd_pmem", "/dev/pmem0"), ("rust_pmem", "/dev/pmem1")];
/// Jobs of fio, each of which takes two seconds.
const LOADS: [(&str, &str); 6] = [
    ("read 4 KiB", "--rw=randread --bs=4k --ioengine=psync"),
    ("write 4 KiB", "--rw=randwrite --bs=4k --ioengine=psync"),
    (
        "read 4 KiB, io_uring, 32 at once",
        "--rw=randread --bs=4k --ioengine=io_uring --iodepth=32",
    ),
    (
        "write 4 KiB, io_uring, 32 at once",
        "--rw=randwrite --bs=4k --ioengine=io_uring --iodepth=32",
    ),
    (
        "write 4 KiB, each durable",
        "--rw=randwrite --bs=4k --ioengine=psync --fdatasync=1",
    ),
    ("write 1 MiB", "--rw=randwrite --bs=1m --ioengine=psync"),
];
const LIMIT: Duration = Duration::from_secs(120);

/// Runs all jobs and prints the rates.
pub fn run(arguments: &Arguments) -> Result<()> {
    let output = crate::top()?.join("build/bench");
    std::fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    let log = LogFile::in_folder(&output)?;
    let folder = tempfile::tempdir()?;
    let options = Options::from_words(&format!(
        "--bare --cpus {} --memory 2G --e820 320M@512M --e820 320M@832M",
        arguments.cpus
    ))?;
    let mut vm = Vm::boot(&options, folder.path(), log.path(), &mut |text| {
        eprintln!("{text}")
    })?;
    shell(
        &mut vm,
        "set -e; nd=/sys/bus/nd; modprobe -a nd_e820 nd_btt; modprobe nd_pmem; cat $nd/devices/ndbus*/wait_probe
         echo namespace1.0 >$nd/drivers/nd_pmem/unbind
         insmod /rust_pmem/rust_pmem.ko; cat $nd/devices/ndbus*/wait_probe
         [ \"$(basename $(readlink /sys/block/pmem0/device/driver))\" = nd_pmem ]
         [ \"$(basename $(readlink /sys/block/pmem1/device/driver))\" = rust_pmem ]",
    )?;
    let mut rates = vec![Vec::new(); LOADS.len() * DISKS.len()];
    for round in 1..=arguments.rounds {
        eprint!("\rround {round} of {}", arguments.rounds);
        let turns = LOADS
            .iter()
            .flat_map(|(_, load)| DISKS.map(|(_, disk)| (load, disk)));
        for ((load, disk), rates) in turns.zip(&mut rates) {
            let said = shell(
                &mut vm,
                &format!(
                    "fio --name=cpus --filename={disk} --direct=1 --thread --numjobs={} --group_reporting --time_based \
                     --ramp_time=500ms --runtime=2 --size=256m --norandommap --randrepeat=1 --output-format=json {load}",
                    arguments.cpus
                ),
            )?;
            rates.push(rate(&said)?);
        }
    }
    eprintln!();

    let mut table = Table::new();
    table.set_header(["load", DISKS[0].0, DISKS[1].0]);
    for ((load, _), rates) in LOADS.iter().zip(rates.chunks(DISKS.len())) {
        let shown = rates.iter().map(|rates| between(rates));
        table.add_row([(*load).to_owned()].into_iter().chain(shown));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.load_preset(UTF8_BORDERS_ONLY);
    println!(
        "NOISE: operations a second, in an emulator's time, on {} processors; the least, the median and the most of {} rounds\n{table}",
        arguments.cpus, arguments.rounds
    );
    Ok(())
}

fn shell(vm: &mut Vm, command: &str) -> Result<String> {
    match vm.output(command, LIMIT)? {
        (Ended::Exited(0), output) => Ok(output),
        (_, output) => bail!("failed: {command}\n{output}"),
    }
}

/// Reads the operations per second from fio's output.
fn rate(said: &str) -> Result<f64> {
    // Warnings come first.
    let json = said.find('{').map_or("", |start| &said[start..]);
    let report: Value = serde_json::from_str(json).with_context(|| said.to_owned())?;
    let job = &report["jobs"][0];
    let sum = |way: &str| job[way]["iops"].as_f64();
    let rate = sum("read")
        .zip(sum("write"))
        .map(|(read, write)| read + write);
    rate.filter(|rate| *rate > 0.0)
        .with_context(|| format!("fio did nothing: {said}"))
}

fn between(rates: &[f64]) -> String {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    format!(
        "{:.0} · {:.0} · {:.0}",
        at(0),
        at(sorted.len() / 2),
        at(sorted.len().saturating_sub(1))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_read_from_fio_output() {
        let said = |read, write| {
            format!(
                "fio: a warning\n{{\"jobs\": [{{\"read\": {{\"iops\": {read}}}, \"write\": {{\"iops\": {write}}}}}]}}"
            )
        };
        assert_eq!(rate(&said("0.0", "1500.5")).unwrap(), 1500.5);
        rate(&said("0.0", "0.0")).err().unwrap();
        rate("fio: no such disk").err().unwrap();
        assert_eq!(between(&[3.0, 1.0, 2.0]), "1 · 2 · 3");
    }
}
