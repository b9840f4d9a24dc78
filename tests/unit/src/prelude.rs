// SPDX-License-Identifier: GPL-2.0

//! `kernel::prelude`.

pub use crate::abstractions::kbox::KBox;
pub use crate::{dev_warn, dev_warn as dev_err, pin_init, try_pin_init};
pub use pinned_init::{pin_data, pinned_drop};
pub use std::ffi::{c_int, CStr};
pub use std::pin::Pin;

use shuttle::rand::{thread_rng, Rng};
use std::cell::Cell;
use std::convert::Infallible;
use std::num::TryFromIntError;

/// An errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error(pub i32);

impl From<TryFromIntError> for Error {
    fn from(_: TryFromIntError) -> Self {
        Self(22)
    }
}

pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Flags of allocations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(u8);

pub const GFP_KERNEL: Flags = Flags(0);
pub const GFP_ATOMIC: Flags = Flags(1);

pub const ENOENT: Error = Error(2);
pub const EIO: Error = Error(5);
pub const EAGAIN: Error = Error(11);
pub const ENOMEM: Error = Error(12);

thread_local! {
    /// Of how many allocations one fails; 0 if none does. All threads of shuttle are one thread here.
    static FAULTS: Cell<u32> = const { Cell::new(0) };
}

/// Lets one of so many allocations fail from now on, or none.
pub fn fail_one_in(number: u32) {
    FAULTS.set(number);
}

/// Succeeds if an allocation does.
pub fn allocate() -> Result {
    match FAULTS.get() {
        0 => Ok(()),
        number => match thread_rng().gen_range(0..number) {
            0 => Err(ENOMEM),
            _ => Ok(()),
        },
    }
}

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
        if capacity > 0 {
            allocate()?;
        }
        Ok(Self {
            values: Vec::new(),
            capacity,
        })
    }

    pub fn from_elem(value: T, len: usize, flags: Flags) -> Result<Self>
    where
        T: Clone,
    {
        Ok(Self {
            values: vec![value; len],
            ..Self::with_capacity(len, flags)?
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

impl<'a, T> IntoIterator for &'a KVVec<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.iter()
    }
}

impl<T> std::ops::Deref for KVVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

/// An initializer of a value in its place: here the value, which is moved there, or a result with it.
pub trait PinInit<T, E = Infallible> {
    fn value(self) -> Result<T>;
}

impl<T> PinInit<T> for T {
    fn value(self) -> Result<T> {
        Ok(self)
    }
}

impl<T> PinInit<T, Error> for Result<T> {
    fn value(self) -> Self {
        self
    }
}

#[macro_export]
macro_rules! pin_init {
    (Self { $($fields:tt)* }) => {
        $crate::try_pin_init!(@ { } $($fields)*)
    };
}

#[macro_export]
macro_rules! try_pin_init {
    (Self { $($fields:tt)* }? Error) => {
        (move || -> $crate::prelude::Result<Self> { Ok($crate::try_pin_init!(@ { } $($fields)*)) })()
    };
    (@ { $($done:tt)* } $field:ident: $value:expr, $($rest:tt)*) => {
        $crate::try_pin_init!(@ { $($done)* $field: $value, } $($rest)*)
    };
    (@ { $($done:tt)* } $field:ident <- $init:expr, $($rest:tt)*) => {
        $crate::try_pin_init!(@ { $($done)* $field: $init, } $($rest)*)
    };
    (@ { $($done:tt)* } $field:ident, $($rest:tt)*) => {
        $crate::try_pin_init!(@ { $($done)* $field, } $($rest)*)
    };
    (@ { $($done:tt)* }) => {
        Self { $($done)* }
    };
}
