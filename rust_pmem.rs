// SPDX-License-Identifier: GPL-2.0

//! Persistent memory as a disk and as memory: a driver for the namespaces of libnvdimm.
//!
//! ```text
//!  NFIT, e820, virtio-pmem, CXL, ramdax
//!        │ regions, namespaces, personalities, the log of errors
//!   libnvdimm ──probe──► Personality ─┬─► Sector     nd_btt's disk
//!                                     └─► Attached   /dev/pmemN and its DAX device
//! ```
//!
//! A byte travels: `write(2)` → bio → [`PmemDisk::submit`](disk::PmemDisk) → its segments →
//! [`Part::write`](abstractions::memory::Part::write) → memory; and is durable after
//! [`Flush::now`](flush::Flush::now). In a DAX file it needs no driver at all, once
//! [`direct_access`](dax) has said where the page is.
//!
//! An error travels: the bus's badrange list, a machine check, or a user →
//! [`Badblocks`](badblocks::Badblocks) → `EIO` on that block alone, `SIGBUS` on that page alone → a
//! write that covers it → [`Media::overwrite`](media::Media::overwrite) → no longer bad; and the bus
//! is told of both ([`badrange`]).

#![deny(unsafe_code)]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "a driver has no public items: its documentation is read with the private ones"
)]

mod abstractions;
mod badblocks;
mod badrange;
mod control;
mod dax;
mod disk;
mod flush;
mod media;
mod namespace;
mod ranges;
mod repair;
mod units;

use abstractions::{
    mce,
    nd,
    orphans,
    scope::Scope,
    sysfs::Window, //
};
use kernel::{
    debugfs,
    device::Core,
    driver,
    page::PAGE_SHIFT,
    prelude::*,
    InPlaceModule, //
};
use namespace::Personality;

/// The driver of namespaces of persistent memory.
struct Pmem;

impl nd::Driver for Pmem {
    type Data<'bound> = Personality<'bound>;

    fn probe<'bound>(
        dev: &'bound nd::Device<Core<'_>>,
        scope: &'bound Scope<'bound>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Personality::probe(dev, scope)
    }

    fn shutdown<'bound>(_dev: &'bound nd::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.shut_down();
    }

    fn list_errors(this: Pin<&Self::Data<'_>>, to: &mut Window<'_>) {
        this.list_errors(to);
    }

    fn command(this: Pin<&Self::Data<'_>>, command: &[u8], inject: bool) -> Result {
        this.command(command, inject)
    }

    fn notify<'bound>(
        dev: &'bound nd::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
        event: nd::Event,
    ) {
        this.notify(dev, event);
    }
}

/// Fields are dropped from the top.
#[pin_data]
struct PmemModule {
    #[pin]
    _driver: driver::Registration<nd::Adapter<Pmem>>,
    _inject: Option<debugfs::Dir>,
    #[pin]
    _machine_checks: mce::Chain,
    _orphans: orphans::Watched,
}

impl InPlaceModule for PmemModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // First, as devices that are bound need all three.
            _orphans: orphans::Watched::new(module)?,
            _machine_checks <- mce::Chain::new(),
            _inject: (*module_parameters::inject.value() != 0)
                .then(|| debugfs::Dir::new(<Self as kernel::ModuleMetadata>::NAME)),
            _driver <- driver::Registration::new(
                <Self as kernel::ModuleMetadata>::NAME,
                module,
            ),
        })
    }
}

module! {
    type: PmemModule,
    name: "rust_pmem",
    authors: ["The rust_pmem authors"],
    description: "Persistent memory block and DAX driver",
    license: "GPL",
    // `nd:t4` and `nd:t5`: namespaces without and with a label.
    alias: ["pmem", "nd:t4*", "nd:t5*"],
    params: {
        inject: u8 {
            default: 0,
            description: "1: files in debugfs that poison memory, for tests",
        },
    },
}
