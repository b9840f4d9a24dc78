// SPDX-License-Identifier: GPL-2.0

//! An exact set of sectors, kept as an ordered tree of disjoint ranges.
//!
//! Lookup and removal take `O(log n)`. The caller allocates the nodes for a change before it makes
//! the change ([`Spares`]). So a change happens as a whole or not at all, also with a spinlock
//! held.

#![forbid(unsafe_code)]

use core::ops::Range;
use kernel::{
    alloc::Flags,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    }, //
};

/// The source of the report of an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The bus's badrange list: the platform (ARS), or an earlier binding.
    Log,
    /// A machine check.
    MachineCheck,
    /// An error record of firmware (APEI).
    Firmware,
    /// The kernel's memory-failure recovery, which reports whole pages.
    MemoryFailure,
    /// A user.
    User,
    /// A user, from a list that was saved before.
    Restored,
    /// A user, from the device's own list, which no driver reads (CXL poison).
    Device,
    /// An injected error.
    Injected,
}

impl Origin {
    /// How specific the report is. The higher rank stays if two reports have the same sectors.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Log => 0,
            Self::MemoryFailure => 1,
            Self::User | Self::Restored | Self::Device => 2,
            Self::MachineCheck | Self::Firmware => 3,
            Self::Injected => 4,
        }
    }
}

/// The properties of a range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) origin: Origin,
    /// The bus's badrange list has still to be changed.
    pub(crate) pending: bool,
}

/// A change of tags.
///
/// A `dyn Fn` would do, but its vtable has a second copy of each closure (`call_once`).
pub(crate) trait Retag {
    /// Returns the new tag of `range`.
    fn retag(&self, range: &Range<u64>, tag: Tag) -> Tag;
}

impl<F: Fn(&Range<u64>, Tag) -> Tag> Retag for F {
    fn retag(&self, range: &Range<u64>, tag: Tag) -> Tag {
        self(range, tag)
    }
}

/// A range of a set. Its key in the tree is its end.
struct Node {
    start: u64,
    tag: Tag,
}

/// The number of ranges that are looked at with a spinlock held: I/O waits for it.
const STEPS: u32 = 1024;

/// An unused node of a [`RangeSet`].
type Spare = RBTreeNodeReservation<u64, Node>;

/// Unused nodes for a [`RangeSet`].
pub(crate) struct Spares(KVVec<Spare>);

impl Spares {
    /// Allocates `count` nodes, which is also the capacity. [`ENOMEM`].
    #[inline(never)]
    pub(crate) fn new(count: usize, flags: Flags) -> Result<Self> {
        let mut this = Self(KVVec::with_capacity(count, flags)?);

        this.fill(flags)?;
        Ok(this)
    }

