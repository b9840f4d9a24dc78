// SPDX-License-Identifier: GPL-2.0

//! Bios that check how they end, and a disk that is not in sysfs.

use super::nd::Region;
use super::sysfs;
use crate::device;
use crate::prelude::{CStr, Result};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) trait Operations {}

pub(crate) struct Disk<T>(PhantomData<T>);

impl<T: Operations> Disk<T> {
    pub(crate) fn sysfs_file(
        &self,
        _dev: &device::Device<device::Core<'_>>,
        _name: &CStr,
    ) -> Option<sysfs::File> {
        None
    }
}

/// A bio that checks its end.
pub(crate) struct Bio<'a> {
    region: &'static Region,
    arrived: u64,
    ended: &'static AtomicU64,
    _submitted: PhantomData<&'a ()>,
}

impl Bio<'_> {
    pub(crate) fn new(region: &'static Region, ended: &'static AtomicU64) -> Self {
        Self {
            region,
            arrived: region.now(),
            ended,
            _submitted: PhantomData,
        }
    }

    pub(crate) fn end(self, result: Result) {
        self.region.check(self.arrived, result);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy)]
pub(crate) struct DiskName;

impl std::fmt::Display for DiskName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("pmem0")
    }
}

#[derive(Default)]
pub(crate) struct BioList(Vec<Bio<'static>>);

impl BioList {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, bio: Bio<'_>) {
        self.0.push(Bio {
            _submitted: PhantomData,
            ..bio
        });
    }

    pub(crate) fn end(self, result: Result) {
        for bio in self.0 {
            bio.end(result);
        }
    }
}
