// SPDX-License-Identifier: GPL-2.0

//! The set of bad sectors, compared with an array of sectors.

use crate::prelude::GFP_KERNEL;
use crate::ranges::{Origin, RangeSet, Spares, Tag};
use proptest::prelude::*;
use std::fmt;
use std::ops::Range;

const SECTORS: u64 = 40;

/// The tag of each sector that is in the set.
type Model = [Option<Tag>; SECTORS as usize];

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.rank())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, pending: {}", self.origin, self.pending)
    }
}

#[derive(Debug, Clone)]
enum Change {
    Insert(Range<u64>, Tag, usize),
    Remove(Range<u64>, usize),
    SetPending(Range<u64>),
    /// Pending tags are no longer pending, as after a change of the badrange list.
    Done(Range<u64>),
}

fn tag() -> impl Strategy<Value = Tag> {
    (
        prop_oneof![Just(Origin::Log), Just(Origin::User)],
        any::<bool>(),
    )
        .prop_map(|(origin, pending)| Tag { origin, pending })
}

/// Any range, also an empty one.
fn sectors() -> impl Strategy<Value = Range<u64>> {
    (0..SECTORS, 0..SECTORS / 2).prop_map(|(start, len)| start..(start + len).min(SECTORS))
}

fn change() -> impl Strategy<Value = Change> {
    let spares = || prop_oneof![4 => Just(SECTORS as usize), 1 => 0..3_usize];

    prop_oneof![
        4 => (sectors(), tag(), spares()).prop_map(|(sectors, tag, spares)| Change::Insert(sectors, tag, spares)),
        3 => (sectors(), spares()).prop_map(|(sectors, spares)| Change::Remove(sectors, spares)),
        1 => sectors().prop_map(Change::SetPending),
        1 => sectors().prop_map(Change::Done),
    ]
}

/// The maximal runs of sectors with the same tag.
fn runs(model: &Model) -> Vec<(Range<u64>, Tag)> {
    let mut runs: Vec<(Range<u64>, Tag)> = Vec::new();

    for (sector, tag) in (0..).zip(model) {
        let Some(tag) = *tag else { continue };

        match runs.last_mut() {
            Some((run, same)) if run.end == sector && *same == tag => run.end += 1,
            _ => runs.push((sector..sector + 1, tag)),
        }
    }
    runs
}

fn ranges(set: &RangeSet) -> Vec<(Range<u64>, Tag)> {
    let mut ranges = Vec::new();
    let mut at = 0;

    while let Some((range, tag)) = set.next(at) {
        at = range.end;
        ranges.push((range, tag));
    }
    ranges
}

fn slice<'a>(model: &'a mut Model, sectors: &Range<u64>) -> &'a mut [Option<Tag>] {
    &mut model[sectors.start as usize..sectors.end as usize]
}

fn spares(count: usize) -> Spares {
    Spares::new(count, GFP_KERNEL).expect("there is memory")
}

/// Makes the change in the set and in the model. The set decides whether there are nodes enough.
fn make(change: &Change, set: &mut RangeSet, model: &mut Model) {
    match change {
        Change::Insert(sectors, tag, count) => {
            if set.insert(sectors, *tag, &mut spares(*count)).is_ok() {
                for sector in slice(model, sectors) {
                    sector.get_or_insert(*tag);
                }
            } else {
                assert!(*count < SECTORS as usize, "there were nodes enough");
            }
        }
        Change::Remove(sectors, count) => {
            let there = slice(model, sectors).iter().any(Option::is_some);

            match set.remove(sectors, &mut spares(*count)) {
                Ok(removed) => {
                    assert_eq!(removed, there);
                    slice(model, sectors).fill(None);
                }
                Err(_) => assert_eq!(*count, 0, "a node is enough to split a range"),
            }
        }
        Change::SetPending(sectors) => {
            set.set_pending(sectors, &mut spares(0));
            retag(model, sectors, true);
        }
        Change::Done(sectors) => {
            set.retag(sectors, &mut spares(0), &|_: &Range<u64>, tag| Tag {
                pending: false,
                ..tag
            });
            retag(model, sectors, false);
        }
    }
}

