// SPDX-License-Identifier: GPL-2.0

//! `kernel::time`.

#[derive(Clone, Copy)]
pub struct Delta(i64);

impl Delta {
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds)
    }

    pub const fn as_millis(self) -> i64 {
        self.0 * 1000
    }
}
