// SPDX-License-Identifier: GPL-2.0

//! This program's terminal as the guest's.

use anyhow::Result;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Read, Write, stdin, stdout};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// The key that ends it all, Ctrl-].
const PLUG: u8 = 0x1d;
/// End of input, Ctrl-D.
const END: u8 = 0x04;

/// The rows and columns of the terminal that standard output is, if it is one.
pub fn size() -> Option<(u16, u16)> {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Some((size.ws_row, size.ws_col)),
        _ => None,
    }
}

/// Gives the terminal back as it was when dropped.
pub struct Connection {
    before: Option<Termios>,
}

/// Connects standard input and output to the guest's console, raw if they are a terminal; `pull` is
/// called on Ctrl-].
pub fn connect(console: UnixStream, pull: impl FnOnce() + Send + 'static) -> Result<Connection> {
    let mut before = None;
    if isatty(stdin()) {
        let saved = tcgetattr(stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw)?;
        before = Some(saved);
    }
    let raw = before.is_some();
    let mut from_guest = console.try_clone()?;
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_guest.read(&mut buffer) {
            let mut out = stdout().lock();
            if out
                .write_all(&buffer[..count])
                .and_then(|()| out.flush())
                .is_err()
            {
                return;
            }
        }
    });
    let mut to_guest = console;
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match stdin().lock().read(&mut buffer) {
                Ok(count @ 1..) => {
                    let keys = &buffer[..count];
                    if raw && keys.contains(&PLUG) {
                        pull();
                        return;
                    }
                    if to_guest.write_all(keys).is_err() {
                        return;
                    }
                }
                // Whoever reads next in the guest, the shell or what it runs, gets its end.
                _ => {
                    if to_guest.write_all(&[END]).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    });
    Ok(Connection { before })
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
        }
    }
}
