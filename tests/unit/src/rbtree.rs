// SPDX-License-Identifier: GPL-2.0

//! `kernel::rbtree`, as a `BTreeMap`.

use crate::prelude::{allocate, Flags, Result};
use std::collections::BTreeMap;
use std::marker::PhantomData;

pub struct RBTree<K, V>(BTreeMap<K, V>);

/// An allocated node without contents.
pub struct RBTreeNodeReservation<K, V>(PhantomData<(K, V)>);

/// A node that is not in a tree.
pub struct RBTreeNode<K, V>(K, V);

/// A place in a tree.
pub struct Cursor<'a, K, V>(&'a K, &'a V);

/// A place in a tree that can be changed.
pub struct CursorMut<'a, K, V>(&'a K, &'a mut V);

/// A node that was found.
pub struct OccupiedEntry<'a, K, V> {
    tree: &'a mut BTreeMap<K, V>,
    key: K,
}

impl<K, V> RBTreeNodeReservation<K, V> {
    pub fn new(_flags: Flags) -> Result<Self> {
        allocate()?;
        Ok(Self(PhantomData))
    }

    pub fn into_node(self, key: K, value: V) -> RBTreeNode<K, V> {
        RBTreeNode(key, value)
    }
}

impl<K, V> RBTreeNode<K, V> {
    pub fn into_reservation(self) -> RBTreeNodeReservation<K, V> {
        RBTreeNodeReservation(PhantomData)
    }
}

impl<K: Ord + Copy, V> RBTree<K, V> {
    pub fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn cursor_lower_bound(&self, key: &K) -> Option<Cursor<'_, K, V>> {
        let (key, value) = self.0.range(key..).next()?;
        Some(Cursor(key, value))
    }

    pub fn cursor_lower_bound_mut(&mut self, key: &K) -> Option<CursorMut<'_, K, V>> {
        let (key, value) = self.0.range_mut(key..).next()?;
        Some(CursorMut(key, value))
    }

    pub fn insert(&mut self, RBTreeNode(key, value): RBTreeNode<K, V>) {
        let replaced = self.0.insert(key, value);
        assert!(replaced.is_none(), "two ranges have the same end");
    }

    pub fn find_mut(&mut self, key: &K) -> Option<OccupiedEntry<'_, K, V>> {
        self.0.contains_key(key).then_some(OccupiedEntry {
            tree: &mut self.0,
            key: *key,
        })
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }
}

impl<K: Ord + Copy, V> Default for RBTree<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Cursor<'_, K, V> {
    pub fn current(&self) -> (&K, &V) {
        (self.0, self.1)
    }
}

impl<K, V> CursorMut<'_, K, V> {
    pub fn current_mut(&mut self) -> (&K, &mut V) {
        (self.0, self.1)
    }
}

impl<K: Ord, V> OccupiedEntry<'_, K, V> {
    pub fn get(&self) -> &V {
        self.tree.get(&self.key).expect("it was found")
    }

    pub fn remove_node(self) -> RBTreeNode<K, V> {
        let value = self.tree.remove(&self.key).expect("it was found");
        RBTreeNode(self.key, value)
    }
}
