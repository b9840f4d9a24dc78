// SPDX-License-Identifier: GPL-2.0

//! How the story is told: chapters, commands and what they print, what was seen.

use anstream::println;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Error, Result, bail};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};
use std::path::Path;
use std::time::{Duration, Instant};
use vm::{Ended, Options, Vm, reports, terminal};

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const CHAPTER: Style = Style::new().bold();
const PALE: Style = AnsiColor::BrightBlack.on_default();
const COMMAND: Style = AnsiColor::Yellow.on_default();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Columns of prose, fewer on a narrow terminal.
const WIDTH: usize = 100;
/// No command of the story takes so long.
const LIMIT: Duration = Duration::from_secs(300);
/// Where the guest has copies of what it runs often, as the way to the checkout is long.
pub const TOOLS: &str = "/run/pmem";
/// Lines shown of what a command prints.
const LINES: usize = 8;

/// The story so far.
pub struct Story {
    start: Instant,
    machine: Option<Vm>,
    /// Bytes of the kernel's log before this machine took commands.
    healthy_from: u64,
    chapters: usize,
    seen: Vec<(String, String)>,
    last: Vec<String>,
}

impl Story {
    /// Nothing told yet.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            machine: None,
            healthy_from: 0,
            chapters: 0,
            seen: Vec::new(),
            last: Vec::new(),
        }
    }

    /// The story's name.
    pub fn title(&self, text: &str) {
        println!("\n{TITLE}{text}{TITLE:#}");
    }

    /// Begins a chapter: what is done, and why.
    pub fn chapter(&mut self, name: &str, why: &str) {
        self.chapters += 1;
        println!("\n{CHAPTER}{:>2}  {name}{CHAPTER:#}", self.chapters);
        self.remark(why);
    }

    /// Prose.
    pub fn remark(&self, text: &str) {
        let width = terminal::size().map_or(WIDTH, |(_, columns)| {
            usize::from(columns).saturating_sub(4).clamp(40, WIDTH)
        });
        for line in wrapped(text, width) {
            println!("    {line}");
        }
    }

    /// Something that happens outside of the machine.
    pub fn host(&self, text: &str) {
        println!("    {COMMAND}host:{COMMAND:#} {text}");
    }

    /// What was just shown; it will stand in the table at the end.
    pub fn seen(&mut self, what: &str, evidence: &str) {
        println!("    {GOOD}✓{GOOD:#} {what} {PALE}{evidence}{PALE:#}");
        self.seen.push((what.to_owned(), evidence.to_owned()));
    }

    /// Boots a machine.
    pub fn boot(&mut self, options: &Options, folder: &Path, log: &Path) -> Result<()> {
        let mut note = |text: &str| println!("    {PALE}{text}{PALE:#}");
        let vm = Vm::boot(options, folder, log, &mut note)?;
        println!(
            "    {PALE}booted in {:.1} s, without KVM{PALE:#}",
            vm.boot_time().as_secs_f64()
        );
        self.healthy_from = vm.serial().len();
        self.machine = Some(vm);
        Ok(())
    }

    /// Runs a command line in the machine, unseen; it must succeed. Returns what it prints.
    pub fn quietly(&mut self, command: &str) -> Result<String> {
        match self.run(command)? {
            (0, output) => Ok(output),
            (status, output) => {
                self.last = output.lines().map(str::to_owned).collect();
                bail!("status {status} of: {command}")
            }
        }
    }

    /// Runs a command line in the machine and shows it and what it prints; it must succeed.
    pub fn guest(&mut self, command: &str) -> Result<String> {
        match self.guest_status(command)? {
            (0, output) => Ok(output),
            (status, _) => bail!("status {status} of: {command}"),
        }
    }

    /// The same, and it may fail.
    pub fn guest_status(&mut self, command: &str) -> Result<(i32, String)> {
        println!("    {COMMAND}${COMMAND:#} {command}");
        let (status, output) = self.run(command)?;
        let lines: Vec<&str> = output.lines().collect();
        let hidden = if lines.len() > LINES {
            lines.len() - 1
        } else {
            0
        };
        if hidden > 0 {
            println!("      {PALE}… {hidden} lines, then:{PALE:#}");
        }
        for line in &lines[hidden..] {
            println!("      {PALE}{line}{PALE:#}");
        }
        self.last = lines.iter().map(|&line| line.to_owned()).collect();
        Ok((status, output))
    }

    fn run(&mut self, command: &str) -> Result<(i32, String)> {
        let vm = self.machine.as_mut().context("there is no machine")?;
        let line = format!("PATH={TOOLS}:/rust_pmem/build/tools/release:$PATH; {command}");
        let (ended, output) = vm.output(&line, LIMIT)?;
        match ended {
            Ended::Exited(status) => Ok((status, output)),
            Ended::TimedOut => bail!("not done after {} s: {command}", LIMIT.as_secs()),
            Ended::Lost(_) => bail!("the machine was lost in: {command}"),
        }
    }

    /// The power fails.
    pub fn cut_power(&mut self) -> Result<()> {
        self.healthy()?;
        let vm = self.machine.take().context("there is no machine")?;
        vm.cut_power();
        self.host("kill -9 qemu");
        Ok(())
    }

    /// Memory at a physical address fails, 2 to the power of `lsb` bytes of it.
    pub fn machine_check(&mut self, address: u64, lsb: u8) -> Result<()> {
        let vm = self.machine.as_mut().context("there is no machine")?;
        vm.monitor().machine_check(address, lsb)?;
        self.host(&format!(
            "machine check: uncorrected error in the {} at {address:#x}",
            match 1_u64 << lsb {
                units::PAGE => "page".to_owned(),
                bytes => format!("{bytes} bytes"),
            }
        ));
        Ok(())
    }

    /// Fails if the kernel of this machine reported anything.
    pub fn healthy(&mut self) -> Result<()> {
        let vm = self.machine.as_ref().context("there is no machine")?;
        if let Some(report) = reports(&vm.serial().since(self.healthy_from)?)
            .into_iter()
            .next()
        {
            self.last = report.lines;
            bail!("the kernel reported: {}", report.title);
        }
        Ok(())
    }

    /// A table of the story's own.
    pub fn table<const N: usize>(&self, header: [&str; N], rows: &[[String; N]]) {
        let mut table = empty_table();
        table.set_header(header);
        for row in rows {
            table.add_row(row);
        }
        println!("\n{table}");
    }

    /// The table of what was shown.
    pub fn conclude(&self) {
        let mut table = empty_table();
        table.set_header(["", "shown", "seen"]);
        for (what, evidence) in &self.seen {
            table.add_row(["✓", what, evidence]);
        }
        println!("\n{table}");
        println!("All of it in {:.0} s.", self.start.elapsed().as_secs_f64());
    }

    /// What failed first, and the guest's last lines.
    pub fn fail(&self, error: &Error) {
        println!("\n    {BAD}✗ {error:#}{BAD:#}");
        for line in self.last.iter().rev().take(20).rev() {
            println!("      {PALE}{line}{PALE:#}");
        }
        if let Some(vm) = &self.machine {
            println!("    the last lines of the guest's log:");
            for line in vm.serial().tail(20) {
                println!("      {PALE}{line}{PALE:#}");
            }
            println!("    all of it: {}", vm.serial().path().display());
        }
    }
}

fn empty_table() -> Table {
    let mut table = Table::new();
    table
        .load_preset(UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if let Some((_, columns)) = terminal::size() {
        table.set_width(columns);
    }
    table
}

/// Prose in lines of at most `width` columns.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines
            .last_mut()
            .filter(|line| line.is_empty() || line.len() + word.len() < width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_keeps_its_words_and_its_width() {
        let text = "word ".repeat(100);
        let lines = wrapped(&text, 76);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= 76));
        assert_eq!(lines.join(" "), text.trim());
    }
}
