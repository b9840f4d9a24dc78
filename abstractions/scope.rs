// SPDX-License-Identifier: GPL-2.0

//! Registrations that end when a device is unbound, even if their handles are leaked.
//!
//! A value that is registered for a bound device may borrow from it. A handle that ends the
//! registration in `Drop` is not enough: safe code can leak it (`mem::forget`, a cycle of
//! references). So the driver core owns a [`Scope`], which has a list of all registrations, and
//! ends those that are left after the driver's data are dropped. A leaked handle leaks memory, and
//! nothing else.

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

/// A value that can be registered in a [`Scope`].
///
/// # Safety
///
/// After [`Self::unregister`] has returned, the value is only used through references to it, and
/// the safe methods that take such a reference stay sound.
pub(crate) unsafe trait Registered: Send + Sync {
    /// Ends the registration, and waits for callbacks that use the value.
    ///
    /// # Safety
    ///
    /// The value is registered. This is called once.
    unsafe fn unregister(&self);
}

/// A registration in the list of its scope, independent of its type.
struct Link {
    /// The registration before this one; null for the first.
    older: *mut Link,
    /// Ends the registration of the node that has the link as its first field.
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

// SAFETY: Links are only followed with the mutex locked that has the first one.
unsafe impl Send for Newest {}

/// The registrations of a bound device. `'bound` ends after the scope is dropped, and is invariant.
///
/// # Invariants
///
/// Each link on the list belongs to a node that is registered, and is not freed while it is on the
/// list.
#[pin_data(PinnedDrop)]
pub(crate) struct Scope<'bound> {
    #[pin]
    newest: Mutex<Newest>,
    _bound: PhantomData<fn(&'bound ()) -> &'bound ()>,
}

impl Scope<'_> {
    /// Creates an empty scope.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            newest <- new_mutex!(Newest(core::ptr::null_mut())),
            _bound: PhantomData,
        })
    }

    /// Adds `link` to the list.
    ///
    /// # Safety
    ///
    /// It belongs to a node that is registered and not on a list. The node is not freed while it is
    /// on the list.
    #[inline(never)]
    unsafe fn put(&self, link: *mut Link) {
        let mut newest = self.newest.lock();

        // SAFETY: `# Safety` requires a valid link that is not on a list, so nobody else accesses
        // it.
        unsafe { (*link).older = newest.0 };
        // INVARIANT: `# Safety` requires a registered node, which is not freed while it is on the
        // list.
        newest.0 = link;
    }

    /// Removes `link` from the list and ends its registration. Returns whether it was on the list.
    #[inline(never)]
    fn end(&self, link: *mut Link) -> bool {
        let mut newest = self.newest.lock();
        let mut place = &raw mut newest.0;

        // SAFETY: By the type invariant the links on the list are valid; the lock is held.
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
        // SAFETY: It was on the list, and so by the type invariant it is registered. Only the
        // caller that has removed it from the list ends it, and frees its node.
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
            // Another thread may drop the handle at this moment, and then ends the registration
            // itself.
            self.end(link);
        }
    }
}

/// A value that is registered until this handle is dropped, or the device is unbound.
///
/// # Invariants
///
/// `node` is valid. It is on the list of `scope`, or `scope` has removed it; then it is never
/// freed.
pub(crate) struct Scoped<'bound, V: Registered> {
    node: NonNull<Node<V>>,
    scope: &'bound Scope<'bound>,
    _value: PhantomData<V>,
}

// SAFETY: `V` is `Send` and `Sync`, and the list of the scope has a lock.
unsafe impl<V: Registered> Send for Scoped<'_, V> {}
// SAFETY: `V` is `Sync`; a shared handle gives access to it alone.
unsafe impl<V: Registered> Sync for Scoped<'_, V> {}

impl<'bound, V: Registered + 'bound> Scoped<'bound, V> {
    /// Moves `value` to the place where it stays, and registers it there with `register`.
    /// [`ENOMEM`], or the error of `register`.
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

        // SAFETY: The link is the first field of the node, which was just registered. Only `drop`
        // frees the node, after it is removed from the list.
        unsafe { scope.put(node.cast()) };
        // INVARIANT: The node is on the list.
        Ok(Self {
            // SAFETY: The pointer of a box is not null.
            node: unsafe { NonNull::new_unchecked(node) },
            scope,
            _value: PhantomData,
        })
    }

    /// # Safety
    ///
    /// `link` belongs to a node of this type that is registered. This is called once.
    unsafe fn unregister(link: *mut Link) {
        // SAFETY: `# Safety` requires the link of a registered node, which is its first field
        // (`repr(C)`).
        unsafe { (*link.cast::<Node<V>>()).value.unregister() };
    }
}

impl<V: Registered> Deref for Scoped<'_, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        // SAFETY: By the type invariant the node is valid.
        unsafe { &self.node.as_ref().value }
    }
}

impl<V: Registered> Drop for Scoped<'_, V> {
    #[cold]
    fn drop(&mut self) {
        // Otherwise the scope ends the registration. References to the value may still be in use,
        // so the memory is leaked.
        if self.scope.end(self.node.as_ptr().cast()) {
            // SAFETY: `new` has made the node from a box. It is not registered any more, so that
            // `Registered` guarantees that nobody uses it but through references, and this handle
            // was the only one.
            unsafe { drop(KBox::from_raw(self.node.as_ptr())) };
        }
    }
}
