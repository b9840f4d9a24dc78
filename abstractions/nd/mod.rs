// SPDX-License-Identifier: GPL-2.0

//! The `nd` bus of libnvdimm: its driver interface, its devices, and the regions they belong to.
//!
//! C headers: [`include/linux/nd.h`](srctree/include/linux/nd.h),
//! [`include/linux/libnvdimm.h`](srctree/include/linux/libnvdimm.h),
//! [`drivers/nvdimm/nd.h`](srctree/drivers/nvdimm/nd.h)

#[cfg(CONFIG_BTT)]
mod btt;
#[cfg(not(CONFIG_BTT))]
#[path = "no_btt.rs"]
mod btt;
mod bus;
mod device;
mod driver;
mod namespace;
mod region;

pub(crate) use self::{
    btt::Btt,
    bus::BusToChange,
    device::Device,
    driver::{
        Adapter,
        BinAttribute,
        Driver,
        Event, //
    },
    namespace::{
        InfoAccess,
        Namespace, //
    },
    region::Region, //
};
