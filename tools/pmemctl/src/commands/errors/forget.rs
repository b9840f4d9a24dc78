// SPDX-License-Identifier: GPL-2.0

//! The command `errors forget`.

use super::change::{Change, change};
use crate::commands::device_spec::StateDir;
use crate::commands::output::root;
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::persist;
use pmemctl::nd::region::Region;

#[derive(Args)]
pub struct Forget {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    place: StateDir,
}

/// Whether there is none now.
pub fn forget(arguments: &Forget) -> Result<bool> {
    let host = root("errors forget")?;
    let folder = &arguments.place.state_dir;
    change(&host, &arguments.change, "cleared", |place| {
        place.clear()?;
        let region = Region::find(&host, place.device.name.region);
        match region {
            Some(region) => persist::update(&region, folder),
            None => Ok(()),
        }
    })
}
