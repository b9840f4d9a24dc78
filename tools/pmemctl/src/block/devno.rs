// SPDX-License-Identifier: GPL-2.0

//! Device numbers.

use std::fmt;
use std::str::FromStr;

/// The number of a device: `259:0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    major: u32,
    minor: u32,
}

impl DeviceNumber {
    /// As `stat(2)` has it in `st_rdev`.
    pub fn from_rdev(rdev: u64) -> Self {
        Self {
            major: rustix::fs::major(rdev),
            minor: rustix::fs::minor(rdev),
        }
    }
}

impl DeviceNumber {
    /// Returns whether it is the number of a block device. File systems without one have a number of major 0.
    pub fn is_of_block_device(self) -> bool {
        self.major != 0
    }

    /// As the kernel writes it in 32 bits (`new_encode_dev` of linux/kdev_t.h).
    pub fn encoded(self) -> u32 {
        (self.minor & 0xff) | (self.major << 8) | ((self.minor & !0xff) << 12)
    }
}

impl FromStr for DeviceNumber {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self {
            major: major.parse()?,
            minor: minor.parse()?,
        })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_number_parses_and_encodes() {
        assert_eq!("259:1".parse::<DeviceNumber>().unwrap().encoded(), 0x1_0301);
        assert_eq!(
            "252:300".parse::<DeviceNumber>().unwrap().encoded(),
            0x10_fc2c
        );
        assert_eq!(
            "259:12".parse::<DeviceNumber>().unwrap().to_string(),
            "259:12"
        );
        assert_eq!(DeviceNumber::from_rdev(0x0010_0305).to_string(), "3:261");
        for text in ["", ":", "259", "259:", "a:b", "259:0:0"] {
            assert!(text.parse::<DeviceNumber>().is_err(), "{text}");
        }
    }
}
