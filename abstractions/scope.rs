// SPDX-License-Identifier: GPL-2.0

//! Registrations that end when a device is unbound, whatever becomes of their handles.
//!
//! What is registered for a bound device may borrow from it. A handle that ends the registration in
//! `Drop` is not enough: safe code may leak it (`mem::forget`, a cycle of references). So a
//! [`Scope`], which the driver core owns, knows all registrations and ends those that are left when
//! the driver's data are gone. A leaked handle leaks memory, and nothing else.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::{
        new_mutex,
        Mutex, //
    }, //
};

/// What can be registered in a [`Scope`].
///
/// # Safety
///
/// When [`Self::unregister`] has returned, nobody uses the value but by references to it, and all
/// that can be done safely with such a reference stays sound.
pub(crate) unsafe trait Registered: Send + Sync {
    /// Ends the registration, and waits for those who use the value because of it.
    ///
    /// # Safety
    ///
    /// The value is registered. To be called once.
    unsafe fn unregister(&self);
}

/// What the scope knows of a registration.
struct Link {
    /// The one made before; null for the first.
    older: *mut Link,
    /// Ends the registration of the node that the link is the first field of.
    unregister: unsafe fn(*mut Link),
}

/// A registered value.
#[repr(C)]
struct Node<V: Registered> {
    link: UnsafeCell<Link>,
    value: V,
}

/// The link of the newest registration; null if there is none.
struct Newest(*mut Link);

// SAFETY: The links are only followed with the lock held that has the first one.
unsafe impl Send for Newest {}

/// The registrations of a bound device: `'bound` ends after it is dropped, and can't be shortened.
///
/// # Invariants
///
/// The links are those of nodes that are registered, and not freed before they are off the list.
#[pin_data(PinnedDrop)]
pub(crate) struct Scope<'bound> {
    #[pin]
    newest: Mutex<Newest>,
    _bound: PhantomData<fn(&'bound ()) -> &'bound ()>,
}

impl Scope<'_> {
    /// An empty scope.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            newest <- new_mutex!(Newest(core::ptr::null_mut())),
            _bound: PhantomData,
        })
    }

    /// Puts `link` on the list.
    ///
    /// # Safety
    ///
    /// It is that of a node that is registered, not yet on a list, and not freed before it is off it.
    #[inline(never)]
    unsafe fn put(&self, link: *mut Link) {
        let mut newest = self.newest.lock();

        // SAFETY: The link is valid, and not yet known to anybody else.
        unsafe { (*link).older = newest.0 };
        // INVARIANT: As the safety requirements say.
        newest.0 = link;
    }

    /// Takes `link` off the list and ends its registration, if it is on the list.
    #[inline(never)]
    fn end(&self, link: *mut Link) -> bool {
        let mut newest = self.newest.lock();
        let mut place = &raw mut newest.0;

        // SAFETY: By the type invariant the links on the list are valid, and the lock is held.
        unsafe {
            while *place != link && !(*place).is_null() {
                place = &raw mut (**place).older;
            }
            if (*place).is_null() {
                return false;
            }
            *place = (*link).older;
        }
        drop(newest);
        // SAFETY: By the type invariant it is registered. It is off the list, so that nobody else ends
        // it; its node is freed only by who has ended it.
        unsafe { ((*link).unregister)(link) };
        true
    }
}

#[pinned_drop]
impl PinnedDrop for Scope<'_> {
    fn drop(self: Pin<&mut Self>) {
        loop {
            let link = self.newest.lock().0;

            if link.is_null() {
                return;
            }
            // Unless a handle is dropped in another thread at this moment, which ends it then.
            self.end(link);
        }
    }
}

/// A value that is registered until this is dropped, or the device is unbound.
///
/// # Invariants
///
/// `node` is a node that is on the list of `scope`, or that `scope` has taken off; then its memory is
/// never freed.
pub(crate) struct Scoped<'bound, V: Registered> {
    node: NonNull<Node<V>>,
    scope: &'bound Scope<'bound>,
    _value: PhantomData<V>,
}

// SAFETY: A registered value may be used, unregistered and dropped by any thread.
unsafe impl<V: Registered> Send for Scoped<'_, V> {}
// SAFETY: As above.
unsafe impl<V: Registered> Sync for Scoped<'_, V> {}

impl<'bound, V: Registered + 'bound> Scoped<'bound, V> {
    /// Has `register` register `value`, at the place where it stays until it is dropped. [`ENOMEM`], or
    /// what `register` fails with.
    pub(super) fn new(
        scope: &'bound Scope<'bound>,
        value: V,
        register: impl FnOnce(&V) -> Result,
    ) -> Result<Self> {
        let node = Node {
            link: UnsafeCell::new(Link {
                older: core::ptr::null_mut(),
                unregister: Self::unregister,
            }),
            value,
        };
        let node = KBox::new(node, GFP_KERNEL)?;

        register(&node.value)?;
        let node = KBox::into_raw(node);

        // SAFETY: The link is the first field of the node, which was just registered, and is freed only
        // by `drop`, when it is off the list.
        unsafe { scope.put(node.cast()) };
        // INVARIANT: The node is on the list.
        Ok(Self {
            // SAFETY: A box is not null.
            node: unsafe { NonNull::new_unchecked(node) },
            scope,
            _value: PhantomData,
        })
    }

    /// # Safety
    ///
    /// `link` is that of a node of this type that is registered. To be called once.
    unsafe fn unregister(link: *mut Link) {
        // SAFETY: The link is the first field of a `repr(C)` node, which is registered.
        unsafe { (*link.cast::<Node<V>>()).value.unregister() };
    }
}

impl<V: Registered> Deref for Scoped<'_, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        // SAFETY: By the type invariant the node is there.
        unsafe { &self.node.as_ref().value }
    }
}

impl<V: Registered> Drop for Scoped<'_, V> {
    #[cold]
    fn drop(&mut self) {
        // Otherwise the scope is ending the registration, and who has references to the value may use
        // them: its memory is left alone.
        if self.scope.end(self.node.as_ptr().cast()) {
            // SAFETY: The node comes from a box in `new`. It is registered no more, so that by the
            // safety requirements of `Registered` this is the last reference to it.
            unsafe { drop(KBox::from_raw(self.node.as_ptr())) };
        }
    }
}
