// SPDX-License-Identifier: GPL-2.0

//! The channel on which command lines go to the guest and their output returns. guest/main has its other end.

use base64::prelude::{BASE64_STANDARD, Engine};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status, as a shell has it: 128 + number for a signal.
    Exited(i32),
    /// It still ran at the time-out.
    TimedOut,
    /// The guest was lost.
    Lost(Loss),
}

impl Ended {
    /// Returns whether a power cut or restart that was requested ended it.
    pub fn was_requested(self) -> bool {
        matches!(self, Ended::Lost(Loss::PowerCut | Loss::Restart))
    }
}

/// Why a guest was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The guest or a [`crate::PowerSwitch`] requested a power cut.
    PowerCut,
    /// The guest requested an orderly restart.
    Restart,
    /// It was not requested: a panic, a reset, or the end of QEMU.
    Unasked,
}

/// Begins lines that are not part of the output (ASCII's record separator).
const MARK: u8 = 0x1e;

/// Finds the end of a command in the guest's output: the mark, the command's nonce, a blank, its status, a newline.
#[derive(Debug, Default)]
struct Framing {
    pending: Vec<u8>,
}

impl Framing {
    /// Takes received bytes, passes the command's output to `sink`, and returns the text after "nonce " once it has
    /// arrived.
    fn take(&mut self, arrived: &[u8], nonce: &str, sink: &mut dyn FnMut(&[u8])) -> Option<String> {
        self.pending.extend_from_slice(arrived);
        let end: Vec<u8> = [&[MARK], nonce.as_bytes(), b" "].concat();
        let mut done = 0;
        let found = loop {
            let rest = &self.pending[done..];
            let Some(mark) = rest.iter().position(|&byte| byte == MARK) else {
                sink(rest);
                done = self.pending.len();
                break None;
            };
            sink(&rest[..mark]);
            done += mark;
            let rest = &self.pending[done..];
            let Some(after) = rest.strip_prefix(end.as_slice()) else {
                if end.starts_with(rest) {
                    break None;
                }
                sink(&rest[..1]);
                done += 1;
                continue;
            };
            let Some(length) = after.iter().position(|&byte| byte == b'\n') else {
                break None;
            };
            let text = String::from_utf8_lossy(&after[..length]).into_owned();
            done += end.len() + length + 1;
            break Some(text);
        };
        self.pending.drain(..done);
        found
    }
}

/// The host's end of the channel.
#[derive(Debug)]
pub(crate) struct Control {
    stream: UnixStream,
    framing: Framing,
    nonces: u64,
}

/// The result of waiting for the end of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    End(String),
    TooLate,
    Closed,
}

impl Control {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            nonces: 0,
        }
    }

    /// Sends a command line, and returns the nonce with which its output ends.
    pub(crate) fn send(&mut self, command: &str) -> io::Result<String> {
        self.nonces += 1;
        // The clock in it makes it unique, so output can't contain it by chance.
        let clock = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |time| time.as_nanos());
        let nonce = format!("{:x}-{:x}", clock & u128::from(u64::MAX), self.nonces);
        // A command may contain newlines, which end a line to the guest.
        let line = format!("{nonce} {}\n", BASE64_STANDARD.encode(command));
        self.stream.write_all(line.as_bytes())?;
        Ok(nonce)
    }

    /// Passes output to `sink` until the command ends, until `deadline`, or until the guest is lost.
    pub(crate) fn receive(
        &mut self,
        nonce: &str,
        deadline: Option<Instant>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Received> {
        let mut buffer = vec![0; 64 * 1024];
        // Bytes that arrived with the end of the last command.
        let mut arrived = 0;
        loop {
            if let Some(end) = self.framing.take(&buffer[..arrived], nonce, sink) {
                return Ok(Received::End(end));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Received::TooLate);
            }
            self.stream.set_read_timeout(left)?;
            arrived = match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Received::Closed),
                Ok(count) => count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => 0,
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        return Ok(Received::Closed);
                    }
                    _ => return Err(error),
                },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(pieces: &[&[u8]]) -> (Vec<u8>, Option<String>) {
        let mut framing = Framing::default();
        let mut output = Vec::new();
        let mut end = None;
        for piece in pieces {
            assert_eq!(end, None);
            end = framing.take(piece, "n1", &mut |bytes| output.extend_from_slice(bytes));
        }
        (output, end)
    }

    #[test]
    fn status_follows_output() {
        assert_eq!(
            fed(&[b"hello\n\x1en1 0\n"]),
            (b"hello\n".to_vec(), Some("0".into()))
        );
    }

    #[test]
    fn any_chunks_are_joined() {
        let whole = b"a\x1eb\x1en2 0\n\xff\x00c\x1en1 137\n";
        let output = b"a\x1eb\x1en2 0\n\xff\x00c".to_vec();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(fed(&bytes), (output.clone(), Some("137".into())));
        for cut in 0..whole.len() {
            assert_eq!(
                fed(&[&whole[..cut], &whole[cut..]]),
                (output.clone(), Some("137".into())),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn output_is_passed_on_at_once() {
        assert_eq!(fed(&[b"progress"]), (b"progress".to_vec(), None));
    }

    #[test]
    fn bytes_after_the_end_belong_to_the_next_command() {
        let mut framing = Framing::default();
        let mut output = Vec::new();
        let mut sink = |bytes: &[u8]| output.extend_from_slice(bytes);
        assert_eq!(
            framing.take(b"\x1en1 0\nlate\x1en2 3\n", "n1", &mut sink),
            Some("0".into())
        );
        assert_eq!(framing.take(b"", "n2", &mut sink), Some("3".into()));
        assert_eq!(output, b"late");
    }
}
