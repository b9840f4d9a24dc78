// SPDX-License-Identifier: GPL-2.0

//! Block devices that serve bios directly, without a request queue.
//!
//! C headers: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h),
//! [`include/linux/bio.h`](srctree/include/linux/bio.h)

mod attribute;
mod bio;
mod bio_list;
mod disk;

pub(crate) use self::{
    attribute::BoolAttribute,
    bio::{
        Bio,
        Data,
        FromBio,
        Segment,
        Segments,
        SimpleBio,
        ToBio,
        Transfer, //
    },
    bio_list::BioList,
    disk::{
        Disk,
        DiskName,
        GenDisk,
        Limits,
        Operations,
        UnregisteredDisk, //
    }, //
};
