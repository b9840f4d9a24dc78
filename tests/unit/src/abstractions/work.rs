// SPDX-License-Identifier: GPL-2.0

//! Work items, which a thread of their scope runs.

use super::scope::{Scope, Scoped};
use crate::prelude::{CStr, Result};
use crate::sync::{Arc, CondVar, Mutex};
use std::marker::PhantomData;

pub(crate) trait Job: Send + Sync {
    fn run(&self);
}

pub(crate) enum Queue {
    System,
    Reclaim,
}

impl Queue {
    pub(crate) fn for_reclaim(_name: &CStr) -> Result<Self> {
        Ok(Self::Reclaim)
    }
}

#[derive(Default)]
struct Item {
    queued: bool,
    running: bool,
    disabled: bool,
}

/// The work items of a scope.
pub(super) struct Items {
    /// And whether the scope is closed.
    all: Mutex<(Vec<Item>, bool)>,
    changed: CondVar,
}

impl Default for Items {
    fn default() -> Self {
        Self {
            all: Mutex::new((Vec::new(), false)),
            changed: CondVar::default(),
        }
    }
}

impl Items {
    /// Waits for a work item to run, and returns its number; `None` when the scope is closed.
    pub(super) fn begin(&self) -> Option<usize> {
        let mut all = self.all.lock();

        loop {
            let (items, closed) = &mut *all;

            if let Some(number) = items.iter().position(|item| item.queued) {
                items[number].queued = false;
                items[number].running = true;
                return Some(number);
            }
            if *closed {
                return None;
            }
            self.changed.wait(&mut all);
        }
    }

    pub(super) fn end(&self, number: usize) {
        self.all.lock().0[number].running = false;
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.all.lock().1 = true;
        self.changed.notify_all();
    }

    fn cancel(&self, number: usize, disable: bool) {
        let mut all = self.all.lock();

        all.0[number].queued = false;
        all.0[number].disabled |= disable;
        while all.0[number].running {
            self.changed.wait(&mut all);
        }
    }
}

pub(crate) struct Work<J> {
    items: Arc<Items>,
    number: usize,
    _job: PhantomData<fn(J)>,
}

impl<J: Job> Work<J> {
    pub(crate) fn new<'bound>(
        job: Arc<J>,
        _queue: Queue,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>>
    where
        J: 'bound,
    {
        let mut jobs = scope.jobs.lock();

        jobs.push(job.0);
        scope.items.all.lock().0.push(Item::default());
        Ok(Scoped::new(Self {
            items: scope.items.clone(),
            number: jobs.len() - 1,
            _job: PhantomData,
        }))
    }

    pub(crate) fn schedule(&self) {
        let mut all = self.items.all.lock();
        let item = &mut all.0[self.number];

        item.queued |= !item.disabled;
        self.items.changed.notify_all();
    }

    pub(crate) fn cancel(&self) {
        self.items.cancel(self.number, false);
    }
}

impl<J> Drop for Work<J> {
    fn drop(&mut self) {
        self.items.cancel(self.number, true);
    }
}
