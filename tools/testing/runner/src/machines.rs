// SPDX-License-Identifier: GPL-2.0

//! The machines that selftests name: tests/machines.toml.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use vm::Options;

/// Path of the list from the root of the checkout.
pub const LIST: &str = "tests/machines.toml";

/// There are at most so many: each boots a guest of its own.
const MOST: usize = 22;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// What it is for.
    about: String,
    /// Options, as [`Options::from_words`] reads them.
    vm: String,
}

/// The machines by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machines {
    machine: BTreeMap<String, Entry>,
}

/// A machine with a number of CPUs, as a header names it: `labels`, or `labels 2`.
#[derive(Debug, Clone)]
pub struct Machine {
    pub label: String,
    pub options: Options,
}

impl Machines {
    pub fn load(top: &Path) -> Result<Self> {
        let text = fs::read_to_string(top.join(LIST)).context(LIST)?;
        Self::parse(&text).context(LIST)
    }

    fn parse(text: &str) -> Result<Self> {
        let machines: Self = toml::from_str(text)?;
        let count = machines.machine.len();
        ensure!(
            count <= MOST,
            "{count} machines, at most {MOST}: extend one that is there"
        );
        for (name, entry) in &machines.machine {
            ensure!(!entry.about.trim().is_empty(), "{name}: what is it for?");
            machines.find(name)?;
        }
        Ok(machines)
    }

    /// Finds a machine by what a header has after `# vm:`. It has one CPU, which an emulator runs with less work than two, unless
    /// a number follows the name.
    pub fn find(&self, text: &str) -> Result<Machine> {
        let (name, cpus) = match text.trim().split_once(' ') {
            Some((name, cpus)) => {
                let cpus = cpus.trim().parse::<u32>().ok();
                let cpus = cpus.filter(|cpus| (2..=8).contains(cpus));
                let cpus = cpus.with_context(|| {
                    format!("vm: {text}: only a number of CPUs, from 2 to 8, follows the name")
                })?;
                (name, cpus)
            }
            None => (text.trim(), 1),
        };
        let entry = self.machine.get(name).with_context(|| {
            let names: Vec<&str> = self.machine.keys().map(String::as_str).collect();
            format!("vm: {LIST} has no machine {name:?}: {}", names.join(", "))
        })?;
        let options = Options::from_words(&format!("--cpus {cpus} {}", entry.vm))
            .with_context(|| format!("machine {name}"))?;
        let label = match cpus {
            1 => name.to_owned(),
            _ => format!("{name} {cpus}"),
        };
        Ok(Machine { label, options })
    }

    /// Returns those that none of these labels names.
    pub fn unused<'a>(&self, labels: impl Iterator<Item = &'a str>) -> Vec<&str> {
        let named: Vec<&str> = labels
            .map(|label| label.split(' ').next().unwrap_or(label))
            .collect();
        let names = self.machine.keys().map(String::as_str);
        names.filter(|name| !named.contains(name)).collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    const ONE: &str = "[machine.one]\nabout = 'a'\nvm = '--nvdimm size=64M'\n";

    /// Machines named `one` and `other`.
    pub fn machines() -> Machines {
        let other = ONE.replace("one", "other");
        Machines::parse(&format!("{ONE}{other}")).unwrap()
    }

    #[test]
    fn machine_has_one_cpu_unless_a_number_follows() {
        let found = machines().find("one").unwrap();
        assert_eq!((found.label.as_str(), found.options.cpus), ("one", 1));
        let found = machines().find(" one  2").unwrap();
        assert_eq!((found.label.as_str(), found.options.cpus), ("one 2", 2));
    }

    #[test]
    fn unknown_machine_and_more_than_a_number_are_refused() {
        for (text, reason) in [
            ("two", "has no machine \"two\": one, other"),
            ("", "has no machine"),
            ("one --cpus 2", "only a number of CPUs"),
            ("one 1", "only a number of CPUs"),
            ("one 2 --slots 1", "only a number of CPUs"),
        ] {
            let error = format!("{:#}", machines().find(text).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn list_must_be_short_and_valid() {
        for (text, reason) in [
            (ONE.replace("64M", "1"), "machine one"),
            (ONE.replace("'a'", "' '"), "what is it for"),
            (ONE.replace("about", "text"), "unknown field"),
        ] {
            let error = format!("{:#}", Machines::parse(&text).err().unwrap());
            assert!(error.contains(reason), "{error}");
        }
        let many = |count: usize| {
            let all = (0..count).map(|number| ONE.replace("one", &format!("m{number}")));
            Machines::parse(&all.collect::<String>())
        };
        assert!(many(MOST).is_ok());
        assert!(many(MOST + 1).is_err());
    }

    #[test]
    fn machine_that_no_test_names_is_found() {
        let machines = machines();
        assert_eq!(machines.unused(["other 2"].into_iter()), ["one"]);
        assert!(machines.unused(["other", "one"].into_iter()).is_empty());
    }
}
