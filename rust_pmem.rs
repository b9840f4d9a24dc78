// SPDX-License-Identifier: GPL-2.0

//! A driver for libnvdimm's namespaces of persistent memory: a block device and a DAX device.
//!
//! ```text
//!  NFIT, e820, virtio-pmem, CXL, ramdax
//!        │ regions, namespaces, btt and pfn devices, badrange list
//!   libnvdimm ──probe──► BoundNamespace ─┬─► Mode::Sector   disk of nd_btt
//!                                        └─► Mode::Mapped   /dev/pmemN and its DAX device
//! ```
//!
//! Data: `write(2)` → bio → [`PmemDisk::submit`](disk::PmemDisk) → the segments of the bio →
//! [`Part::write`](abstractions::memory::Part::write) → memory. [`Flush::now`](flush::Flush::now)
//! makes it durable. A mapped DAX file needs no driver after [`direct_access`](dax) has returned
//! where its page is.
//!
//! Errors: the bus's badrange list, a machine check, or a user →
//! [`Badblocks`](badblocks::Badblocks) → `EIO` for that block, `SIGBUS` for that page → a write
//! that covers it → [`Media::overwrite`](media::Media::overwrite) → repaired. [`badrange`] keeps
//! the badrange list up to date.

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
    memory_errors,
    memremap::orphans,
    nd,
    scope::Scope, //
};
use control::Control;
use kernel::{
    debugfs,
    device::Core,
    driver,
    page::PAGE_SHIFT,
    prelude::*,
    InPlaceModule, //
};
use namespace::BoundNamespace;

struct Pmem;

impl nd::Driver for Pmem {
    type Data<'bound> = BoundNamespace<'bound>;
    type Attribute<'bound> = Control<'bound>;

    fn probe<'bound>(
        dev: &'bound nd::Device<Core<'_>>,
        scope: &'bound Scope<'bound>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        BoundNamespace::probe(dev, scope)
    }

    fn shutdown<'bound>(_dev: &'bound nd::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        this.shut_down();
    }

    fn attribute<'a, 'bound>(this: Pin<&'a Self::Data<'bound>>) -> &'a Self::Attribute<'bound> {
        this.get_ref().control()
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
    _memory_errors: memory_errors::Chains,
    _orphans: orphans::OrphanChecker,
}

impl InPlaceModule for PmemModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // Probing needs these three, and registering the driver probes.
            _orphans: orphans::OrphanChecker::new(module)?,
            _memory_errors <- memory_errors::Chains::new(),
            // `ne` takes both a reference, as Linux 7.2 returns, and a value.
            _inject: module_parameters::inject.value().ne(&0)
                .then(|| debugfs::Dir::new(control::INJECT_DIRECTORY)),
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
