// SPDX-License-Identifier: GPL-2.0

//! Requests that are made of a file by ioctl(2), and the answers in words.

use abstractions::ioctl::{Argument, REQUESTS, Request};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// The requests, and what they are made of.
#[derive(Args)]
pub struct Requests {
    /// The file or device
    file: PathBuf,
    /// NAME, or NAME=NUMBER,… with the number that goes with it or what the kernel reads at its
    /// argument: each number takes as many bytes as there are in the same share
    #[arg(required = true, value_parser = parse)]
    requests: Vec<Asked>,
    /// Let the argument, where it is an address, be one that nothing is at
    #[arg(long)]
    bad_pointer: bool,
    /// Open for reading alone
    #[arg(long)]
    read_only: bool,
}

#[derive(Clone)]
struct Asked {
    text: String,
    request: &'static Request,
    numbers: Vec<u64>,
}

fn parse(text: &str) -> Result<Asked> {
    let (name, numbers) = text.split_once('=').unwrap_or((text, ""));
    let request = Request::named(name).with_context(|| {
        let names: Vec<_> = REQUESTS.iter().map(|request| request.name).collect();
        format!("not one of {}", names.join(" "))
    })?;
    let numbers = numbers
        .split(',')
        .filter(|number| !number.is_empty())
        .map(|number| Ok(number.parse()?))
        .collect::<Result<Vec<_>>>()?;
    if let Argument::Put(length) = request.argument {
        ensure!(
            numbers.is_empty() || length % numbers.len() == 0,
            "{length} bytes are wanted"
        );
    }
    Ok(Asked {
        text: text.to_owned(),
        request,
        numbers,
    })
}

impl Asked {
    /// What the kernel reads.
    fn bytes(&self) -> Vec<u8> {
        let Argument::Put(length) = self.request.argument else {
            return Vec::new();
        };
        let share = length / self.numbers.len().max(1);
        self.numbers
            .iter()
            .flat_map(|number| number.to_le_bytes().into_iter().chain([0; 88]).take(share))
            .collect()
    }
}

/// What the kernel wrote: a number, or bytes where it is longer than one.
fn written(bytes: &[u8]) -> String {
    let mut number = [0; 8];
    match number.get_mut(..bytes.len()) {
        Some(part) => {
            part.copy_from_slice(bytes);
            u64::from_le_bytes(number).to_string()
        }
        None => bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// Makes them, in their order, and prints a line for each.
pub fn make(requests: &Requests) -> Result<usize> {
    let file = File::options()
        .read(true)
        .write(!requests.read_only)
        .open(&requests.file)
        .with_context(|| requests.file.display().to_string())?;
    for asked in &requests.requests {
        let request = asked.request;
        let answer = if requests.bad_pointer {
            request.make_nowhere(file.as_fd()).map(|()| Vec::new())
        } else {
            let value = asked.numbers.first().copied().unwrap_or(0);
            request.make(file.as_fd(), usize::try_from(value)?, &asked.bytes())
        };
        println!("{}: {}", asked.text, said(answer));
    }
    Ok(0)
}

fn said(answer: io::Result<Vec<u8>>) -> String {
    match answer {
        Ok(bytes) if bytes.is_empty() => "ok".to_owned(),
        Ok(bytes) => written(&bytes),
        Err(error) => error.to_string(),
    }
}
