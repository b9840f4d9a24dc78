// SPDX-License-Identifier: GPL-2.0

//! `kernel::prelude`.

pub use crate::{dev_warn, pin_init};
pub use pinned_init::pin_data;
pub use std::ffi::CStr;

/// An errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error(pub i32);

pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Flags of allocations, which do not fail here.
#[derive(Clone, Copy)]
pub struct Flags;

pub const GFP_KERNEL: Flags = Flags;
pub const ENOMEM: Error = Error(12);

/// A vector with exactly the requested capacity.
#[derive(Debug)]
pub struct KVVec<T> {
    values: Vec<T>,
    capacity: usize,
}

impl<T> KVVec<T> {
    pub const fn new() -> Self {
        Self {
            values: Vec::new(),
            capacity: 0,
        }
    }

    pub fn with_capacity(capacity: usize, _flags: Flags) -> Result<Self> {
        Ok(Self {
            values: Vec::new(),
            capacity,
        })
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        if self.values.len() == self.capacity {
            return Err(value);
        }
        self.values.push(value);
        Ok(())
    }

    pub fn pop(&mut self) -> Option<T> {
        self.values.pop()
    }
}

impl<T> Default for KVVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// An initializer of a value in its place: here the value, which is moved there.
pub trait PinInit<T> {
    fn value(self) -> T;
}

impl<T> PinInit<T> for T {
    fn value(self) -> T {
        self
    }
}

#[macro_export]
macro_rules! pin_init {
    (Self { $($field:ident $(<- $init:expr)?),* $(,)? }) => {
        Self { $($field: $crate::pin_init!(@ $field $($init)?)),* }
    };
    (@ $field:ident) => { $field };
    (@ $field:ident $init:expr) => { $init };
}
