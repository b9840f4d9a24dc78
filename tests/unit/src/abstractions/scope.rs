// SPDX-License-Identifier: GPL-2.0

//! Registrations of a bound device, and the thread that runs its work items.

use super::suspend::SuspendHandler;
use super::work::{Items, Job};
use crate::prelude::GFP_KERNEL;
use crate::sync::{Arc, Mutex};
use std::marker::PhantomData;
use std::ops::Deref;

pub(crate) struct Scope<'bound> {
    pub(super) items: Arc<Items>,
    pub(super) jobs: Mutex<Vec<std::sync::Arc<dyn Job + 'bound>>>,
    pub(super) suspend_handlers: Mutex<Vec<std::sync::Arc<dyn SuspendHandler + 'bound>>>,
}

impl Scope<'_> {
    pub(crate) fn new() -> Self {
        Self {
            items: Arc::new(Items::default(), GFP_KERNEL).expect("there is memory"),
            jobs: Mutex::new(Vec::new()),
            suspend_handlers: Mutex::new(Vec::new()),
        }
    }

    /// Runs work items as they are scheduled, until the scope is closed.
    pub(crate) fn run_works(&self) {
        while let Some(number) = self.items.begin() {
            let job = self.jobs.lock()[number].clone();

            job.run();
            self.items.end(number);
        }
    }

    /// Suspends the system while `f` runs.
    pub(crate) fn suspend(&self, f: impl FnOnce()) {
        let handlers = self.suspend_handlers.lock().clone();

        handlers.iter().for_each(|handler| handler.prepare());
        f();
        handlers.iter().for_each(|handler| handler.resume());
    }

    /// Lets [`Self::run_works`] return.
    pub(crate) fn close(&self) {
        self.items.close();
    }
}

pub(crate) struct Scoped<'bound, V>(V, PhantomData<&'bound ()>);

impl<V> Scoped<'_, V> {
    pub(super) fn new(value: V) -> Self {
        Self(value, PhantomData)
    }
}

impl<V> Deref for Scoped<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0
    }
}
