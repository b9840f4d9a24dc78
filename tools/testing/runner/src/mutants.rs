// SPDX-License-Identifier: GPL-2.0

//! Do the selftests find a fault? Planted faults of the driver, tests/mutants.toml: each is built into a
//! module of its own, and the one selftest that is there for it must fail.

use crate::ktap::Outcome;
use crate::lint;
use crate::report::{plain, table};
use crate::selftest::{GUEST, Runner, Selftest, WHOLE, grouped};
use crate::tally::{Clock, Tally, Test};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The list, from the root of the checkout.
pub const LIST: &str = "tests/mutants.toml";
/// Where they are built and the table goes, without .md.
const BUILD: &str = "build/mutants";
/// What the module is made of besides Rust.
const BESIDE: [&str; 3] = [
    "Kbuild",
    "abstractions/bindgen_parameters",
    "abstractions/bindings_helper.h",
];
/// What stands for the driver without a fault.
const NONE: &str = "without";

/// A planted fault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// What is wrong with the driver, as a sentence.
    pub fault: String,
    /// The source, from the root of the checkout.
    file: PathBuf,
    /// A text that it has exactly once.
    text: String,
    /// What stands there instead.
    becomes: String,
    /// The selftest that must fail.
    pub test: String,
    /// Whether it is among the few that `make check` tries.
    #[serde(default)]
    pub quick: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

impl Mutant {
    /// The source with the fault, from the one without.
    fn plant(&self, source: &str) -> Result<String> {
        let found = source.matches(&self.text).count();
        ensure!(
            found == 1,
            "{}: {} has the text {found} times, not once: {}",
            self.name,
            self.file.display(),
            self.text.trim()
        );
        Ok(source.replace(&self.text, &self.becomes))
    }
}

/// Reads the list. It speaks of these tests.
pub fn load(top: &Path, tests: &[Selftest]) -> Result<Vec<Mutant>> {
    let text = fs::read_to_string(top.join(LIST)).context(LIST)?;
    parse(&text, tests).context(LIST)
}

fn parse(text: &str, tests: &[Selftest]) -> Result<Vec<Mutant>> {
    let mutants = toml::from_str::<List>(text)?.mutant;
    let mut names = BTreeSet::from([NONE]);
    for mutant in &mutants {
        let Mutant {
            name, fault, test, ..
        } = mutant;
        let good = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        ensure!(
            !name.is_empty() && name.chars().all(good),
            "\"{name}\" is no name of a mutant: letters, digits, -"
        );
        ensure!(names.insert(name), "{name}: there are two of this name");
        ensure!(
            !fault.trim().is_empty(),
            "{name}: it does not say what is wrong"
        );
        ensure!(
            tests.iter().any(|known| known.name == *test),
            "{name}: there is no test {test}"
        );
    }
    Ok(mutants)
}

/// Whether all of the list can be planted into the sources as they are.
pub fn lint(top: &Path, tests: &[Selftest], tally: &mut Tally) -> Result<()> {
    let clock = tally.running("mutants");
    let words: Vec<String> = match load(top, tests) {
        Ok(mutants) => mutants
            .iter()
            .filter_map(|mutant| mutant.planted(top).err())
            .map(|error| format!("{error:#}"))
            .collect(),
        Err(error) => vec![format!("{error:#}")],
    };
    let outcome = match words.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Failed(format!("{LIST} does not fit the driver's sources")),
    };
    tally.add(Test {
        about: "each planted fault has its place in the driver".into(),
        time: clock.time(),
        words,
        ..Test::new("mutants", outcome)
    });
    Ok(())
}

impl Mutant {
    /// The whole source with the fault in it.
    fn planted(&self, top: &Path) -> Result<String> {
        let path = top.join(&self.file);
        let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        self.plant(&source)
    }
}

/// The driver's sources in a folder of their own, where faults are planted.
struct Nursery {
    top: PathBuf,
    folder: PathBuf,
}

impl Nursery {
    fn new(top: &Path) -> Result<Self> {
        let folder = top.join(BUILD);
        for sources in ["block", "nd"] {
            fs::create_dir_all(folder.join("source/abstractions").join(sources))?;
        }
        Ok(Self {
            top: top.to_path_buf(),
            folder,
        })
    }

    /// Builds the module with this fault, or with none; its path from the root of the checkout, or why
    /// there is none. What has not changed is not written, so that Kbuild does not make it again.
    fn build(&self, mutant: Option<&Mutant>) -> Result<Result<PathBuf, Vec<String>>> {
        for path in sources(&self.top)? {
            let mut text = fs::read_to_string(self.top.join(&path))?;
            if let Some(mutant) = mutant.filter(|mutant| mutant.file == path) {
                text = mutant.plant(&text)?;
            }
            let copy = self.folder.join("source").join(&path);
            if fs::read_to_string(&copy).ok().as_deref() != Some(&text) {
                fs::write(&copy, text).with_context(|| copy.display().to_string())?;
            }
        }
        let name = mutant.map_or(NONE, |mutant| &mutant.name);
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let mut command = lint::make(&self.top);
        let source = self.folder.join("source");
        command.arg("module").arg(format!("M={}", source.display()));
        let (good, said) = lint::run(&mut command)?;
        fs::write(folder.join("build.log"), &said)?;
        if !good {
            return Ok(Err(lint::ills(&said)));
        }
        fs::copy(source.join("rust_pmem.ko"), folder.join("rust_pmem.ko"))?;
        Ok(Ok(Path::new(BUILD).join(name).join("rust_pmem.ko")))
    }
}

