// SPDX-License-Identifier: GPL-2.0

//! The command `errors inject`.

use super::change::{Change, change};
use crate::commands::output::root;
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::inject::Injection;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "The error is listed."),
        ("1", "The error could not be injected."),
    ],
    files: &[(
        "/sys/kernel/debug/rust_pmem",
        "The interface of the driver.",
    )],
    examples: &[
        (
            "pmemctl errors inject pmem0 1M 4K",
            "Make one page unavailable.",
        ),
        (
            "pmemctl errors inject --list-only pmem0 0 512",
            "Only list a sector.",
        ),
    ],
    see_also: &["ndctl-inject-error(1)"],
    ..Page::EMPTY
};

/// Inject an error for testing
///
/// Needs rust_pmem with inject=1, except with --list-only. The memory becomes unavailable as after a machine check, but is
/// not damaged: "pmemctl errors forget", or a write of the whole pages, makes it available again.
#[derive(Args)]
pub struct Inject {
    #[command(flatten)]
    change: Change,
    /// Only list the error, in sectors instead of pages, and leave the memory as it is
    #[arg(long)]
    list_only: bool,
}

/// Whether there is an error now.
pub fn inject(arguments: &Inject) -> Result<bool> {
    let host = root("errors inject")?;
    let how = match arguments.list_only {
        true => Injection::List,
        false => Injection::Poison,
    };
    change(&host, &arguments.change, "injected", |place| {
        place.inject(&host, how)
    })
}