    /// Returns an empty stock, without room.
    pub(crate) const fn none() -> Self {
        Self(KVVec::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Allocates nodes up to the capacity. [`ENOMEM`]; those that were allocated stay.
    #[inline(never)]
    pub(crate) fn fill(&mut self, flags: Flags) -> Result {
        while self.0.len() < self.0.capacity() {
            self.put(Spare::new(flags)?);
        }
        Ok(())
    }

    /// Moves nodes to `to`, up to its capacity, and frees the rest.
    pub(crate) fn give(mut self, to: &mut Self) {
        while let Some(spare) = self.0.pop() {
            to.put(spare);
        }
    }

    /// Takes a node. [`ENOMEM`] if there is none.
    fn take(&mut self) -> Result<Spare> {
        self.0.pop().ok_or(ENOMEM)
    }

    /// Keeps a node for later if there is room, else frees it.
    fn put(&mut self, spare: Spare) {
        let _ = self.0.push_within_capacity(spare);
    }
}

/// A set of sectors, each with a [`Tag`].
///
/// # Invariants
///
/// The ranges of the tree are not empty and do not overlap. `pending` is the number of ranges with
/// a pending tag.
pub(crate) struct RangeSet {
    tree: RBTree<u64, Node>,
    pending: usize,
}

impl RangeSet {
    pub(crate) fn new() -> Self {
        Self {
            tree: RBTree::new(),
            pending: 0,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// Returns whether a range is pending.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending != 0
    }

    /// Returns the first range that ends behind sector `at`.
    #[inline(never)]
    pub(crate) fn next(&self, at: u64) -> Option<(Range<u64>, Tag)> {
        let cursor = self.tree.cursor_lower_bound(&at.checked_add(1)?)?;
        let (end, node) = cursor.current();

        Some((node.start..*end, node.tag))
    }

    /// Returns the first of `sectors` that is in the set.
    #[inline]
    pub(crate) fn first(&self, sectors: &Range<u64>) -> Option<u64> {
        let (found, _) = self.overlap(sectors)?;

        Some(found.start.max(sectors.start))
    }

    /// Advances the start of `sectors` behind the next range, and returns the gap in front of that
    /// range.
    #[inline(never)]
    pub(crate) fn split_gap(&self, sectors: &mut Range<u64>) -> Range<u64> {
        let start = sectors.start;
        let (end, next) = match self.overlap(sectors) {
            Some((found, _)) => (found.start.max(start), found.end.min(sectors.end)),
            None => (sectors.end, sectors.end),
        };

        sectors.start = next;
        start..end
    }

    /// Returns the number of gaps in `sectors`: [`Self::insert`] needs as many spares.
    #[inline(never)]
    pub(crate) fn gaps(&self, sectors: &Range<u64>) -> usize {
        let mut rest = sectors.clone();
        let mut gaps = 0_usize;

        while !rest.is_empty() {
            let gap = self.split_gap(&mut rest);

            gaps = gaps.saturating_add((!gap.is_empty()).into());
        }
        gaps
    }

    /// Adds those of `sectors` that are not in the set yet, with `tag`.
    ///
    /// [`ENOMEM`], and nothing is changed, if there are fewer spares than gaps.
    #[inline(never)]
    pub(crate) fn insert(&mut self, sectors: &Range<u64>, tag: Tag, spares: &mut Spares) -> Result {
        if spares.len() < self.gaps(sectors) {
            return Err(ENOMEM);
        }
        let mut rest = sectors.clone();

        while !rest.is_empty() {
            let gap = self.split_gap(&mut rest);

            if !gap.is_empty() {
                let spare = spares.take()?;

                self.put(gap, tag, spare, spares);
            }
        }
        Ok(())
    }

    /// Adds `sectors`, none of which is in the set, and merges them with neighbours of the same
    /// tag.
    #[inline(never)]
    fn put(&mut self, sectors: Range<u64>, tag: Tag, spare: Spare, spares: &mut Spares) {
        let Range { mut start, end } = sectors;

        if let Some((before, _)) = start
            .checked_sub(1)
            .and_then(|last| self.next(last))
            .filter(|(before, with)| before.end == start && *with == tag)
        {
            start = before.start;
            if let Some(freed) = self.take(before.end) {
                spares.put(freed);
            }
        }
        if let Some(mut cursor) = self.tree.cursor_lower_bound_mut(&end.saturating_add(1)) {
            let (_, after) = cursor.current_mut();

            if after.start == end && after.tag == tag {
                after.start = start;
                spares.put(spare);
                return;
            }
        }
        self.tree.insert(spare.into_node(end, Node { start, tag }));
        self.pending = self.pending.saturating_add(tag.pending.into());
    }

    /// Removes the range that ends at `end`, and returns its node.
    #[inline(never)]
    fn take(&mut self, end: u64) -> Option<Spare> {
        let node = self.tree.find_mut(&end)?;

        self.pending = self.pending.saturating_sub(node.get().tag.pending.into());
        Some(node.remove_node().into_reservation())
    }

    /// Removes `sectors`, and returns whether any was in the set.
    ///
    /// It takes a spare to split a range: [`ENOMEM`], and nothing is changed, if there is none.
    #[inline(never)]
    pub(crate) fn remove(&mut self, sectors: &Range<u64>, spares: &mut Spares) -> Result<bool> {
        let mut removed = false;

        while let Some((found, tag)) = self.overlap(sectors) {
            let ends_inside = found.end <= sectors.end;

            // The part in front needs a node: the range's own, unless the part behind keeps that.
            let front = if found.start >= sectors.start {
                None
            } else if ends_inside {
                self.take(found.end)
            } else {
                Some(spares.take()?)
            };

            if !ends_inside {
                if let Some(node) = self.tree.get_mut(&found.end) {
                    node.start = sectors.end;
                }
            } else if front.is_none() {
                if let Some(freed) = self.take(found.end) {
                    spares.put(freed);
                }
            }
            if let Some(spare) = front {
                self.put(found.start..sectors.start, tag, spare, spares);
            }
            removed = true;
        }
        Ok(removed)
    }

    /// Adds all ranges of `other`, with the nodes that they have there. One that takes more than
    /// these and `spares` is lost.
    #[inline(never)]
    pub(crate) fn append(&mut self, mut other: Self, spares: &mut Spares) {
        while let Some((sectors, tag)) = other.next(0) {
            if let Some(freed) = other.take(sectors.end) {
                spares.put(freed);
            }
            let _ = self.insert(&sectors, tag, spares);
        }
    }

    /// Returns the first range that overlaps `sectors`.
    #[inline]
    fn overlap(&self, sectors: &Range<u64>) -> Option<(Range<u64>, Tag)> {
        self.next(sectors.start)
            .filter(|(found, _)| found.start < sectors.end && !sectors.is_empty())
    }

    /// Changes the tag of each range that overlaps `sectors`.
    #[inline(never)]
    pub(crate) fn retag(&mut self, sectors: &Range<u64>, spares: &mut Spares, change: &dyn Retag) {
        let mut at = sectors.start;

        while let Some((found, tag)) = self.overlap(&(at..sectors.end)) {
            let new = change.retag(&found, tag);

            at = found.end;
            if new != tag {
                if let Some(spare) = self.take(found.end) {
                    self.put(found, new, spare, spares);
                }
            }
        }
    }

    /// Marks each range that overlaps `sectors` as pending.
    #[inline(never)]
    pub(crate) fn set_pending(&mut self, sectors: &Range<u64>, spares: &mut Spares) {
        self.retag(sectors, spares, &|_: &Range<u64>, tag| Tag {
            pending: true,
            ..tag
        });
    }

    /// Returns the first pending range that overlaps `sectors`.
    #[inline(never)]
    pub(crate) fn first_pending(&self, sectors: &Range<u64>) -> Option<Range<u64>> {
        let mut rest = sectors.clone();

        while !rest.is_empty() {
            let found = self.take_pending(&mut rest);

            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Looks at the next [`STEPS`] ranges that overlap `rest`, as callers hold a spinlock, and removes
    /// what it has looked at from `rest`. Returns the first pending one, behind which it does not look.
    #[inline(never)]
    pub(crate) fn take_pending(&self, rest: &mut Range<u64>) -> Option<Range<u64>> {
        if !self.has_pending() {
            rest.start = rest.end;
        }
        for _ in 0..STEPS {
            let Some((found, tag)) = self.overlap(rest) else {
                rest.start = rest.end;
                break;
            };

            rest.start = found.end.min(rest.end);
            if tag.pending {
                return Some(found);
            }
        }
        None
    }
}
