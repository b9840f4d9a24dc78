// SPDX-License-Identifier: GPL-2.0

//! Sizes and address ranges in the notation of command lines.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Page size in bytes, the unit in which memory is mapped and in which memory failure isolates it.
pub const PAGE: u64 = 4096;

/// The reason why a text is not a valid [`Size`] or [`AddressRange`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSize(String);

impl fmt::Display for BadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for BadSize {}

/// A number of bytes: `4096`, `0x1000`, `4K`, `64M`, `1G`, `2T`.
///
/// Formatted in the largest unit that gives a whole number, so parsing the text returns the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(u64);

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl Size {
    /// Creates a size from bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Creates a size from mebibytes, which must be less than 2^44.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Whether it is a whole number of `unit`s.
    pub const fn is_multiple_of(self, unit: Size) -> bool {
        unit.0 != 0 && self.0 % unit.0 == 0
    }
}

impl FromStr for Size {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let bad = || {
            BadSize(format!(
                "\"{text}\" is not a size: write 4096, 0x1000, 4K, 64M, 1G or 2T"
            ))
        };
        let text_up = text.to_ascii_uppercase();
        let number = text_up
            .strip_suffix("IB")
            .or(text_up.strip_suffix('B'))
            .unwrap_or(&text_up);
        let value = if let Some(digits) = text_up.strip_prefix("0X") {
            u64::from_str_radix(digits, 16).ok()
        } else {
            let (digits, shift) = UNITS
                .iter()
                .find_map(|&(unit, shift)| Some((number.strip_suffix(unit)?, shift)))
                .unwrap_or((number, 0));
            let plain = digits.bytes().all(|b| b.is_ascii_digit());
            digits
                .parse::<u64>()
                .ok()
                .filter(|_| plain)
                .and_then(|value| value.checked_mul(1 << shift))
        };
        value.map(Size).ok_or_else(bad)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            if self.0 != 0 && self.0 % (1 << shift) == 0 {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A range of physical addresses, written `SIZE@START` as in `memmap=`: `64M@512M`.
///
/// # Invariants
///
/// It is not empty, and its end does not overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    start: Size,
    size: Size,
}

impl AddressRange {
    /// Creates a range; [`BadSize`] if it is empty or its end overflows.
    pub fn new(start: Size, size: Size) -> Result<Self, BadSize> {
        if size.0 == 0 {
            return Err(BadSize(format!("empty range at {start}")));
        }
        if start.0.checked_add(size.0).is_none() {
            return Err(BadSize(format!(
                "{size}@{start} ends beyond the last address"
            )));
        }
        // INVARIANT: Both conditions were checked above.
        Ok(Self { start, size })
    }

    /// Returns the first address.
    pub const fn start(self) -> Size {
        self.start
    }

    /// Returns the length.
    pub const fn size(self) -> Size {
        self.size
    }

    /// Returns the range in bytes.
    pub const fn range(self) -> Range<u64> {
        self.start.0..self.start.0 + self.size.0
    }

    /// Whether the ranges have a common address.
    pub fn overlaps(self, other: AddressRange) -> bool {
        self.range().start < other.range().end && other.range().start < self.range().end
    }
}

impl FromStr for AddressRange {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let (size, start) = text.split_once('@').ok_or_else(|| {
            BadSize(format!(
                "\"{text}\" is not a range: write SIZE@START, such as 64M@512M"
            ))
        })?;
        AddressRange::new(start.parse()?, size.parse()?)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.size, self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parse_accepts_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("4k", 4096),
            ("0x1000", 4096),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("1G", 1 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn parse_rejects_invalid_sizes() {
        for text in [
            "",
            "M",
            "-1",
            "+1",
            "1.5G",
            "1X",
            "0x",
            "1 G",
            "99999999999T",
            "64MM",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn parse_rejects_invalid_ranges() {
        for text in ["64M", "0@1G", "@", "64M@", "1@0xffffffffffffffff"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_and_parse_round_trip(bytes: u64) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }

        #[test]
        fn overlaps_matches_common_addresses(a in 0u64..64, b in 0u64..64, n in 1u64..16, m in 1u64..16) {
            let one = AddressRange::new(Size(a), Size(n)).unwrap();
            let two = AddressRange::new(Size(b), Size(m)).unwrap();
            prop_assert_eq!(one.overlaps(two), one.range().any(|x| two.range().contains(&x)));
        }
    }
}
