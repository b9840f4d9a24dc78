// SPDX-License-Identifier: GPL-2.0

//! The sections of a man page.

/// The exit statuses of all commands, for pmemctl(1).
pub const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Nothing is bad, or the command is done."),
    (
        "1",
        "errors, status, explain and doctor: something is bad. status --check: WARNING. scrub: something is bad, or it failed. Other commands: something was refused, or failed.",
    ),
    ("2", "An argument is invalid. status --check: CRITICAL."),
    (
        "3",
        "errors restore: a saved list was refused; status --check: UNKNOWN.",
    ),
    (
        "4",
        "errors, status, explain and doctor: the answer is unknown, because a list or an owner cannot be read, or the command failed. scrub: it is not complete.",
    ),
    ("125", "lease: the lease could not be taken."),
    ("126", "lease: the command could not be run."),
    ("127", "lease: the command was not found."),
    (
        "141",
        "Standard output was closed before all was written, as by head(1).",
    ),
];

/// The sections that the man page of a command has besides its description and options, in pairs of a word and its
/// explanation.
pub struct Page {
    /// Those of [`EXIT_STATUS`] that the command has; 2 and 141 are the same for all.
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