/// Changes all of each run that overlaps the sectors.
fn retag(model: &mut Model, sectors: &Range<u64>, pending: bool) {
    for (run, _) in runs(model) {
        if run.start < sectors.end && sectors.start < run.end && !sectors.is_empty() {
            for sector in slice(model, &run).iter_mut().flatten() {
                sector.pending = pending;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn set_has_the_sectors_of_the_array(changes in prop::collection::vec(change(), 1..40)) {
        let mut set = RangeSet::new();
        let mut model: Model = [None; SECTORS as usize];

        for change in &changes {
            make(change, &mut set, &mut model);
            prop_assert_eq!(ranges(&set), runs(&model), "after {:?}", change);
            prop_assert_eq!(set.is_empty(), model.iter().all(Option::is_none));
            prop_assert_eq!(
                set.has_pending(),
                model.iter().flatten().any(|tag| tag.pending)
            );
        }
    }

    #[test]
    fn queries_agree_with_the_array(
        changes in prop::collection::vec(change(), 1..20),
        asked in sectors(),
    ) {
        let mut set = RangeSet::new();
        let mut model: Model = [None; SECTORS as usize];

        for change in &changes {
            make(change, &mut set, &mut model);
        }
        let first = asked.clone().find(|sector| model[*sector as usize].is_some());
        prop_assert_eq!(set.first(&asked), first);

        let overlaps = |run: &Range<u64>| run.start < asked.end && asked.start < run.end && !asked.is_empty();
        let pending = runs(&model).into_iter().find(|(run, tag)| tag.pending && overlaps(run));
        prop_assert_eq!(set.first_pending(&asked), pending.map(|(run, _)| run));
        let all: Vec<_> = runs(&model).into_iter().filter(|(run, tag)| tag.pending && overlaps(run)).collect();
        let mut rest = asked.clone();
        let mut taken = Vec::new();
        while !rest.is_empty() {
            taken.extend(set.take_pending(&mut rest));
        }
        prop_assert_eq!(taken, all.into_iter().map(|(run, _)| run).collect::<Vec<_>>());

        let mut rest = asked.clone();
        let mut gaps = Vec::new();
        while !rest.is_empty() {
            gaps.push(set.split_gap(&mut rest));
        }
        let missing: Vec<u64> = asked.clone().filter(|sector| model[*sector as usize].is_none()).collect();
        prop_assert_eq!(gaps.iter().cloned().flatten().collect::<Vec<u64>>(), missing);
        prop_assert_eq!(set.gaps(&asked), gaps.iter().filter(|gap| !gap.is_empty()).count());
    }

    #[test]
    fn insert_needs_a_node_for_each_gap(changes in prop::collection::vec(change(), 1..20), sectors in sectors(), tag in tag()) {
        let mut set = RangeSet::new();
        let mut model: Model = [None; SECTORS as usize];

        for change in &changes {
            make(change, &mut set, &mut model);
        }
        let gaps = set.gaps(&sectors);
        if let Some(fewer) = gaps.checked_sub(1) {
            prop_assert!(set.insert(&sectors, tag, &mut spares(fewer)).is_err());
            prop_assert_eq!(ranges(&set), runs(&model), "nothing has changed");
        }
        prop_assert!(set.insert(&sectors, tag, &mut spares(gaps)).is_ok());
    }

    #[test]
    fn appended_set_fills_the_gaps(
        changes in prop::collection::vec(change(), 1..20),
        others in prop::collection::vec(change(), 1..20),
    ) {
        let (mut set, mut other) = (RangeSet::new(), RangeSet::new());
        let (mut model, mut more): (Model, Model) = ([None; SECTORS as usize], [None; SECTORS as usize]);

        for change in &changes {
            make(change, &mut set, &mut model);
        }
        for change in &others {
            make(change, &mut other, &mut more);
        }
        set.append(other, &mut spares(SECTORS as usize));
        for (tag, more) in model.iter_mut().zip(more) {
            *tag = tag.or(more);
        }
        prop_assert_eq!(ranges(&set), runs(&model));
    }

    #[test]
    fn append_to_an_empty_set_needs_no_spare_node(changes in prop::collection::vec(change(), 1..20)) {
        let (mut set, mut other) = (RangeSet::new(), RangeSet::new());
        let mut model: Model = [None; SECTORS as usize];

        for change in &changes {
            make(change, &mut other, &mut model);
        }
        // Room for one node, through which each passes.
        let mut empty = spares(1);
        let tag = Tag { origin: Origin::Log, pending: false };
        prop_assert!(RangeSet::new().insert(&(0..1), tag, &mut empty).is_ok());
        prop_assert_eq!(empty.len(), 0);
        set.append(other, &mut empty);
        prop_assert_eq!(ranges(&set), runs(&model));
    }
}

#[test]
fn sectors_at_the_end_of_the_numbers_are_kept() {
    let mut set = RangeSet::new();
    let tag = Tag {
        origin: Origin::Log,
        pending: false,
    };
    let last = u64::MAX - 1..u64::MAX;

    assert!(set.insert(&last, tag, &mut spares(1)).is_ok());
    assert_eq!(set.first(&(0..u64::MAX)), Some(u64::MAX - 1));
    assert_eq!(set.next(u64::MAX), None);
    assert_eq!(set.remove(&(0..u64::MAX), &mut spares(0)), Ok(true));
    assert!(set.is_empty());
}