/// What the module is made of, from the root of the checkout; not what was made there.
fn sources(top: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = lint::module_sources(top)?;
    sources.extend(BESIDE.map(PathBuf::from));
    Ok(sources)
}

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// These checks of its test failed; with their diagnosis.
    Killed(Vec<String>),
    /// Its test passed.
    Survived,
    /// There is no verdict, and why.
    Unknown(String),
}

impl Fate {
    /// From how its test went.
    fn of(result: &Test) -> Self {
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_));
        let checks = result
            .details
            .iter()
            .filter(|detail| detail.name != WHOLE && failed(&detail.outcome));
        let checks: Vec<String> = checks.map(|detail| detail.name.clone()).collect();
        match &result.outcome {
            Outcome::Failed(_) if !checks.is_empty() => Self::Killed(checks),
            Outcome::Failed(why) => Self::Unknown(format!(
                "the test broke, but none of its checks failed: {why}"
            )),
            Outcome::Passed => Self::Survived,
            Outcome::Skipped(why) => Self::Unknown(format!("the test was skipped: {why}")),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Killed(_) => Outcome::Passed,
            other => Outcome::Failed(other.to_string()),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(checks) => {
                write!(f, "killed: {}", checks[0])?;
                match checks.len() {
                    1 => Ok(()),
                    count => write!(f, " (and {} more)", count - 1),
                }
            }
            Self::Survived => f.write_str("SURVIVED"),
            Self::Unknown(why) => f.write_str(why),
        }
    }
}

/// A row of the table.
struct Row<'a> {
    mutant: &'a Mutant,
    fate: Fate,
    time: Duration,
}

/// Tries these mutants and counts each. Their tests are run without a fault first.
pub fn run(top: &Path, mutants: &[Mutant], tests: &[Selftest], tally: &mut Tally) -> Result<()> {
    let by_name: BTreeMap<&str, &Selftest> = tests
        .iter()
        .map(|test| (test.name.as_str(), test))
        .collect();
    let nursery = Nursery::new(top)?;
    let good = controls(&nursery, mutants, &by_name, tally)?;
    let mut rows = Vec::new();
    tally.heading("With a fault");
    for mutant in mutants {
        let clock = tally.running(&mutant.name);
        let test = by_name[mutant.test.as_str()];
        let (fate, words) = match good.contains(&mutant.test) {
            true => try_out(&nursery, mutant, test, tally, &clock)?,
            false => (
                Fate::Unknown(format!("{} fails without the fault, too", mutant.test)),
                Vec::new(),
            ),
        };
        let time = clock.time();
        tally.add(Test {
            about: format!("{} {fate}", mutant.test),
            time,
            words,
            ..Test::new(&mutant.name, fate.outcome())
        });
        rows.push(Row { mutant, fate, time });
    }
    let path = top.join(BUILD).with_extension("md");
    fs::write(&path, markdown(&rows)).with_context(|| path.display().to_string())
}

/// The tests that pass without a fault.
fn controls(
    nursery: &Nursery,
    mutants: &[Mutant],
    by_name: &BTreeMap<&str, &Selftest>,
    tally: &mut Tally,
) -> Result<BTreeSet<String>> {
    let mut good = BTreeSet::new();
    let needed: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.test.as_str()).collect();
    let controls: Vec<Selftest> = needed.iter().map(|name| by_name[name].clone()).collect();
    tally.heading("Without a fault");
    let module = match nursery.build(None)? {
        Ok(module) => module,
        Err(words) => {
            tally.add(Test {
                words,
                ..Test::new(NONE, Outcome::Failed("it can't be built".into()))
            });
            return Ok(good);
        }
    };
    let mut runner = Runner::new("rust_pmem", nursery.folder.join(NONE));
    runner.module = Path::new(GUEST).join(module);
    for group in grouped(controls) {
        for result in runner.group(&group, tally)? {
            if result.outcome == Outcome::Passed {
                good.insert(result.name.clone());
            }
            tally.count(result);
        }
    }
    Ok(good)
}

