// SPDX-License-Identifier: GPL-2.0

//! System suspend, of which a scope is notified.

use super::scope::{Scope, Scoped};
use crate::prelude::Result;
use crate::sync::Arc;
use std::marker::PhantomData;

pub(crate) trait SuspendHandler: Send + Sync {
    fn prepare(&self);
    fn resume(&self);
}

pub(crate) struct PmNotifier<H>(PhantomData<fn(H)>);

impl<H: SuspendHandler> PmNotifier<H> {
    pub(crate) fn new<'bound>(
        handler: Arc<H>,
        scope: &'bound Scope<'bound>,
    ) -> Result<Scoped<'bound, Self>>
    where
        H: 'bound,
    {
        scope.suspend_handlers.lock().push(handler.0);
        Ok(Scoped::new(Self(PhantomData)))
    }
}
