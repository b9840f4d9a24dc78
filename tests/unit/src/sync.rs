// SPDX-License-Identifier: GPL-2.0

//! `kernel::sync`, on threads whose interleaving shuttle chooses.

use crate::prelude::{allocate, Flags, PinInit, Result};
use shuttle::sync as threads;
use std::ops::{Deref, DerefMut};

pub use crate::{new_condvar, new_mutex};

/// Without interrupts and preemption, it is a mutex.
pub use Mutex as SpinLock;

pub type MutexGuard<'a, T> = Guard<'a, T>;

pub mod aref {
    /// A counted reference: here the value, which is counted itself.
    pub struct ARef<T>(pub T);

    impl<T> std::ops::Deref for ARef<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }
}

pub mod atomic {
    use shuttle::sync::atomic::{AtomicU64, Ordering};
    use std::marker::PhantomData;

    pub struct Relaxed;

    pub struct Atomic<T>(AtomicU64, PhantomData<T>);

    impl Atomic<u64> {
        pub const fn new(value: u64) -> Self {
            Self(AtomicU64::new(value), PhantomData)
        }

        pub fn cmpxchg(&self, old: u64, new: u64, _ordering: Relaxed) -> Result<u64, u64> {
            self.0
                .compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed)
        }

        pub fn xchg(&self, new: u64, _ordering: Relaxed) -> u64 {
            self.0.swap(new, Ordering::Relaxed)
        }

        pub fn add(&self, value: u64, _ordering: Relaxed) {
            self.0.fetch_add(value, Ordering::Relaxed);
        }
    }
}

pub struct Arc<T>(pub(crate) std::sync::Arc<T>);

impl<T> Arc<T> {
    pub fn new(value: T, _flags: Flags) -> Result<Self> {
        allocate()?;
        Ok(Self(std::sync::Arc::new(value)))
    }

    pub fn pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Self> {
        Self::new(init.value()?, flags)
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

pub struct Mutex<T>(threads::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(threads::Mutex::new(value))
    }

    pub fn lock(&self) -> Guard<'_, T> {
        Guard(Some(self.0.lock().expect("no thread has panicked")))
    }
}

/// A locked mutex; `None` while a [`CondVar`] has it.
pub struct Guard<'a, T>(Option<threads::MutexGuard<'a, T>>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("locked")
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("locked")
    }
}

#[derive(Default)]
pub struct CondVar(threads::Condvar);

impl CondVar {
    pub fn wait<T>(&self, guard: &mut Guard<'_, T>) {
        let locked = guard.0.take().expect("locked");

        guard.0 = Some(self.0.wait(locked).expect("no thread has panicked"));
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[macro_export]
macro_rules! new_mutex {
    ($value:expr) => {
        $crate::sync::Mutex::new($value)
    };
}

#[macro_export]
macro_rules! new_condvar {
    () => {
        $crate::sync::CondVar::default()
    };
}

#[macro_export]
macro_rules! new_spinlock {
    ($value:expr) => {
        $crate::sync::SpinLock::new($value)
    };
}

/// A value that is set once.
pub struct SetOnce<T>(std::sync::OnceLock<T>);

impl<T> Default for SetOnce<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> SetOnce<T> {
    pub const fn new() -> Self {
        Self(std::sync::OnceLock::new())
    }

    pub fn populate(&self, value: T) -> bool {
        self.0.set(value).is_ok()
    }

    pub fn as_ref(&self) -> Option<&T> {
        self.0.get()
    }
}
