// SPDX-License-Identifier: GPL-2.0

//! The command `errors forget`.

use super::change::{Change, change};
use crate::commands::device_spec::StateDir;
use crate::commands::output::{reasons, root};
use crate::commands::page::Page;
use anyhow::Result;
use clap::Args;
use pmemctl::badblocks::persist;
use pmemctl::nd::region::Region;

pub const PAGE: Page = Page {
    exit_status: &[
        ("0", "The range is not listed any more."),
        (
            "1",
            "The range cannot be read, or its lists cannot be changed.",
        ),
    ],
    files: &[(
        "/var/lib/pmemctl",
        "The saved lists of errors, one file for each memory.",
    )],
    examples: &[(
        "pmemctl errors forget pmem0 1M 4K",
        "Remove one page from the lists.",
    )],
    see_also: &["pmemctl-repair(1)"],
    ..Page::EMPTY
};

/// Remove repaired errors from the lists
///
/// For errors that were repaired by other means. Verifies that the range can be read, except in sector mode and outside
/// of the disk's data; the data is not changed. Updates the saved list as well, but not the platform's log. Needs
/// rust_pmem.
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
        let Some(region) = Region::find(&host, place.device.name.region) else {
            return place.clear();
        };
        // A disk that has not had the saved list gets it now, not after the range was removed. A failure is one of the second
        // update, too.
        let warnings = persist::update(&region, folder).unwrap_or_default();
        place.clear()?;
        let all = [warnings, persist::update(&region, folder)?].concat();
        reasons(&region.name, &all)
    })
}
