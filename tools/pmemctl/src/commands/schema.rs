// SPDX-License-Identifier: GPL-2.0

//! JSON Schemas of the commands' output.
//!
//! tools/pmemctl/schema has a copy, so that a change of the output is seen in a review.

use crate::commands::errors::ErrorList;
use crate::commands::errors::change::ChangeReport;
use crate::commands::list::NamespaceList;
use crate::commands::plan::Plans;
use anyhow::Result;
use pmemctl::badblocks::cxl::ImportReport;
use pmemctl::badblocks::persist::{RestoreReport, SaveReport};
use pmemctl::explain::Explanation;
use pmemctl::json::{Reports, Versioned};
use pmemctl::layout::DiskLayout;
use pmemctl::monitor::EventRecord;
use pmemctl::status::Status;
use pmemctl::swap_driver::SwapReport;
use pmemctl::{doctor, quarantine, repair, scrub};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

/// The schemas by command, with dashes.
fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("status", of::<Versioned<Status>>()),
        ("list", of::<Versioned<NamespaceList<'static>>>()),
        ("errors", of::<Versioned<ErrorList<'static>>>()),
        (
            "errors-save",
            of::<Versioned<Reports<'static, SaveReport>>>(),
        ),
        ("errors-save-follow", of::<Versioned<SaveReport>>()),
        (
            "errors-restore",
            of::<Versioned<Reports<'static, RestoreReport>>>(),
        ),
        (
            "errors-import-cxl",
            of::<Versioned<Reports<'static, ImportReport>>>(),
        ),
        ("errors-import-cxl-follow", of::<Versioned<ImportReport>>()),
        ("errors-inject", of::<Versioned<ChangeReport>>()),
        ("errors-forget", of::<Versioned<ChangeReport>>()),
        ("monitor", of::<Versioned<EventRecord<'static>>>()),
        ("repair", of::<Versioned<repair::Report>>()),
        ("quarantine", of::<Versioned<quarantine::Report>>()),
        ("scrub", of::<Versioned<scrub::Summary>>()),
        ("doctor", of::<Versioned<doctor::Report>>()),
        ("explain", of::<Versioned<Explanation>>()),
        ("plan", of::<Versioned<Plans<'static>>>()),
        ("layout", of::<Versioned<DiskLayout>>()),
        (
            "swap-driver",
            of::<Versioned<Reports<'static, SwapReport>>>(),
        ),
    ]
}

fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}

/// Returns the name of the file of a schema.
pub fn file_name(name: &str) -> String {
    format!("pmemctl-{name}.json")
}

/// Returns the text of each schema.
pub fn texts() -> Result<Vec<(&'static str, String)>> {
    let text = |(name, mut schema): (&'static str, Schema)| {
        let command = match name {
            "errors-save-follow" => "errors save --follow".to_owned(),
            "errors-import-cxl-follow" => "errors import-cxl --follow".to_owned(),
            // The others have a dash of their own.
            _ => name.replacen("errors-", "errors ", 1),
        };
        // That of the type, which programs do not see.
        schema.remove("description");
        schema.insert("title".into(), format!("pmemctl {command} --json").into());
        Ok((name, serde_json::to_string_pretty(&schema)? + "\n"))
    };
    all().into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arguments;
    use clap::{Command, CommandFactory};
    use std::fs;
    use std::path::Path;

    fn folder() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schema"))
    }

    #[test]
    fn reviewed_schemas_are_current() {
        let texts = texts().unwrap();
        for (name, text) in &texts {
            let file = folder().join(file_name(name));
            let reviewed = fs::read_to_string(&file).unwrap_or_default();
            assert!(
                *text == reviewed,
                "the output of {name} has changed: if that is compatible, run \"pmemctl generate build\" and copy \
                 build/schema to {}",
                folder().display()
            );
        }
        assert_eq!(fs::read_dir(folder()).unwrap().count(), texts.len());
    }

    /// Calls a function for each command and its subcommands, with the names of those above.
    fn each(command: &Command, above: &str, see: &mut impl FnMut(&str, &Command)) {
        for inner in command.get_subcommands() {
            let name = format!("{above}{}", inner.get_name());
            see(&name, inner);
            each(inner, &format!("{name}-"), see);
        }
    }

    #[test]
    fn each_command_with_json_has_a_schema() {
        let known: Vec<_> = all().into_iter().map(|(name, _)| name).collect();
        let mut found = Vec::new();
        each(&Arguments::command(), "", &mut |name, command| {
            if command.get_arguments().any(|one| one.get_id() == "json") {
                assert!(known.contains(&name), "{name}");
                found.push(name.to_owned());
            }
        });
        assert_eq!(found.len() + 2, known.len(), "besides the two of --follow");
    }

    #[test]
    fn output_is_an_object_with_a_version() {
        for (name, schema) in all() {
            let schema = schema.to_value();
            let required = schema["required"].as_array();
            assert!(
                required.is_some_and(|names| names.iter().any(|one| one == "version")),
                "{name}"
            );
            assert_eq!(schema["properties"]["version"]["const"], 1, "{name}");
        }
    }
}
