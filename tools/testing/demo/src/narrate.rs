// SPDX-License-Identifier: GPL-2.0

//! Prints the demo: chapters, commands with their output, and what they showed.

use anstream::println;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Error, Result, bail};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};
use std::path::Path;
use std::time::{Duration, Instant};
use vm::{Ended, Options, Severity, Vm, reports, terminal};

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const CHAPTER: Style = Style::new().bold();
const PALE: Style = AnsiColor::BrightBlack.on_default();
const COMMAND: Style = AnsiColor::Yellow.on_default();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Columns of prose, fewer on a narrow terminal.
const WIDTH: usize = 100;
/// Time-out of a command.
const LIMIT: Duration = Duration::from_secs(300);
/// Lines shown of a command's output.
const LINES: usize = 8;

/// A demo in progress.
pub struct Story {
    start: Instant,
    guest: Option<Vm>,
    /// Length of the kernel's log when this guest was ready.
    healthy_from: u64,
    chapters: usize,
    seen: Vec<(String, String)>,
    last: Vec<String>,
}

impl Story {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            guest: None,
            healthy_from: 0,
            chapters: 0,
            seen: Vec::new(),
            last: Vec::new(),
        }
    }

    pub fn title(&self, text: &str) {
        println!("\n{TITLE}{text}{TITLE:#}");
    }

    /// Begins a chapter, with its reason.
    pub fn chapter(&mut self, name: &str, why: &str) {
        self.chapters += 1;
        println!("\n{CHAPTER}{:>2}  {name}{CHAPTER:#}", self.chapters);
        self.remark(why);
    }

    /// Prints a paragraph.
    pub fn remark(&self, text: &str) {
        let width = terminal::size().map_or(WIDTH, |(_, columns)| {
            usize::from(columns).saturating_sub(4).clamp(40, WIDTH)
        });
        for line in wrapped(text, width) {
            println!("    {line}");
        }
    }

    /// Prints what happens on the host.
    pub fn host(&self, text: &str) {
        println!("    {COMMAND}host:{COMMAND:#} {text}");
    }

    /// Prints the result of a scene; the table at the end repeats it.
    pub fn seen(&mut self, what: &str, evidence: &str) {
        println!("    {GOOD}✓{GOOD:#} {what} {PALE}{evidence}{PALE:#}");
        self.seen.push((what.to_owned(), evidence.to_owned()));
    }

    pub fn boot(&mut self, options: &Options, folder: &Path, log: &Path) -> Result<()> {
        let mut note = |text: &str| println!("    {PALE}{text}{PALE:#}");
        let vm = Vm::boot(options, folder, log, &mut note)?;
        println!(
            "    {PALE}booted in {:.1} s, without KVM{PALE:#}",
            vm.boot_time().as_secs_f64()
        );
        self.healthy_from = vm.serial().len();
        self.guest = Some(vm);
        Ok(())
    }

    /// Runs a command line in the guest without showing it, and returns its output. It must succeed.
    pub fn quietly(&mut self, command: &str) -> Result<String> {
        match self.run(command)? {
            (0, output) => Ok(output),
            (status, output) => {
                self.last = output.lines().map(str::to_owned).collect();
                bail!("status {status} of: {command}")
            }
        }
    }

    /// Runs a command line in the guest, shows it and its output, and returns the output. It must succeed.
    pub fn guest(&mut self, command: &str) -> Result<String> {
        match self.guest_status(command)? {
            (0, output) => Ok(output),
            (status, _) => bail!("status {status} of: {command}"),
        }
    }

    /// Like [`guest`](Self::guest), but it may fail.
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
        let vm = self.guest.as_mut().context("there is no guest")?;
        let line = format!("PATH=/rust_pmem/build/tools/debug:$PATH; {command}");
        let (ended, output) = vm.output(&line, LIMIT)?;
        match ended {
            Ended::Exited(status) => Ok((status, output)),
            Ended::TimedOut => bail!("not done after {} s: {command}", LIMIT.as_secs()),
            Ended::Lost(_) => bail!("the guest was lost in: {command}"),
        }
    }

    /// Cuts the power of the guest.
    pub fn cut_power(&mut self) -> Result<()> {
        self.healthy()?;
        let vm = self.guest.take().context("there is no guest")?;
        vm.cut_power()?;
        self.host("kill -9 qemu");
        Ok(())
    }

    /// Injects an uncorrectable error into 2 to the power of `lsb` bytes at a physical address.
    pub fn machine_check(&mut self, address: u64, lsb: u8) -> Result<()> {
        let vm = self.guest.as_mut().context("there is no guest")?;
        vm.monitor()
            .machine_check(address, lsb, Severity::Recoverable)?;
        self.host(&format!(
            "machine check: uncorrected error in the {} at {address:#x}",
            match 1_u64 << lsb {
                units::PAGE => "page".to_owned(),
                bytes => format!("{bytes} bytes"),
            }
        ));
        Ok(())
    }

    /// Fails if the kernel of this guest reported anything.
    pub fn healthy(&mut self) -> Result<()> {
        let vm = self.guest.as_ref().context("there is no guest")?;
        if let Some(report) = reports(&vm.serial().since(self.healthy_from)?)
            .into_iter()
            .next()
        {
            self.last = report.lines;
            bail!("the kernel reported: {}", report.title);
        }
        Ok(())
    }

    /// Prints the table of the results.
    pub fn conclude(&self) {
        let mut table = empty_table();
        table.set_header(["", "shown", "seen"]);
        for (what, evidence) in &self.seen {
            table.add_row(["✓", what, evidence]);
        }
        println!("\n{table}");
        println!("Done in {:.0} s.", self.start.elapsed().as_secs_f64());
    }

    /// Prints the error, and the last lines of the guest.
    pub fn fail(&self, error: &Error) {
        println!("\n    {BAD}✗ {error:#}{BAD:#}");
        for line in self.last.iter().rev().take(20).rev() {
            println!("      {PALE}{line}{PALE:#}");
        }
        if let Some(vm) = &self.guest {
            println!("    the last lines of the guest's log:");
            for line in vm.serial().tail(20) {
                println!("      {PALE}{line}{PALE:#}");
            }
            println!("    the whole log: {}", vm.serial().path().display());
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

/// Wraps a text at `width` columns.
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
    fn wrapped_text_keeps_its_words_and_its_width() {
        let text = "word ".repeat(100);
        let lines = wrapped(&text, 76);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= 76));
        assert_eq!(lines.join(" "), text.trim());
    }
}
