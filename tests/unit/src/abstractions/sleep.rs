// SPDX-License-Identifier: GPL-2.0

//! Sleep of the system, which a scope is told of.

use super::scope::{Scope, Scoped};
use crate::prelude::Result;
use crate::sync::Arc;
use std::marker::PhantomData;

pub(crate) trait Sleeper: Send + Sync {
    fn prepare(&self);
    fn wake(&self);
}

pub(crate) struct Notifier<S>(PhantomData<fn(S)>);

impl<S: Sleeper> Notifier<S> {
    pub(crate) fn new<'bound>(
        sleeper: Arc<S>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>>
    where
        S: 'bound,
    {
        scope.sleepers.lock().push(sleeper.0);
        Ok(Scoped::new(Self(PhantomData)))
    }
}
