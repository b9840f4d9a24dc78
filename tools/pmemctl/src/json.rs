// SPDX-License-Identifier: GPL-2.0

//! The forms of JSON output.

use schemars::JsonSchema;
use serde::Serialize;

/// Members may be added to objects without a new version.
const VERSION: u32 = 1;

/// An object with the version of the output.
#[derive(JsonSchema, Serialize)]
pub struct Versioned<T> {
    /// Always 1. An incompatible output would have another option than `--json`.
    #[schemars(extend("const" = VERSION))]
    version: u32,
    #[serde(flatten)]
    value: T,
}

impl<T> Versioned<T> {
    pub fn new(value: T) -> Self {
        Self {
            version: VERSION,
            value,
        }
    }
}

/// The results of a command that does the same to several devices.
#[derive(JsonSchema, Serialize)]
pub struct Reports<'a, T> {
    /// In the order of the devices, each once.
    pub reports: &'a [T],
}
