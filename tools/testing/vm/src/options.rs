// SPDX-License-Identifier: GPL-2.0

//! Options of a machine, and their checks.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;
use units::{AddressRange, PAGE, Size};

/// A machine with persistent memory.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub struct Options {
    /// Memory of the guest, from 256M
    #[arg(long, value_name = "SIZE", default_value_t = Size::from_mib(1024))]
    pub memory: Size,

    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub cpus: u32,

    /// Processor model of QEMU (otherwise one with all that QEMU can emulate, which takes machine checks on x86-64)
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,

    /// Count instructions as the guest's clock, for measurements; requires --cpus 1
    #[arg(long)]
    pub icount: bool,

    /// Mark a range of the guest's memory, such as 64M@512M, as persistent (e820 type 12); may be repeated
    #[arg(long, value_name = "SIZE@START")]
    pub e820: Vec<AddressRange>,

    /// An NVDIMM (ACPI NFIT); may be repeated
    ///
    /// Comma-separated: size=SIZE; file=PATH (made when it is not there; its length is the size
    /// when none is given); labels or labels=SIZE (a label area, with which ndctl can make
    /// namespaces of every mode); unarmed (it reports that it can't persist, and is read-only);
    /// node=N (its NUMA node; the guest's memory is divided between nodes 0 to N);
    /// id=NAME. Example: size=512M,labels,file=build/nvdimm.img
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub nvdimm: Vec<Nvdimm>,

    /// A virtio-pmem device; may be repeated
    ///
    /// Comma-separated: size=SIZE; file=PATH; id=NAME, as for --nvdimm; volatile-cache (a power
    /// cut loses pages that no flush has made durable, as if the host had failed).
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub virtio_pmem: Vec<VirtioPmem>,

    /// A CXL type 3 device with persistent memory; may be repeated
    ///
    /// Comma-separated: size=SIZE, of 256M or a multiple; file=PATH; id=NAME, as for --nvdimm. Its
    /// label area is in PATH.labels.
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub cxl: Vec<Cxl>,

    /// Persistence domain of NVDIMMs: stores are durable after they left the processor's caches
    /// (memory, ADR), or at once (cpu, eADR)
    #[arg(long, value_name = "DOMAIN", default_value = "memory")]
    pub persistence: Persistence,

    /// Follow which stores to persistent memory are durable, by a plugin of QEMU
    ///
    /// Comma-separated: range=SIZE@START (physical addresses; the first NVDIMM begins at 4G, if the guest has less memory
    /// than that); log=FILE; seed=N; fences=N, stores=N (a crash image at each N-th); eadr; sectors. See
    /// tools/testing/powerfail/README.md.
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub powerfail: Option<String>,

    /// Write the code of the kernel's modules that is executed to this file, by a plugin of QEMU (make coverage)
    #[arg(long, value_name = "FILE", conflicts_with = "powerfail")]
    pub coverage: Option<PathBuf>,

    /// Free slots for virtio-pmem devices added later (`host add`); NVDIMMs always have some
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub slots: u8,

    /// No default persistent memory (otherwise: --nvdimm size=512M,labels --e820 64M@512M, if no
    /// option adds any)
    #[arg(long)]
    pub bare: bool,

    /// Arguments for the kernel's command line; may be repeated
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    pub append: Vec<String>,

    /// Arguments for QEMU, split like a shell does; may be repeated
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    pub qemu: Vec<String>,

    /// Kernel (otherwise that of the set-up)
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initrd (otherwise that of the set-up)
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,

    /// Image of the guest's root, which is never written (otherwise that of the set-up)
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,

    /// Disk with an installed system, which the guest boots from and writes to; with --kernel and --initrd of that system
    ///
    /// The system must have guest/system.service in tools/testing/vm.
    #[arg(long, value_name = "FILE", requires_all = ["kernel", "initrd"], conflicts_with = "image")]
    pub disk: Option<PathBuf>,

    /// Folder that the guest sees as /rust_pmem, read-only (otherwise: the checkout above the
    /// current folder)
    #[arg(long, value_name = "DIR")]
    pub share: Option<PathBuf>,
}

/// The persistence domain of NVDIMMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Persistence {
    /// ADR.
    Memory,
    /// eADR.
    Cpu,
}

