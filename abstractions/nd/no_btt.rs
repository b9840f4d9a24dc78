// SPDX-License-Identifier: GPL-2.0

//! Block translation tables, in place of `btt.rs` where the kernel is built without `CONFIG_BTT`:
//! there are none, and libnvdimm does not look for their info blocks.

use super::{
    namespace::InfoAccess,
    Device,
    Namespace, //
};
use crate::abstractions::{
    badblocks::BadblocksTable,
    scope::{
        Registered,
        Scope,
        Scoped, //
    }, //
};
use core::{
    convert::Infallible,
    marker::PhantomData, //
};
use kernel::{
    device::{
        Core,
        DeviceContext, //
    },
    prelude::*, //
};

impl<Ctx: DeviceContext> Device<Ctx> {
    /// Returns whether this is a btt device: never.
    pub(crate) fn is_btt(&self) -> bool {
        false
    }
}

impl InfoAccess<'_> {
    /// Does not search for the info block of a BTT.
    pub(crate) fn ensure_no_btt(&self) -> Result {
        Ok(())
    }
}

/// A block translation table that serves its namespace: none can.
pub(crate) struct Btt<'bound> {
    never: Infallible,
    _bound: PhantomData<&'bound ()>,
}

impl<'bound> Btt<'bound> {
    /// Fails with [`ENXIO`].
    pub(crate) fn attach(
        _ns: &Namespace<'bound, '_>,
        _scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>> {
        Err(ENXIO)
    }

    /// Returns the bad blocks that the BTT consults.
    pub(crate) fn badblocks(&self) -> &'bound BadblocksTable {
        match self.never {}
    }

    /// Makes the BTT's disk read-only, or writable again, as its region is.
    pub(crate) fn follow_read_only(&self, _dev: &Device<Core<'_>>) {
        match self.never {}
    }

    /// Makes the BTT's disk read-only.
    pub(crate) fn set_read_only(&self, _dev: &Device<Core<'_>>) {
        match self.never {}
    }
}

// SAFETY: There is no value to unregister.
unsafe impl Registered for Btt<'_> {
    unsafe fn unregister(&self) {
        match self.never {}
    }
}
