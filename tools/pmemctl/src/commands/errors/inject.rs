// SPDX-License-Identifier: GPL-2.0

//! The command `errors inject`.

use super::change::{Change, change};
use crate::commands::output::root;
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::inject::Injection;

#[derive(Args)]
pub struct Inject {
    #[command(flatten)]
    change: Change,
    /// Only list it, and leave the memory as it is; sectors instead of pages
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