/// Default and smallest size of a label area (UEFI 2.7, section 13.19).
const LABELS: Size = Size::from_bytes(128 * 1024);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nvdimm {
    /// Its name in QEMU.
    pub id: Option<String>,
    /// Bytes of persistent memory, without the labels.
    pub size: Option<Size>,
    pub file: Option<PathBuf>,
    pub labels: Option<Size>,
    /// Reports that it can't persist.
    pub unarmed: bool,
    pub node: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtioPmem {
    /// Its name in QEMU.
    pub id: Option<String>,
    /// Bytes of persistent memory.
    pub size: Option<Size>,
    pub file: Option<PathBuf>,
    /// A power cut loses what no flush has made durable.
    pub volatile_cache: bool,
}

/// A CXL type 3 device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cxl {
    /// Its name in QEMU.
    pub id: Option<String>,
    /// Bytes of persistent memory.
    pub size: Option<Size>,
    pub file: Option<PathBuf>,
}

/// Splits `key=value,flag,…`.
fn parts(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (part, None),
        })
}

fn needed<'a>(key: &str, value: Option<&'a str>) -> Result<&'a str> {
    value
        .filter(|value| !value.is_empty())
        .with_context(|| format!("\"{key}\" needs a value: {key}=…"))
}

fn name(text: &str) -> Result<String> {
    let good = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    ensure!(
        good && text.starts_with(|first: char| first.is_ascii_alphabetic()),
        "\"{text}\" can't be a name: letters, digits, - and _, a letter first"
    );
    Ok(text.to_owned())
}

impl FromStr for Nvdimm {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut dimm = Self {
            id: None,
            size: None,
            file: None,
            labels: None,
            unarmed: false,
            node: None,
        };
        for (key, value) in parts(text) {
            match key {
                "size" => dimm.size = Some(needed(key, value)?.parse()?),
                "file" => dimm.file = Some(needed(key, value)?.into()),
                "id" => dimm.id = Some(name(needed(key, value)?)?),
                "labels" => dimm.labels = Some(value.map_or(Ok(LABELS), str::parse)?),
                "unarmed" if value.is_none() => dimm.unarmed = true,
                "node" => dimm.node = Some(node(needed(key, value)?)?),
                _ => bail!(
                    "an NVDIMM has no \"{key}\": it has size=, file=, labels[=], unarmed, node=, id="
                ),
            }
        }
        ensure!(
            dimm.size.is_some() || dimm.file.is_some(),
            "an NVDIMM needs size= or file="
        );
        if let Some(labels) = dimm.labels {
            ensure!(
                labels >= LABELS && labels.is_multiple_of(Size::from_bytes(PAGE)),
                "labels={labels}: at least {LABELS}, in pages of 4K"
            );
        }
        if let Some(size) = dimm.size {
            check_size(
                "an NVDIMM",
                size,
                if dimm.labels.is_some() { 16 } else { 2 },
            )?;
        }
        Ok(dimm)
    }
}

impl FromStr for VirtioPmem {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        const VOLATILE_CACHE: &str = "volatile-cache";
        let (flags, rest): (Vec<&str>, Vec<&str>) =
            text.split(',').partition(|part| *part == VOLATILE_CACHE);
        let (id, size, file) = plain("virtio-pmem", &rest.join(","), 2)?;
        Ok(Self {
            id,
            size,
            file,
            volatile_cache: !flags.is_empty(),
        })
    }
}

impl FromStr for Cxl {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (id, size, file) = plain("CXL memory", text, 256)?;
        Ok(Self { id, size, file })
    }
}

/// Parses a device with a name, a size, in units of `mib` MiB, and a file.
fn plain(
    what: &str,
    text: &str,
    mib: u64,
) -> Result<(Option<String>, Option<Size>, Option<PathBuf>)> {
    let (mut id, mut size, mut file) = (None, None, None);
    for (key, value) in parts(text) {
        match key {
            "size" => size = Some(needed(key, value)?.parse()?),
            "file" => file = Some(needed(key, value)?.into()),
            "id" => id = Some(name(needed(key, value)?)?),
            _ => bail!("{what} has no \"{key}\": it has size=, file=, id="),
        }
    }
    ensure!(
        size.is_some() || file.is_some(),
        "{what} needs size= or file="
    );
    if let Some(size) = size {
        check_size(what, size, mib)?;
    }
    Ok((id, size, file))
}

/// Highest NUMA node.
const NODES: u8 = 7;

fn node(text: &str) -> Result<u8> {
    let node = text.parse().ok().filter(|node| *node <= NODES);
    node.with_context(|| format!("node={text}: from 0 to {NODES}"))
}

