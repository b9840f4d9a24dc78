// SPDX-License-Identifier: GPL-2.0

//! Sizes and ranges in bytes, as people write them.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Bytes in a page, the unit in which memory fails and is mapped.
pub const PAGE: u64 = 4096;

/// Why a text is no [`Size`] or [`AddressRange`].
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
/// Shown in the largest unit that leaves a whole number, so that it reads back as the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(u64);

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl Size {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many mebibytes.
    ///
    /// # Panics
    ///
    /// Where they are more than 64 bits of bytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The size in bytes.
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

/// A range of addresses, written `SIZE@START`: `64M@512M`.
///
/// # Invariants
///
/// It is not empty, and its end is a valid address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    start: Size,
    size: Size,
}

impl AddressRange {
    /// `size` bytes from address `start`; [`BadSize`] where that is nothing or has no end.
    pub fn new(start: Size, size: Size) -> Result<Self, BadSize> {
        if size.0 == 0 {
            return Err(BadSize(format!("a range of no bytes at {start}")));
        }
        if start.0.checked_add(size.0).is_none() {
            return Err(BadSize(format!("{size}@{start} ends beyond any address")));
        }
        // INVARIANT: Both were just checked.
        Ok(Self { start, size })
    }

    /// Its first address.
    pub const fn start(self) -> Size {
        self.start
    }

    /// Its length.
    pub const fn size(self) -> Size {
        self.size
    }

    /// Its addresses.
    pub const fn range(self) -> Range<u64> {
        self.start.0..self.start.0 + self.size.0
    }

    /// Whether an address is in both.
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
    fn sizes_as_people_write_them() {
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
    fn what_is_no_size() {
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
    fn what_is_no_range() {
        for text in ["64M", "0@1G", "@", "64M@", "1@0xffffffffffffffff"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_size_reads_back_as_itself(bytes: u64) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }

        #[test]
        fn ranges_overlap_where_they_share_an_address(a in 0u64..64, b in 0u64..64, n in 1u64..16, m in 1u64..16) {
            let one = AddressRange::new(Size(a), Size(n)).unwrap();
            let two = AddressRange::new(Size(b), Size(m)).unwrap();
            prop_assert_eq!(one.overlaps(two), one.range().any(|x| two.range().contains(&x)));
        }
    }
}