/// Builds a mutant and runs its test; what became of it, and what a person wants to see if it lives.
fn try_out(
    nursery: &Nursery,
    mutant: &Mutant,
    test: &Selftest,
    tally: &Tally,
    clock: &Clock,
) -> Result<(Fate, Vec<String>)> {
    let module = match nursery.build(Some(mutant)) {
        Ok(Ok(module)) => module,
        Ok(Err(words)) => return Ok((Fate::Unknown("it can't be built".into()), words)),
        Err(error) => return Ok((Fate::Unknown(format!("{error:#}")), Vec::new())),
    };
    let mut runner = Runner::new("rust_pmem", nursery.folder.join(&mutant.name));
    runner.module = Path::new(GUEST).join(module);
    let result = runner.alone(test, tally, clock)?;
    let fate = Fate::of(&result);
    let words = match fate {
        Fate::Killed(_) => Vec::new(),
        _ => result.words,
    };
    Ok((fate, words))
}

fn markdown(rows: &[Row<'_>]) -> String {
    let killed = |row: &&Row<'_>| matches!(row.fate, Fate::Killed(_));
    let mut text = format!(
        "<!-- made by `make mutants` -->\n# Planted faults of rust_pmem, and the selftests that find them\n\n\
         {} faults; {} are found, each by the one selftest that is there for it. Without the fault the test passes.\n\n",
        rows.len(),
        rows.iter().filter(killed).count()
    );
    let mut table = table(["fault", "the driver's", "test", "result", "s"]);
    for row in rows {
        let Mutant {
            name,
            fault,
            file,
            test,
            ..
        } = row.mutant;
        table.add_row([
            format!("{name}: {}", plain(fault)),
            file.display().to_string(),
            test.clone(),
            plain(&row.fate.to_string()),
            row.time.as_secs().to_string(),
        ]);
    }
    let _ = writeln!(text, "{table}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Detail;

    const ENTRY: &str = r#"
[[mutant]]
name = "no-flush"
fault = "Nothing is flushed."
file = "flush.rs"
text = "self.flush()"
becomes = "Ok(())"
test = "flush-fsync"
"#;

    fn parsed(text: &str) -> Result<Vec<Mutant>> {
        let script = Path::new("tests/flush-fsync.sh");
        parse(text, &[Selftest::parse(script, "").unwrap()])
    }

    #[test]
    fn a_fault_is_planted_where_its_text_is_once() {
        let mutant = &parsed(ENTRY).unwrap()[0];
        assert_eq!(mutant.plant("{ self.flush() }").unwrap(), "{ Ok(()) }");
        for (source, times) in [("", "0 times"), ("self.flush() self.flush()", "2 times")] {
            let said = mutant.plant(source).unwrap_err().to_string();
            assert!(said.contains(times), "{said}");
            assert!(said.contains("no-flush: flush.rs"), "{said}");
        }
    }

    #[test]
    fn entries_that_are_refused() {
        let twice = format!("{ENTRY}{ENTRY}");
        for (text, reason) in [
            (twice.as_str(), "two of this name"),
            (&ENTRY.replace("flush-fsync", "flush-fua"), "no test flush-fua"),
            (
                &ENTRY.replace("no-flush", "no/flush"),
                "no name of a mutant",
            ),
            (&ENTRY.replace("Nothing is flushed.", ""), "what is wrong"),
            (&ENTRY.replace("becomes", "instead"), "unknown field"),
            (&ENTRY.replace("no-flush", NONE), "two of this name"),
        ] {
            let said = format!("{:#}", parsed(text).unwrap_err());
            assert!(said.contains(reason), "{said}");
        }
    }

    /// A test of which these parts went so.
    fn ran(outcome: Outcome, parts: &[(&str, Outcome)]) -> Test {
        let details = parts.iter().map(|(name, outcome)| Detail {
            name: (*name).into(),
            outcome: outcome.clone(),
            text: String::new(),
        });
        Test {
            details: details.collect(),
            ..Test::new("flush-fsync", outcome)
        }
    }

    #[test]
    fn killed_is_what_fails_a_check() {
        let failed = || Outcome::Failed("why".into());
        for (result, fate) in [
            (
                ran(
                    failed(),
                    &[("a", Outcome::Passed), ("b", failed()), ("c", failed())],
                ),
                "killed: b (and 1 more)",
            ),
            // With a report of the kernel besides.
            (
                ran(failed(), &[("b", failed()), (WHOLE, failed())]),
                "killed: b",
            ),
            (ran(Outcome::Passed, &[("a", Outcome::Passed)]), "SURVIVED"),
            (
                ran(failed(), &[("a", Outcome::Passed), (WHOLE, failed())]),
                "the test broke, but none of its checks failed: why",
            ),
            (
                ran(failed(), &[]),
                "the test broke, but none of its checks failed: why",
            ),
            (
                ran(Outcome::Skipped("no disk".into()), &[]),
                "the test was skipped: no disk",
            ),
        ] {
            let found = Fate::of(&result);
            assert_eq!(found.to_string(), fate);
            assert_eq!(
                found.outcome() == Outcome::Passed,
                fate.starts_with("killed")
            );
        }
    }
}