fn check_size(what: &str, size: Size, mib: u64) -> Result<()> {
    let unit = Size::from_mib(mib);
    ensure!(
        size >= unit && size.is_multiple_of(unit),
        "{what} of {size}: its size must be a multiple of {unit}"
    );
    Ok(())
}

/// QEMU's q35 machine has only `LOW` of its memory below 4 GiB if it has more than `HOLE`.
const HOLE: u64 = 0xb000_0000;
const LOW: u64 = 0x8000_0000;
const FOUR_GIB: u64 = 1 << 32;
/// The kernel is unpacked below this address…
const KERNEL_END: u64 = 128 << 20;
/// …and the initrd is within this distance of the end of low memory.
const INITRD: u64 = 64 << 20;

impl Options {
    /// Parses options as in a test's header. An empty text is the default machine.
    pub fn from_words(words: &str) -> Result<Self> {
        #[derive(clap::Parser)]
        #[command(no_binary_name = true, disable_help_flag = true)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let words = shlex::split(words).context("a quote is not closed")?;
        let line = <Line as clap::Parser>::try_parse_from(words).map_err(|error| {
            let text = error.to_string();
            anyhow::anyhow!(
                "{}",
                text.lines()
                    .next()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
            )
        })?;
        line.options.checked()
    }

    /// Adds the default devices if there are none, and checks the machine.
    pub fn checked(mut self) -> Result<Self> {
        if !self.bare
            && self.e820.is_empty()
            && self.nvdimm.is_empty()
            && self.virtio_pmem.is_empty()
            && self.cxl.is_empty()
        {
            self.nvdimm.push("size=512M,labels".parse()?);
            self.e820.push("64M@512M".parse()?);
        }
        ensure!(
            !self.icount || self.cpus == 1,
            "--icount counts the instructions of one processor: say --cpus 1"
        );
        let memory = self.memory;
        ensure!(
            memory >= Size::from_mib(256) && memory.is_multiple_of(Size::from_mib(2)),
            "--memory {memory}: at least 256M, in steps of 2M"
        );
        ensure!(
            (1..=64).contains(&self.cpus),
            "--cpus {}: from 1 to 64",
            self.cpus
        );
        ensure!(self.slots <= 8, "--slots {}: at most 8", self.slots);
        ensure!(
            self.powerfail.is_none()
                || self.virtio_pmem.iter().all(|device| !device.volatile_cache),
            "--powerfail has a QEMU of its own, which knows no volatile-cache"
        );
        self.check_e820()?;
        self.check_names()
    }

    /// Returns the number of NUMA nodes.
    pub(crate) fn nodes(&self) -> u8 {
        let last = self.nvdimm.iter().filter_map(|dimm| dimm.node).max();
        last.unwrap_or(0) + 1
    }

    fn check_e820(&self) -> Result<()> {
        let memory = self.memory.bytes();
        let low_end = if memory > HOLE { LOW } else { memory };
        let high_end = FOUR_GIB + memory - low_end;
        for (index, &extent) in self.e820.iter().enumerate() {
            let range = extent.range();
            ensure!(
                range.start % PAGE == 0 && range.end % PAGE == 0,
                "--e820 {extent}: start and size must be multiples of 4K"
            );
            let low = range.start >= KERNEL_END && range.end <= low_end.saturating_sub(INITRD);
            let high = range.start >= FOUR_GIB && range.end <= high_end;
            if !low && !high {
                let (low_end, high_end) = (
                    Size::from_bytes(low_end - INITRD),
                    Size::from_bytes(high_end),
                );
                let kernel_end = Size::from_bytes(KERNEL_END);
                let or_high = match high_end.bytes() {
                    FOUR_GIB => String::new(),
                    _ => format!(", or from 4G to {high_end}"),
                };
                bail!(
                    "--e820 {extent}: with --memory {} it must lie from {kernel_end} to {low_end}{or_high}",
                    self.memory
                );
            }
            if let Some(other) = self.e820[..index]
                .iter()
                .find(|other| other.overlaps(extent))
            {
                bail!("--e820 {other} and --e820 {extent} overlap");
            }
        }
        Ok(())
    }

