// SPDX-License-Identifier: GPL-2.0

//! The sections of a man page.

/// What the man page of a command has besides its description and options, in pairs of a word and its explanation.
pub struct Page {
    /// Without 2, which is the same for all commands.
    pub exit_status: &'static [(&'static str, &'static str)],
    pub environment: &'static [(&'static str, &'static str)],
    pub files: &'static [(&'static str, &'static str)],
    pub examples: &'static [(&'static str, &'static str)],
    pub see_also: &'static [&'static str],
}

impl Page {
    pub const EMPTY: Self = Self {
        exit_status: &[],
        environment: &[],
        files: &[],
        examples: &[],
        see_also: &[],
    };
}
