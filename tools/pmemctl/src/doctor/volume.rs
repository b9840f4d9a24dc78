// SPDX-License-Identifier: GPL-2.0

//! Disks, partitions and volumes: which of them have DAX, and their alignment.

use crate::block::devno::DeviceNumber;
use crate::block::remap;
use crate::block::topology::{self, Volume};
use crate::doctor::probe::HUGE;
use crate::doctor::{Doctor, Finding, Prevents};
use crate::programs;
use abstractions::extents::Extent;
use anyhow::Result;
use units::{PAGE, Size};

/// Some bytes of a volume, in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The first of them, of the volume.
    pub(super) start: u64,
    pub(super) address: u64,
    pub(super) length: u64,
}

impl Place {
    /// Returns whether the offsets in memory and in the volume are equal modulo `unit`.
    fn is_aligned(&self, unit: u64) -> bool {
        self.address.wrapping_sub(self.start) % unit == 0
    }
}

/// Finds an offset at which 2 MiB of a file can be mapped as one page: aligned both in the file and in memory.
pub(super) fn window(pieces: &[Extent], places: &[Place]) -> Option<u64> {
    pieces.iter().find_map(|piece| {
        places.iter().find_map(|place| {
            let start = piece.physical.max(place.start);
            let end = (piece.physical.saturating_add(piece.length))
                .min(place.start.saturating_add(place.length));
            let length = end.checked_sub(start)?;
            let logical = piece.logical.checked_add(start - piece.physical)?;
            let address = place.address.checked_add(start - place.start)?;
            let first = logical.checked_next_multiple_of(HUGE)?;
            let fits = first.checked_add(HUGE)? <= logical.checked_add(length)?;
            (fits && address.wrapping_sub(logical) % HUGE == 0).then_some(first)
        })
    })
}

impl Doctor<'_> {
    /// Examines a disk, partition or volume and those on it. `chosen`: it is on the target of the examination.
    pub(super) fn volume(
        &mut self,
        volume: &Volume,
        dax: bool,
        places: &[Place],
        chosen: bool,
    ) -> Result<()> {
        let own = volume.number()?;
        let wanted = self.scope.number();
        let chosen = chosen || wanted.is_none_or(|wanted| wanted == own);
        let depth = self.path.len();
        self.path.push(volume.name.clone());
        if chosen {
            self.file_system(volume, dax, places)?;
        }
        for child in &volume.children {
            if !chosen && wanted.is_some_and(|wanted| !leads_to(child, wanted)) {
                continue;
            }
            let (pieces, opaque) = remap::layout(self.host, child)?.into_parts();
            if opaque.is_some() {
                self.without_dax(child, dax)?;
                continue;
            }
            let inner: Vec<_> = pieces
                .iter()
                .flat_map(|piece| {
                    places.iter().flat_map(move |place| {
                        let range = place.start..place.start.saturating_add(place.length);
                        piece.parts(own, range).map(|(part, to)| Place {
                            start: to,
                            address: place.address + (part.start - place.start),
                            length: part.end - part.start,
                        })
                    })
                })
                .collect();
            let child_dax = topology::has_dax(self.host, &child.kernel_name);
            if !child_dax {
                self.without_dax(child, dax)?;
            } else {
                self.alignment(child, places, &inner);
            }
            self.volume(child, child_dax, &inner, chosen)?;
        }
        self.path.truncate(depth);
        Ok(())
    }

    /// Reports a volume without direct access on a device that has it.
    fn without_dax(&mut self, volume: &Volume, below: bool) -> Result<()> {
        if !below {
            return Ok(());
        }
        let targets = if volume.kernel_name.starts_with("dm-") {
            let table = programs::output("dmsetup", "dmsetup", &["table", &volume.name])?;
            let mut targets: Vec<_> = table
                .lines()
                .filter_map(|line| line.split_whitespace().nth(2))
                .map(str::to_owned)
                .collect();
            targets.dedup();
            targets.join(", ")
        } else {
            volume.kind.clone()
        };
        self.found(Finding::new(
            &volume.name,
            "target-without-dax",
            Prevents::Dax,
            format!("it is made by {targets}, which has no direct access"),
            "put the file system on the disk, a partition, or a volume of linear or striped targets alone",
        ));
        Ok(())
    }

    /// Reports a partition or volume that breaks the alignment of the device below.
    fn alignment(&mut self, volume: &Volume, below: &[Place], places: &[Place]) {
        for (unit, prevents) in [(PAGE, Prevents::Dax), (HUGE, Prevents::HugeMappings)] {
            let was = below.iter().all(|place| place.is_aligned(unit));
            let shifted = places.iter().find(|place| !place.is_aligned(unit));
            let Some(place) = shifted.filter(|_| was) else {
                continue;
            };
            let is_partition = volume.kind == "part";
            let (cause, command) = match is_partition {
                true => (
                    "partition-alignment",
                    "create it at a multiple of 2 MiB: echo start=2MiB | sfdisk DISK",
                ),
                false => (
                    "volume-alignment",
                    "create it from extents at multiples of 2 MiB: pvcreate --dataalignment 2m",
                ),
            };
            self.found(
                Finding::new(
                    &volume.name,
                    cause,
                    prevents,
                    format!(
                        "its byte {} is at {:#x}, no multiple of {} further on",
                        place.start,
                        place.address,
                        Size::from_bytes(unit)
                    ),
                    command,
                )
                .destroying(),
            );
            return;
        }
    }
}

/// Returns whether a volume, or one on it, has the device number.
pub(super) fn leads_to(volume: &Volume, number: DeviceNumber) -> bool {
    volume.number().is_ok_and(|own| own == number)
        || volume.children.iter().any(|child| leads_to(child, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_window_is_found() {
        let place = |start, address, length| Place {
            start,
            address,
            length,
        };
        let disk = [place(0, 1 << 32, 1 << 30)];
        for (pieces, fits) in [
            (vec![Extent::new(0, 0, HUGE)], Some(0)),
            (vec![Extent::new(0, PAGE, 4 * HUGE)], None),
            // From the second huge page on, both are aligned.
            (vec![Extent::new(PAGE, PAGE, 3 * HUGE)], Some(HUGE)),
            (vec![Extent::new(0, 0, HUGE - PAGE)], None),
            (
                vec![
                    Extent::new(0, PAGE, PAGE),
                    Extent::new(HUGE, 8 * HUGE, HUGE),
                ],
                Some(HUGE),
            ),
            (vec![Extent::new(0, 1 << 40, HUGE)], None),
            (vec![Extent::new(u64::MAX - PAGE, 0, HUGE)], None),
        ] {
            assert_eq!(window(&pieces, &disk), fits, "{pieces:?}");
        }
        let shifted = [place(0, (1 << 32) + PAGE, 1 << 30)];
        assert_eq!(window(&[Extent::new(0, 0, 4 * HUGE)], &shifted), None);
        // The second segment starts where the file continues.
        let two = [
            place(0, 1 << 32, HUGE / 2),
            place(HUGE / 2, 1 << 33, 4 * HUGE),
        ];
        assert_eq!(window(&[Extent::new(0, 0, 4 * HUGE)], &two), None);
        assert_eq!(window(&[Extent::new(0, HUGE / 2, 2 * HUGE)], &two), Some(0));
    }
}
