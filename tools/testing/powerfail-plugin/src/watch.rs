// SPDX-License-Identifier: GPL-2.0

//! The watched memory: crash points, and the log.

use fastrand::Rng;
use persistence::log::{self, Event, operation};
use persistence::{Domain, LINE, Line, Policy, Store, Tearing};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use units::AddressRange;

/// Options of the plugin.
pub struct Options {
    /// `range=SIZE@START`: the physical addresses that are persistent memory.
    pub range: Range<u64>,
    /// `log=FILE`: without it, only the number of undurable lines is known.
    log: Option<File>,
    /// `seed=NUMBER`: determines the contents of undurable lines in crash images.
    seed: u64,
    /// `fences=NUMBER`: a crash image before each such fence that has something to wait for (0: none).
    fences: u64,
    /// `stores=NUMBER`: a crash image at a random one of about as many stores (0: none).
    stores: u64,
    /// `eadr`: caches are persistent.
    policy: Policy,
    /// `sectors`: crash images tear no sector.
    tearing: Tearing,
}

impl Options {
    /// Parses the plugin's arguments; an error is a sentence.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let (mut range, mut log) = (None, None);
        let (mut seed, mut fences, mut stores) = (0, 0, 0);
        let (mut policy, mut tearing) = (Policy::Adr, Tearing::Lines);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || {
                value
                    .parse()
                    .map_err(|_| format!("{key}={value}: not a number"))
            };
            match key {
                "range" => {
                    let parsed: AddressRange =
                        value.parse().map_err(|error| format!("range: {error}"))?;
                    range = Some(parsed.range());
                }
                "log" => {
                    log = Some(File::create(value).map_err(|error| format!("{value}: {error}"))?)
                }
                "seed" => seed = number()?,
                "fences" => fences = number()?,
                "stores" => stores = number()?,
                // QEMU makes "eadr=on" of "eadr".
                "eadr" => policy = Policy::Eadr,
                "sectors" => tearing = Tearing::Sectors,
                _ => {
                    return Err(format!(
                        "there is no option \"{key}\": range=SIZE@START, log=FILE, seed=, fences=, stores=, eadr, sectors"
                    ));
                }
            }
        }
        let range = range
            .filter(|range| range.start % 4096 == 0 && range.end % 4096 == 0 && !range.is_empty());
        Ok(Self {
            range: range.ok_or("range=SIZE@START is missing, or not of whole pages")?,
            log,
            seed,
            fences,
            stores,
            policy,
            tearing,
        })
    }
}

/// The log, if there is one.
struct Log(Option<BufWriter<File>>);

impl Log {
    fn add(&mut self, event: &Event) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |log| event.write(log))
    }

    /// Writes it out: QEMU may be killed at any time.
    fn flush(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |log| log.flush())
    }
}

/// Watched memory.
pub struct Watch {
    domain: Domain,
    log: Log,
    rng: Rng,
    fences: u64,
    stores: u64,
    tearing: Tearing,
    /// Number of crash images until which they are taken without the guest's mark.
    wanted: u64,
    fence_number: u64,
    /// Stores until the next crash image.
    stores_left: u64,
    image_number: u64,
}

impl Watch {
    /// Begins with these contents.
    pub fn new(options: Options, memory: Vec<u8>) -> io::Result<Self> {
        let mut log = Log(options.log.map(BufWriter::new));
        if let Some(file) = &mut log.0 {
            log::write_memory(file, &memory)?;
        }
        log.flush()?;
        Ok(Self {
            domain: Domain::new(options.policy, memory, options.seed),
            log,
            rng: Rng::with_seed(options.seed),
            fences: options.fences,
            stores: options.stores,
            tearing: options.tearing,
            wanted: 0,
            fence_number: 0,
            stores_left: options.stores,
            image_number: 0,
        })
    }

    /// Returns the number of lines that are not durable.
    pub fn undurable(&self) -> usize {
        self.domain.undurable_count()
    }

    /// Records a store to a line that contains `data` after it.
    pub fn store(&mut self, store: &Store, data: &Line) -> io::Result<()> {
        if self.domain.store(store, data) {
            let line = (store.at / LINE as u64) as u32;
            self.log
                .add(&Event::Durable(line, self.domain.line(line)))?;
        }
        if self.stores > 0 {
            self.stores_left = self.stores_left.saturating_sub(1);
            if self.stores_left == 0 {
                self.stores_left = self.rng.u64(1..2 * self.stores);
                self.crash(store.pc)?;
            }
        }
        Ok(())
    }

    /// Records a write-back of a line that contains `data`, by `clflush` if `ordered`.
    pub fn write_back(
        &mut self,
        cpu: usize,
        line: u32,
        data: &Line,
        ordered: bool,
    ) -> io::Result<()> {
        match self.domain.write_back(cpu, line, data, ordered) {
            true => self.log.add(&Event::Durable(line, self.domain.line(line))),
            false => Ok(()),
        }
    }

    /// Records a locked instruction.
    pub fn lock(&mut self, cpu: usize) {
        self.domain.lock(cpu);
    }

    /// Records a fence, and takes a crash image before it.
    pub fn fence(&mut self, cpu: usize, pc: u64) -> io::Result<()> {
        if !self.domain.has_pending(cpu) {
            return Ok(());
        }
        self.fence_number += 1;
        let lines = u32::try_from(self.undurable()).unwrap_or(u32::MAX);
        self.log.add(&Event::Fence(self.fence_number, lines))?;
        self.domain.ends_sector(cpu);
        if self.fences > 0 && self.fence_number % self.fences == 0 {
            self.crash(pc)?;
        }
        for line in self.domain.fence(cpu) {
            self.log
                .add(&Event::Durable(line, self.domain.line(line)))?;
        }
        Ok(())
    }

    /// Records a guest's mark, and returns its result.
    pub fn mark(&mut self, operation: u64, argument: u64) -> io::Result<u64> {
        self.log.add(&Event::Mark(operation, argument))?;
        match operation {
            operation::UNDURABLE => {
                let lines = self.domain.undurable().collect();
                self.log.add(&Event::Undurable(lines))?;
            }
            operation::IMAGE => self.image(0, Vec::new())?,
            operation::RANDOM_IMAGE => self.random_image(0)?,
            operation::CRASHES => self.wanted = argument,
            _ => {}
        }
        self.log.flush()?;
        Ok(match operation {
            operation::CRASHES => self.image_number,
            _ => self.undurable() as u64,
        })
    }

    /// Takes a crash image, if more are wanted.
    fn crash(&mut self, pc: u64) -> io::Result<()> {
        match self.image_number < self.wanted {
            true => self.random_image(pc),
            false => Ok(()),
        }
    }

    fn random_image(&mut self, pc: u64) -> io::Result<()> {
        let undurable = self.domain.undurable().collect();
        self.log.add(&Event::Undurable(undurable))?;
        let lines = self.domain.crash(self.tearing);
        self.image(pc, lines)
    }

    fn image(&mut self, pc: u64, lines: Vec<(u32, Line)>) -> io::Result<()> {
        self.image_number += 1;
        self.log.add(&Event::Crash(self.image_number, pc, lines))?;
        self.log.flush()
    }
}
