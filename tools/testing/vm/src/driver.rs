// SPDX-License-Identifier: GPL-2.0

//! The drivers that tests compare.

/// A driver of persistent memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Driver {
    /// The one of this checkout.
    #[value(name = "rust_pmem")]
    Rust,
    /// The kernel's own.
    #[value(name = "nd_pmem")]
    C,
}

impl Driver {
    /// Returns the name of its module.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust_pmem",
            Self::C => "nd_pmem",
        }
    }
}
