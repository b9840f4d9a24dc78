// SPDX-License-Identifier: GPL-2.0

//! The messages of `monitor` to systemd: journal entries with fields, and the state of the service.

use libsystemd::daemon::{NotifyState, notify, watchdog_enabled};
use libsystemd::logging::{Priority, journal_send};
use std::ffi::OsString;
use std::io;
use std::time::Duration;

/// Identifies the kinds of messages in contrib/systemd/rust_pmem.catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Bad,
    Failed,
    Watching,
    NotReported,
}

impl Message {
    fn id(self) -> &'static str {
        match self {
            Self::Bad => "f46a383b415d4b8b974f59821a7cb89e",
            Self::Failed => "d2ec208de304490b8cca8a811c3cbc44",
            Self::Watching => "c7254a6c2d3a4b0fb824c8472541d0f6",
            Self::NotReported => "34b1f2d49a7d40ae9b99eac637fa56f9",
        }
    }

    fn priority(self) -> Priority {
        match self {
            Self::Bad => Priority::Critical,
            Self::Failed => Priority::Warning,
            Self::Watching => Priority::Info,
            Self::NotReported => Priority::Debug,
        }
    }

    /// Returns the prefix of a line on standard output: sd-daemon(3).
    pub fn prefix(self) -> String {
        format!("<{}>", u8::from(self.priority()))
    }
}

/// Returns whether lines go to systemd's journal: `JOURNAL_STREAM` of systemd.exec(5) says to which file.
pub fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stdout())
        .is_ok_and(|status| format!("{}:{}", status.st_dev, status.st_ino) == stream)
}

/// Returns the fields of an entry from the variables of the hook. The journal's fields are text.
fn fields(message: Message, variables: Vec<(&'static str, OsString)>) -> Vec<(String, String)> {
    let own = [
        ("MESSAGE_ID", message.id()),
        ("SYSLOG_IDENTIFIER", "pmemctl"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let others = variables.into_iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("PMEMCTL_")?;
        Some((format!("PMEM_{name}"), value.into_string().ok()?))
    });
    own.into_iter().chain(others).collect()
}

/// Sends an entry; returns whether the journal has taken it.
pub fn send(message: Message, line: &str, variables: Vec<(&'static str, OsString)>) -> bool {
    let fields = fields(message, variables);
    journal_send(message.priority(), line, fields.into_iter()).is_ok()
}

/// Sends the state of the service. Without systemd nothing happens, and systemd notices itself if it misses one.
pub fn state(states: &[NotifyState]) {
    let _ = notify(false, states);
}

/// Returns how often systemd wants a sign of life, if at all: three times as often as it takes the service for dead.
pub fn heartbeat() -> Option<Duration> {
    watchdog_enabled(false).map(|time| time / 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn fields_are_those_of_the_hook() {
        let variables = vec![
            ("PMEMCTL_DISK", "pmem0".into()),
            ("PMEMCTL_OWNER", "free space of /srv".into()),
            ("PMEMCTL_PATH", OsString::from_vec(vec![0xff])),
        ];
        let fields = fields(Message::Bad, variables);
        let expected = [
            ("MESSAGE_ID", Message::Bad.id()),
            ("SYSLOG_IDENTIFIER", "pmemctl"),
            ("PMEM_DISK", "pmem0"),
            ("PMEM_OWNER", "free space of /srv"),
        ];
        assert_eq!(fields, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn catalog_explains_each_message() {
        let catalog = include_str!("../../../../contrib/systemd/rust_pmem.catalog");
        let ids: Vec<_> = catalog
            .lines()
            .filter_map(|line| line.strip_prefix("-- "))
            .collect();
        let all = [
            Message::Bad,
            Message::Failed,
            Message::Watching,
            Message::NotReported,
        ];
        assert_eq!(ids, all.map(Message::id));
    }
}
