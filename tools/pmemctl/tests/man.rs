// SPDX-License-Identifier: GPL-2.0

//! The man pages and completions are made, and tell of each command and of each of its options.

use std::fs;
use std::path::Path;
use std::process::Command;

fn pmemctl(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pmemctl"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All commands, as `--help` lists them in groups: `list`, `errors`, `errors save`.
fn commands() -> Vec<Vec<String>> {
    let help = pmemctl(&["--help"]);
    let list = help.split("\nOptions:\n").next().unwrap();
    list.lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.trim_start().split("  ").next().unwrap())
        .map(|name| name.split(' ').map(str::to_owned).collect())
        .collect()
}

/// The subcommands of a command, as its own help lists them.
fn subcommands(command: &str) -> Vec<Vec<String>> {
    let help = pmemctl(&[command, "-h"]);
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .map(|name| vec![command.to_owned(), name])
        .collect()
}

/// The long options that a command's help has.
fn options(command: &[String]) -> Vec<String> {
    let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
    arguments.push("-h");
    pmemctl(&arguments)
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.trim_end_matches([',', ']', '.', ';']).to_owned())
        .filter(|word| word.len() > 2)
        .collect()
}

/// What a program that looks for faults in a page says of it; `None` where there is no such program.
fn lint(page: &Path) -> Option<String> {
    let programs: [(&str, &[&str]); 3] = [
        ("mandoc", &["-Tlint", "-Wwarning"]),
        ("groff", &["-Kutf8", "-man", "-ww", "-z", "-Tutf8"]),
        ("man", &["--warnings", "--local-file", "-Tutf8"]),
    ];
    programs.iter().find_map(|(program, arguments)| {
        let output = Command::new(program)
            .args(*arguments)
            .arg(page)
            .output()
            .ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        // What man prints besides is the page.
        let faults = |line: &&str| {
            line.contains("warning") || line.contains("WARNING") || line.contains("ERROR")
        };
        Some(text.lines().filter(faults).collect())
    })
}

#[test]
fn help_lists_each_subcommand() {
    let names = commands();
    let inner = subcommands("errors");
    assert_eq!(inner.len(), 5, "{inner:?}");
    for name in inner {
        assert!(names.contains(&name), "{name:?}");
    }
    for line in pmemctl(&["--help"])
        .lines()
        .filter(|line| line.starts_with("  "))
    {
        assert!(line.len() <= 80, "{line}");
    }
}

#[test]
fn each_command_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    pmemctl(&["generate", folder.path().to_str().unwrap()]);
    let man = folder.path().join("man");
    let main = fs::read_to_string(man.join("pmemctl.1")).unwrap();
    let names = commands();
    assert!(names.len() > 5, "{names:?}");
    assert!(names.contains(&["errors".to_owned(), "save".to_owned()].to_vec()));
    for command in &names {
        let name = command.join("-");
        let path = man.join(format!("pmemctl-{name}.1"));
        let page =
            fs::read_to_string(&path).unwrap_or_else(|_| panic!("there is no page of {name}"));
        let plain = page.replace('\\', "");
        let above = match command.split_last() {
            Some((_, [])) | None => main.clone(),
            Some((_, above)) => {
                let path = man.join(format!("pmemctl-{}.1", above.join("-")));
                fs::read_to_string(path).unwrap()
            }
        };
        assert!(
            above
                .replace('\\', "")
                .contains(&format!("pmemctl-{name}(1)")),
            "{name}"
        );
        for option in options(command) {
            assert!(plain.contains(&option), "{name} {option}");
        }
        for section in [
            "SYNOPSIS",
            "DESCRIPTION",
            "EXIT STATUS",
            "EXAMPLES",
            "SEE ALSO",
        ] {
            assert!(
                page.contains(&format!(".SH {section}\n"))
                    || page.contains(&format!(".SH \"{section}\"\n")),
                "{name} {section}"
            );
        }
        if let Some(faults) = lint(&path) {
            assert_eq!(faults, "", "{name}");
        }
    }
    assert_eq!(
        fs::read_dir(&man).unwrap().count(),
        names.len() + 1,
        "a page of no command"
    );
}

#[test]
fn shells_complete_each_command() {
    let folder = tempfile::tempdir().unwrap();
    pmemctl(&["generate", folder.path().to_str().unwrap()]);
    for file in ["pmemctl.bash", "_pmemctl", "pmemctl.fish"] {
        let text = fs::read_to_string(folder.path().join("completions").join(file)).unwrap();
        for command in commands() {
            assert!(text.contains(command.last().unwrap()), "{file} {command:?}");
            for option in options(&command) {
                assert!(
                    text.contains(option.trim_start_matches("--")),
                    "{file} {command:?} {option}"
                );
            }
        }
        assert!(!text.contains("generate"), "{file} has the hidden command");
    }
}