    fn check_names(mut self) -> Result<Self> {
        let mut seen = Vec::new();
        let dimms = self
            .nvdimm
            .iter_mut()
            .map(|dimm| (&mut dimm.id, &dimm.file, "nvdimm"));
        let virtio = self
            .virtio_pmem
            .iter_mut()
            .map(|device| (&mut device.id, &device.file, "virtio-pmem"));
        let cxl = self
            .cxl
            .iter_mut()
            .map(|device| (&mut device.id, &device.file, "cxl"));
        let mut files = Vec::new();
        for (index, (id, file, kind)) in dimms.chain(virtio).chain(cxl).enumerate() {
            let id = id.get_or_insert_with(|| format!("{kind}{index}"));
            ensure!(!seen.contains(id), "two devices are named \"{id}\"");
            seen.push(id.clone());
            if let Some(file) = file {
                ensure!(
                    !files.contains(file),
                    "two devices share the file {}",
                    file.display()
                );
                files.push(file.clone());
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(words: &str) -> String {
        match Options::from_words(words) {
            Ok(_) => panic!("{words} was taken"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn no_options_are_the_default_machine() {
        let options = Options::from_words("").unwrap();
        assert_eq!(options.memory, Size::from_mib(1024));
        assert_eq!(options.nvdimm.len(), 1);
        assert_eq!(options.nvdimm[0].labels, Some(LABELS));
        assert_eq!(options.e820, ["64M@512M".parse().unwrap()]);
    }

    #[test]
    fn bare_machine_has_no_persistent_memory() {
        let options = Options::from_words("--bare").unwrap();
        assert!(options.nvdimm.is_empty() && options.e820.is_empty());
    }

    #[test]
    fn every_key_of_an_nvdimm_is_parsed() {
        let dimm: Nvdimm = "size=512M,file=/tmp/a,labels=256K,unarmed,node=1,id=n1"
            .parse()
            .unwrap();
        assert_eq!(
            dimm,
            Nvdimm {
                id: Some("n1".into()),
                size: Some(Size::from_mib(512)),
                file: Some("/tmp/a".into()),
                labels: Some(Size::from_bytes(256 << 10)),
                unarmed: true,
                node: Some(1),
            }
        );
    }

    #[test]
    fn quoted_words_are_kept() {
        let options = Options::from_words("--bare --append 'a=1 b' --qemu '-device x'").unwrap();
        assert_eq!(options.append, ["a=1 b"]);
        assert_eq!(options.qemu, ["-device x"]);
    }

    #[test]
    fn refusal_names_the_fault() {
        for (words, reason) in [
            ("--nvdimm size=100M,labels", "multiple of 16M"),
            ("--nvdimm size=1M", "multiple of 2M"),
            ("--nvdimm labels", "needs size= or file="),
            ("--nvdimm sise=1G", "no \"sise\""),
            ("--nvdimm size=16M,labels=4K", "at least 128K"),
            ("--nvdimm size=16M,id=1a", "can't be a name"),
            ("--nvdimm size=16M,node=8", "from 0 to 7"),
            ("--virtio-pmem size=3M", "multiple of 2M"),
            ("--virtio-pmem size=4M,labels", "no \"labels\""),
            ("--cxl size=64M", "multiple of 256M"),
            ("--cxl id=a", "needs size= or file="),
            (
                "--nvdimm size=16M,id=a --virtio-pmem size=16M,id=a",
                "two devices are named",
            ),
            (
                "--nvdimm size=16M,file=/x --virtio-pmem size=16M,file=/x",
                "share the file",
            ),
            ("--e820 64M@512M --e820 64M@544M", "overlap"),
            ("--e820 64M@1G", "it must lie from 128M to 960M"),
            ("--e820 64M@3G --memory 4G", "or from 4G to 6G"),
            ("--e820 512M@16M", "it must lie"),
            ("--e820 1000@512M", "multiples of 4K"),
            ("--e820 64M", "SIZE@START"),
            ("--memory 64M", "at least 256M"),
            ("--cpus 0", "from 1 to 64"),
            ("--icount", "one processor"),
            ("--nonsense", "--nonsense"),
            ("--append 'a", "quote"),
            ("--disk a", "required arguments"),
            (
                "--disk a --kernel b --initrd c --image d",
                "cannot be used with",
            ),
        ] {
            let text = refusal(words);
            assert!(text.contains(reason), "{words}: {text}");
            assert!(!text.contains('\n'), "{words}: {text}");
        }
    }

    #[test]
    fn ranges_above_4_gib_are_allowed() {
        Options::from_words("--memory 4G --e820 1G@4G --e820 1G@5G").unwrap();
    }
}
