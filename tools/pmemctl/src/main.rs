// SPDX-License-Identifier: GPL-2.0

//! `pmemctl`: the administrator's tool for persistent memory.

mod commands;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use commands::output::{self, Status};
use commands::{
    doctor, errors, explain, layout, lease, list, man, metrics, monitor, plan, quarantine, repair,
    scrub, status, swap_driver,
};
use std::io::{self, Write};
use std::process::ExitCode;

/// Administer persistent memory: errors, repair, file systems, drivers
///
/// pmemctl works on the namespaces of libnvdimm with the driver rust_pmem or nd_pmem; ndctl(1) creates and changes
/// them.
#[derive(Parser)]
#[command(name = "pmemctl", version, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(list::List),
    Status(status::Status),
    Errors(errors::Errors),
    Monitor(monitor::Monitor),
    Explain(explain::Explain),
    Metrics(metrics::Metrics),
    Repair(repair::Repair),
    Quarantine(quarantine::Quarantine),
    Lease(lease::Lease),
    Plan(plan::Plan),
    Scrub(scrub::Scrub),
    Doctor(doctor::Doctor),
    Layout(layout::Layout),
    SwapDriver(swap_driver::SwapDriver),
    /// Write man pages and completions for shells
    #[command(hide = true)]
    Generate(man::Generate),
}

fn main() -> ExitCode {
    let arguments = Arguments::from_arg_matches(&man::complete(Arguments::command()).get_matches());
    let done = match arguments.unwrap_or_else(|error| error.exit()).command {
        Command::List(arguments) => list::list(&arguments).map(Status::good),
        Command::Status(arguments) if arguments.check => return status::check(&arguments),
        Command::Status(arguments) => Status::or_unknown(status::status(&arguments)),
        Command::Errors(arguments) => errors::run(&arguments),
        Command::Monitor(arguments) => monitor::monitor(&arguments).map(|()| Status::Good),
        Command::Explain(arguments) => Status::or_unknown(explain::explain(&arguments)),
        Command::Metrics(arguments) => metrics::metrics(&arguments).map(|()| Status::Good),
        Command::Repair(arguments) => repair::repair(&arguments).map(Status::good),
        Command::Quarantine(arguments) => quarantine::quarantine(&arguments).map(Status::good),
        Command::Lease(arguments) => return lease::lease(&arguments),
        Command::Plan(arguments) => plan::plan(&arguments).map(Status::good),
        Command::Scrub(arguments) => scrub::scrub(&arguments),
        Command::Doctor(arguments) => Status::or_unknown(doctor::doctor(&arguments)),
        Command::Layout(arguments) => layout::layout(&arguments),
        Command::SwapDriver(arguments) => swap_driver::swap_driver(&arguments).map(Status::good),
        Command::Generate(arguments) => {
            man::generate(&arguments, &Arguments::command()).map(Status::good)
        }
    };
    match done {
        Ok(status) => ExitCode::from(status as u8),
        Err(error) if output::is_closed_output(&error) => ExitCode::from(output::OUTPUT_CLOSED),
        Err(error) => {
            // If standard error is closed, the exit status still reports the failure.
            let _ = writeln!(io::stderr(), "pmemctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
