// SPDX-License-Identifier: GPL-2.0

//! `pmemctl`: the administrator's tool for persistent memory.

mod commands;

use clap::{CommandFactory, Parser, Subcommand};
use commands::output::Status;
use commands::{
    doctor, errors, layout, lease, list, man, monitor, plan, repair, scrub, status, swap_driver,
};
use std::io::{self, Write};
use std::process::ExitCode;

/// What an administrator wants of persistent memory that ndctl does not do.
///
/// Status: 0 when all was done, 1 where something was refused or failed, 2 for bad arguments, 3
/// where a saved list was refused, 4 where "errors" could not tell or "scrub" was
/// stopped; "lease" has statuses of its own.
#[derive(Parser)]
#[command(name = "pmemctl", version, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the persistent memory there is: its modes, page maps, file systems and bad ranges
    ///
    /// A row for each namespace and for each volume made of its disk. MODE and PAGE MAP (where the
    /// struct pages are) are as in ndctl; what has a page map without fsdax mode, as memory of e820, is
    /// raw. ALIGN is where the data begins a multiple of; DAX says which files of the mount are mapped
    /// and copied without the page cache. Works with either driver.
    List(list::List),
    Status(status::Status),
    /// Show what is hurt by bad memory: which file, and where in it
    ///
    /// Each bad range of a disk is followed through partitions and the device mapper's linear and
    /// striped volumes to the file system that is mounted there, and by that to a file, free space,
    /// or metadata. On XFS with a reverse map that is quick; elsewhere all files are asked where they
    /// are, which takes minutes for millions. Files that were removed while they are open are found,
    /// too. The status is 0 where nothing is bad, 1 where something is, so that "pmemctl errors FILE" is
    /// the test to make before a file is mapped, and 4 where it could not be told.
    Errors(errors::Errors),
    /// Tell of each new error: which file it is in, and which processes have it mapped; SIGTERM ends it
    ///
    /// The lists of errors are waited for, and nobody touches the memory: a process that has it mapped
    /// is told of before it runs into it. An event is a line, of high priority in systemd's journal. Where
    /// a file is in use, it is found at once; others are searched for as by "pmemctl errors", and where
    /// that takes more than a second, what is known is told first ("complete" is false then). Disks
    /// that appear are watched as well, one that goes away is no error. Works with either driver, of
    /// which nd_pmem lists fewer machine checks.
    Monitor(monitor::Monitor),
    /// Restore what bad memory has cost a file, by the write that heals
    ///
    /// What is listed as bad of the file is taken from a backup, or is zeros with --zero; with
    /// --offset and --length that range is, listed or not. What can still be read of its pages is kept,
    /// out of the page cache as well. Nobody else may have the file open: who does is named, and who
    /// comes meanwhile waits, or ends the repair between two writes. Before each write it is made sure
    /// that the name leads to this file still, of this length, and that its blocks are where they were;
    /// after it, that the bytes can be read, are right, and are not listed any more. All is written
    /// through the file, so that no other can be hit. Where files of XFS share the blocks, this
    /// one gets others ("moved"): it is good then, and the bad memory heals when the last of those files
    /// is repaired. A crash in the midst may leave the last page of a file that ends within it with zeros
    /// behind the old end. The status is 0 where nothing of it is bad any more.
    Repair(repair::Repair),
    /// Run a command while nobody can truncate a file that it has mapped, for a while
    ///
    /// A lease (fcntl(2)) is taken on the file while the command runs: a process that truncates it by
    /// its name, or opens it for writing, waits until the command has ended, but no longer than
    /// /proc/sys/fs/lease-break-time (45 s); then it goes on, and the command's mapping may lose its
    /// pages. Who opens it with O_NONBLOCK, as truncate(1) does, is refused at once, and the time runs as
    /// well. The command opens the file itself, only for reading; to write to it, give --exclusive and
    /// have the command map the descriptor it is given. Whoever has the file open for writing before is
    /// not held off: then the file can't be held at all. Nor are removing and renaming, which take no
    /// page from a mapping, clients of other machines, and the file system's own doings. Only the
    /// file's owner and root may. Signals are passed on to the command. The status is that of the command, 128 and
    /// the number of the signal that has killed it, 125 where the file can't be held, 126 or 127 where
    /// the command can't be run or found.
    Lease(lease::Lease),
    /// Say what each form of a device would cost in RAM, capacity and wear, and which to take
    ///
    /// Raw, sector, file-system DAX with the page map in RAM or on the device, device DAX by pages of
    /// 4 KiB, 2 MiB and 1 GiB, and RAM: what is left to use, what is cut off by alignment or by the
    /// blocks in which the kernel takes memory, and where the struct pages are. Life left is what
    /// firmware tells of the DIMMs. Nothing is changed. Status 1 where no form is fit for the use.
    Plan(plan::Plan),
    /// Read all of a disk at a chosen pace, so that bad memory is listed before an application meets it
    ///
    /// For memory that no firmware scrubs. Each page that is not listed is read past the page cache,
    /// beside whatever else uses the disk; one that can't be read is on the list then, and costs itself
    /// alone. Stopped by SIGTERM, SIGINT or a crash, the same command goes on where it was. The info
    /// block and the page map of the namespace are not read. Status 0 where nothing is bad, 1 where
    /// something is, was known before, or failed, 4 where it was stopped.
    Scrub(scrub::Scrub),
    /// Say why DAX, MAP_SYNC or huge mappings do not work here, and what mends it
    ///
    /// Looks at the kernel, the namespace, its partitions and volumes, the file system, the mount and
    /// the file, and names each cause with the command that mends it. What is really so is tried: a
    /// mount with a file of 4 MiB that has no name and is gone when the command ends, a file by
    /// reading 2 MiB of it through a mapping. Status 0 where nothing is wrong, 1 where something is.
    Doctor(doctor::Doctor),
    /// Draw what is where on a disk: files, metadata, free space, and bad memory
    ///
    /// The disk is divided into cells, each of which is shown as what most of its bytes are for. A cell with
    /// bad memory is shown as bad, however little of it is. Of ext4 and XFS, mounted or not, the free
    /// space is known, and the metadata: of XFS all of it where that is mounted and has a reverse map.
    Layout(layout::Layout),
    /// Move namespaces between rust_pmem and nd_pmem while the machine runs; the data stays as it is
    ///
    /// The device that is bound is moved: the namespace in raw mode, its pfn or btt device in fsdax
    /// or sector mode. Nothing is done while anything uses the disk, and each user is named: mounts,
    /// swap, device mapper, md, bcache, loop devices, the NVMe target, processes that have it open
    /// or mapped. What is on the disk's list of bad sectors, and whether it is read-only, goes with
    /// it. Where the new driver does not take it, the old one gets it back. Of several devices each
    /// is moved or refused for itself.
    SwapDriver(swap_driver::SwapDriver),
    /// Write man pages and completions for shells
    #[command(hide = true)]
    Generate(man::Generate),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::List(arguments) => list::list(&arguments).map(Status::good),
        Command::Status(arguments) => Status::or_untold(status::status(&arguments)),
        Command::Errors(arguments) => errors::run(&arguments),
        Command::Monitor(arguments) => monitor::monitor(&arguments).map(|()| Status::Good),
        Command::Repair(arguments) => repair::repair(&arguments).map(Status::good),
        Command::Lease(arguments) => return lease::lease(&arguments),
        Command::Plan(arguments) => plan::plan(&arguments).map(Status::good),
        Command::Scrub(arguments) => scrub::scrub(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments).map(Status::good),
        Command::Layout(arguments) => layout::layout(&arguments),
        Command::SwapDriver(arguments) => swap_driver::swap_driver(&arguments).map(Status::good),
        Command::Generate(arguments) => {
            man::generate(&arguments, &Arguments::command()).map(Status::good)
        }
    };
    match done {
        Ok(status) => ExitCode::from(status as u8),
        Err(error) => {
            // Where this can't be written, the status says it still.
            let _ = writeln!(io::stderr(), "pmemctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
