// SPDX-License-Identifier: GPL-2.0

//! The cost of each namespace mode in RAM, capacity and wear.
//!
//! The figures follow the kernel: `nd_pfn_init` of drivers/nvdimm/pfn_devs.c, `alloc_arena` of
//! drivers/nvdimm/btt.c, `dax_kmem_range` of drivers/dax/kmem.c, and Documentation/mm/vmemmap_dedup.rst.

use crate::block::topology::{self, Mounts, Volume};
use crate::inventory::{self, MemmapLocation, Mode};
use crate::nd::dimm::{self, Dimm};
use crate::nd::region::Region;
use crate::nd::{Device, Kind, Name};
use crate::sysfs::{self, Host};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Serialize;
use units::PAGE;

/// Bytes of a `struct page`, and what an info block reserves for one.
const STRUCT_PAGE: u64 = 64;
/// Bytes in front of the data of an fsdax or devdax namespace.
const INFO_BLOCK: u64 = 8 << 10;
const M2: u64 = 2 << 20;
const G1: u64 = 1 << 30;
/// Memmap pages that are kept for a page of device DAX; the others are shared (vmemmap deduplication).
const SHARED_MEMMAP_PAGES: u64 = 2;

/// The intended use of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Files, mapped and copied without the page cache.
    Files,
    /// A database that maps its files and makes stores durable itself.
    Database,
    /// A disk whose sectors are written whole or not at all.
    Sectors,
    /// Programs that map the device themselves.
    Programs,
    /// More RAM.
    Ram,
}

/// The cost of a mode.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct ModeCost {
    /// Its name: `fsdax-ram`.
    pub form: &'static str,
    /// Why the mode is not possible; `null` if it is.
    pub impossible: Option<String>,
    /// Bytes that can be used.
    pub capacity: u64,
    /// Bytes that are lost to alignment.
    pub cut_off: u64,
    /// Bytes of RAM for struct pages.
    pub ram: u64,
    /// Bytes of the memory for struct pages, or for the BTT.
    pub on_device: u64,
    /// Writes to the memory besides the data.
    pub wear: &'static str,
    /// The commands that create it; none if the namespace has this form.
    pub commands: Vec<String>,
    /// The commands destroy the data of the namespace.
    pub destroys: bool,
}

/// The memory of a namespace, or the free space of a region.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Memory {
    /// The namespace, where there is one already.
    pub namespace: Option<Name>,
    /// The form that the namespace has, if it is one of those that are compared.
    pub form: Option<&'static str>,
    /// The volumes and file systems on it, in words.
    pub contents: Vec<String>,
    pub region: String,
    pub provider: String,
    pub start: u64,
    /// Its bytes.
    pub size: u64,
    /// Bytes in which the kernel takes memory as RAM, where it can.
    pub memory_block: Option<u64>,
    /// Hotplugged memory has its struct pages on itself.
    pub memmap_on_memory: bool,
    /// The kernel knows which node it would be RAM of.
    pub has_node: bool,
    /// Alignments of fsdax and devdax that the kernel supports; empty if it does not say.
    pub alignments: Vec<u64>,
    /// The kernel shares struct pages of huge pages of device DAX (vmemmap deduplication).
    pub shares_memmap: bool,
    /// The RAM of this machine.
    pub machine_ram: u64,
}

/// The cost of all modes, and the recommendation.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Advice {
    pub memory: Memory,
    pub forms: Vec<ModeCost>,
    /// The DIMMs of the region; empty if firmware does not report health.
    pub dimms: Vec<Dimm>,
    pub take: Option<Recommendation>,
}

#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Recommendation {
    #[serde(rename = "use")]
    pub purpose: Purpose,
    /// The name of a form.
    pub form: &'static str,
    pub why: String,
    /// The commands that create it; none if the namespace has this form.
    pub commands: Vec<String>,
    /// The commands destroy the data of the namespace.
    pub destroys: bool,
}

fn down(value: u64, unit: u64) -> u64 {
    value - value % unit
}

impl Memory {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Raw memory of these providers has `struct page`s.
    fn has_pages(&self) -> bool {
        matches!(self.provider.as_str(), "e820" | "virtio-pmem")
    }

    /// Returns the options with which ndctl selects the memory.
    fn target(&self) -> String {
        match &self.namespace {
            Some(name) => format!("-f -e {name}"),
            None => format!("-r {}", self.region),
        }
    }

    fn command(&self, options: &str) -> Vec<String> {
        vec![format!(
            "ndctl create-namespace {} -m {options}",
            self.target()
        )]
    }

    fn raw(&self) -> ModeCost {
        ModeCost {
            form: "raw",
            impossible: None,
            capacity: self.size,
            cut_off: 0,
            ram: match self.has_pages() {
                true => self.size / PAGE * STRUCT_PAGE,
                false => 0,
            },
            on_device: 0,
            wear: "none",
            commands: self.command("raw"),
            destroys: true,
        }
    }

    fn sector(&self) -> ModeCost {
        const ARENA: u64 = 1 << 39;
        const SMALLEST: u64 = 16 << 20;
        const SECTOR: u64 = 4096;
        const ENTRY: u64 = 4;
        const FREE: u64 = 256;
        const LOG_GROUP: u64 = 64;
        let mut left = self.size;
        let mut sectors = 0;
        while left >= SMALLEST {
            let arena = left.min(ARENA);
            let available = down(arena, PAGE) - 2 * PAGE - FREE * LOG_GROUP;
            sectors += ((available - PAGE) / (SECTOR + ENTRY)).saturating_sub(FREE);
            left -= arena;
        }
        let capacity = sectors * SECTOR;
        ModeCost {
            form: "sector",
            impossible: match self.provider.as_str() {
                "virtio-pmem" => Some("it would be read-only".into()),
                _ if sectors == 0 => Some("it takes 16 MiB".into()),
                _ => None,
            },
            capacity,
            cut_off: left,
            ram: 0,
            on_device: self.size - capacity - left,
            wear: "20 bytes of map and log with each sector",
            commands: self.command("sector"),
            destroys: true,
        }
    }

    /// Returns the cost of a mode with an info block: `fsdax`, `devdax`.
    fn mapped(&self, form: &'static str, mode: &str, align: u64, on_device: bool) -> ModeCost {
        let unit = align.max(M2);
        let pages = self.size.saturating_sub(INFO_BLOCK) / PAGE;
        let map = match on_device {
            true => pages * STRUCT_PAGE,
            false => 0,
        };
        let data = (self.start + INFO_BLOCK + map).next_multiple_of(unit);
        let end = down(self.end(), unit);
        let capacity = end.saturating_sub(data);
        // A huge page that needs more than these memmap pages shares the rest (vmemmap deduplication).
        let covered = end.saturating_sub(self.start);
        let is_shared = self.shares_memmap
            && mode == "devdax"
            && align / PAGE * STRUCT_PAGE / PAGE > SHARED_MEMMAP_PAGES;
        let ram = match (on_device, is_shared) {
            (true, _) => 0,
            (false, true) => covered.div_ceil(align) * SHARED_MEMMAP_PAGES * PAGE,
            (false, false) => covered / PAGE * STRUCT_PAGE,
        };
        let place = if on_device { "dev" } else { "mem" };
        let letter = match align {
            PAGE => "4K",
            G1 => "1G",
            _ => "2M",
        };
        ModeCost {
            form,
            impossible: if !self.alignments.is_empty() && !self.alignments.contains(&align) {
                Some(format!("the kernel has no pages of {letter}"))
            } else if self.start % unit != 0 {
                Some(format!("its start is not a multiple of {letter}"))
            } else if capacity == 0 {
                Some(format!("nothing is left when it is aligned to {letter}"))
            } else {
                None
            },
            capacity,
            cut_off: self.size.saturating_sub(capacity + map),
            ram,
            on_device: map,
            wear: match on_device {
                true => "the struct pages at each start and as pages are used",
                false => "none",
            },
            commands: self.command(&format!("{mode} -M {place} -a {letter}")),
            destroys: true,
        }
    }

    fn system_ram(&self) -> ModeCost {
        let devdax = self.mapped("system-ram", "devdax", M2, false);
        let end = down(self.end(), M2);
        let data = end - devdax.capacity;
        let (capacity, impossible) = match self.memory_block {
            None => (0, Some("the kernel can't add memory".to_owned())),
            Some(block) => {
                let capacity = down(end, block).saturating_sub(data.next_multiple_of(block));
                let why = if devdax.impossible.is_some() {
                    devdax.impossible
                } else if !self.has_node {
                    Some("the kernel does not know its NUMA node".into())
                } else if capacity == 0 {
                    Some(format!("it has no whole block of {} MiB", block >> 20))
                } else {
                    None
                };
                (capacity, why)
            }
        };
        let map = capacity / PAGE * STRUCT_PAGE;
        let (capacity, ram, on_device) = match self.memmap_on_memory {
            true => (capacity - map, 0, map),
            false => (capacity, map, 0),
        };
        let mut commands = devdax.commands;
        commands.push("echo offline >/sys/devices/system/memory/auto_online_blocks".into());
        commands.push("daxctl reconfigure-device -m system-ram DAX_DEVICE".into());
        ModeCost {
            form: "system-ram",
            impossible,
            capacity,
            cut_off: self.size.saturating_sub(capacity + on_device),
            ram,
            on_device,
            wear: "as RAM: all that programs do",
            commands,
            destroys: true,
        }
    }

    pub fn forms(&self) -> Vec<ModeCost> {
        let mut forms = self.all_forms();
        for form in &mut forms {
            if self.form == Some(form.form) {
                form.commands.clear();
            }
            // Free space has no data.
            form.destroys = self.namespace.is_some() && !form.commands.is_empty();
        }
        forms
    }

    fn all_forms(&self) -> Vec<ModeCost> {
        vec![
            self.raw(),
            self.sector(),
            self.mapped("fsdax-ram", "fsdax", M2, false),
            self.mapped("fsdax-device", "fsdax", M2, true),
            self.mapped("devdax-4k", "devdax", PAGE, false),
            self.mapped("devdax-2m", "devdax", M2, false),
            self.mapped("devdax-1g", "devdax", G1, false),
            self.mapped("devdax-device", "devdax", M2, true),
            self.system_ram(),
        ]
    }

    /// Returns the recommended mode; `None` if none is possible.
    fn take(&self, forms: &[ModeCost], purpose: Purpose) -> Option<Recommendation> {
        let possible = |name: &str| {
            forms
                .iter()
                .find(|form| form.form == name && form.impossible.is_none())
        };
        let choose = |form: &ModeCost, why: String| Recommendation {
            purpose,
            form: form.form,
            why,
            commands: form.commands.clone(),
            destroys: form.destroys,
        };
        let disk = || "mkfs.ext4 -b 4096 -E stride=512,stripe_width=512 /dev/pmemN".to_owned();
        match purpose {
            Purpose::Files | Purpose::Database => {
                let ram = possible("fsdax-ram")?;
                let percent = ram.ram.saturating_mul(100) / self.machine_ram.max(1);
                let mut take = match possible("fsdax-device").filter(|_| percent >= 5) {
                    Some(device) => choose(
                        device,
                        format!(
                            "its struct pages would take {percent} % of the RAM; on the device they cost capacity and wear"
                        ),
                    ),
                    None => choose(
                        ram,
                        match percent {
                            0 => "its struct pages take less than 1 % of the RAM and cause no wear"
                                .into(),
                            _ => format!(
                                "its struct pages take {percent} % of the RAM and cause no wear"
                            ),
                        },
                    ),
                };
                // A disk that is there may have a file system.
                if !take.commands.is_empty() {
                    take.commands.push(disk());
                    take.commands
                        .push("mount -o dax=always /dev/pmemN DIR".into());
                }
                if purpose == Purpose::Database && self.provider == "virtio-pmem" {
                    take.why.push_str(
                        "; MAP_SYNC is refused on virtio-pmem, so that the database must call fsync(2)",
                    );
                }
                Some(take)
            }
            Purpose::Sectors => Some(match possible("sector") {
                Some(form) => choose(
                    form,
                    "a sector is the old or the new one after a power cut; there is no DAX".into(),
                ),
                None => choose(
                    possible("raw")?,
                    "sector mode is not possible: a power cut may tear a sector".into(),
                ),
            }),
            Purpose::Programs => {
                let large = possible("devdax-1g").filter(|form| form.cut_off <= self.size / 20);
                Some(match large {
                    Some(form) => choose(
                        form,
                        "the fewest page tables and the smallest memmap; less than a twentieth is cut off".into(),
                    ),
                    None => choose(
                        possible("devdax-2m")?,
                        "its memmap is a quarter of that for 4 KiB pages; alignment to 1 GiB would cut off too much".into(),
                    ),
                })
            }
            Purpose::Ram => {
                let form = possible("system-ram")?;
                Some(choose(
                    form,
                    format!(
                        "the kernel takes whole blocks of {} MiB; nothing in it outlives a reboot",
                        self.memory_block.unwrap_or(0) >> 20
                    ),
                ))
            }
        }
    }
}

/// The memory of a namespace.
pub fn of_namespace(host: &Host, name: Name) -> Result<Memory> {
    let namespace = Device::find(host, name).with_context(|| format!("there is no {name}"))?;
    let number = |file: &str| {
        sysfs::number(namespace.folder().join(file))
            .with_context(|| format!("cannot read {file} of {name} (try as root)"))
    };
    let region = Region::find(host, name.region)
        .with_context(|| format!("{name} has no region that is visible"))?;
    let mut memory = of_region(host, &region)?;
    memory.namespace = Some(name);
    memory.form = form_of(host, &namespace);
    memory.contents = contents_of(host, &namespace);
    memory.start = number("resource")?;
    memory.size = number("size")?;
    // A namespace that is created again in the same place keeps its node.
    memory.has_node = has_node(&namespace.folder());
    Ok(memory)
}

/// Returns the form of a namespace, if it is one of those that are compared.
fn form_of(host: &Host, namespace: &Device) -> Option<&'static str> {
    let device = namespace.claim().unwrap_or_else(|| namespace.clone());
    let folder = device.folder();
    let mode = inventory::mode(host, device.name.kind, &device.dax_devices());
    let place = inventory::page_map(sysfs::line(folder.join("mode")).as_deref());
    let align = sysfs::number(folder.join("align"));
    match (mode, place, align) {
        (Mode::Raw, ..) => Some("raw"),
        (Mode::Sector, ..) => Some("sector"),
        (Mode::SystemRam, ..) => Some("system-ram"),
        (Mode::Fsdax, Some(MemmapLocation::Ram), Some(M2)) => Some("fsdax-ram"),
        (Mode::Fsdax, Some(MemmapLocation::Device), Some(M2)) => Some("fsdax-device"),
        (Mode::Devdax, Some(MemmapLocation::Ram), Some(PAGE)) => Some("devdax-4k"),
        (Mode::Devdax, Some(MemmapLocation::Ram), Some(M2)) => Some("devdax-2m"),
        (Mode::Devdax, Some(MemmapLocation::Ram), Some(G1)) => Some("devdax-1g"),
        (Mode::Devdax, Some(MemmapLocation::Device), Some(M2)) => Some("devdax-device"),
        _ => None,
    }
}

/// Returns what is on the disk of a namespace; a disk that cannot be looked at has contents, too.
fn contents_of(host: &Host, namespace: &Device) -> Vec<String> {
    let device = namespace.claim().unwrap_or_else(|| namespace.clone());
    let Some(disk) = device.disk() else {
        return Vec::new();
    };
    let volume = Mounts::here().and_then(|mounts| topology::of_disk(host, disk.name(), &mounts));
    match volume {
        Ok(volume) => contents(&volume),
        Err(error) => vec![format!("unknown: {error:#}")],
    }
}

fn contents(volume: &Volume) -> Vec<String> {
    let name = &volume.name;
    let mounted: Vec<_> = volume
        .mounts
        .iter()
        .map(|mount| sysfs::printable(&mount.directory))
        .collect();
    let text = match (&volume.file_system, mounted.as_slice()) {
        (Some(kind), []) => Some(format!("{name}: {kind}")),
        (Some(kind), all) => Some(format!("{name}: {kind}, mounted at {}", all.join(" "))),
        (None, []) => None,
        (None, all) => Some(format!("{name}: mounted at {}", all.join(" "))),
    };
    text.into_iter()
        .chain(volume.children.iter().flat_map(contents))
        .collect()
}

fn has_node(folder: &std::path::Path) -> bool {
    sysfs::line(folder.join("target_node"))
        .and_then(|node| node.parse::<i64>().ok())
        .is_some_and(|node| node >= 0)
}

/// Returns the alignments that the kernel supports for info blocks in a region.
fn alignments(host: &Host, region: &Region) -> Vec<u64> {
    let seed = sysfs::line(region.folder().join("dax_seed")).unwrap_or_default();
    let file = host.path(format!("sys/bus/nd/devices/{seed}/supported_alignments"));
    let line = sysfs::line(file).unwrap_or_default();
    line.split_whitespace()
        .filter_map(|align| align.parse().ok())
        .collect()
}

/// The memory of a region that no namespace has yet. Fails on kernels with larger pages than 4 KiB.
pub fn of_region(host: &Host, region: &Region) -> Result<Memory> {
    let page = rustix::param::page_size();
    ensure!(
        page as u64 == PAGE,
        "this kernel has pages of {} KiB; costs are known for 4 KiB only",
        page >> 10
    );
    let block = sysfs::line(host.path("sys/devices/system/memory/block_size_bytes"))
        .and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok())
        .filter(|block| *block != 0);
    let on_memory = host.path("sys/module/memory_hotplug/parameters/memmap_on_memory");
    let meminfo = std::fs::read_to_string(host.path("proc/meminfo")).context("/proc/meminfo")?;
    let machine_ram = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .context("/proc/meminfo has no MemTotal")?;
    Ok(Memory {
        namespace: None,
        form: None,
        contents: Vec::new(),
        region: region.name.clone(),
        provider: region
            .provider()
            .with_context(|| format!("{} has no provider", region.name))?,
        start: region.start,
        size: sysfs::number(region.folder().join("max_available_extent")).unwrap_or(region.size),
        memory_block: block,
        memmap_on_memory: sysfs::line(on_memory).is_some_and(|value| value != "N" && value != "0"),
        has_node: has_node(&region.folder()),
        alignments: alignments(host, region),
        // Those that select ARCH_WANT_OPTIMIZE_DAX_VMEMMAP.
        shares_memmap: matches!(std::env::consts::ARCH, "x86_64" | "powerpc64" | "riscv64"),
        machine_ram: machine_ram.saturating_mul(1024),
    })
}

/// All memory, by namespaces, and regions without any.
pub fn all(host: &Host) -> Result<Vec<Memory>> {
    let namespaces: Vec<_> = Device::all(host)
        .into_iter()
        .filter(|device| device.name.kind == Kind::Namespace && !device.is_seed())
        .map(|device| device.name)
        .collect();
    let mut found = Vec::new();
    for region in Region::all(host) {
        let own: Vec<_> = namespaces
            .iter()
            .filter(|name| name.region == region.id)
            .collect();
        for name in &own {
            found.push(of_namespace(host, **name)?);
        }
        if own.is_empty() {
            found.push(of_region(host, &region)?);
        }
    }
    Ok(found)
}

/// Returns the cost of all modes for a memory, and the recommendation; `dimms` are those of all regions.
pub fn advice(host: &Host, memory: Memory, dimms: &[Dimm], purpose: Option<Purpose>) -> Advice {
    let forms = memory.forms();
    let take = purpose.and_then(|purpose| memory.take(&forms, purpose));
    let dimms = dimm::of_region(host, &memory.region, dimms);
    Advice {
        memory,
        forms,
        dimms,
        take,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use proptest::prelude::*;

    fn memory(start: u64, size: u64) -> Memory {
        Memory {
            namespace: None,
            form: None,
            contents: Vec::new(),
            region: "region0".into(),
            provider: "ACPI.NFIT".into(),
            start,
            size,
            memory_block: Some(128 << 20),
            memmap_on_memory: false,
            has_node: true,
            alignments: Vec::new(),
            shares_memmap: true,
            machine_ram: 4 << 30,
        }
    }

    fn form(memory: &Memory, name: &str) -> ModeCost {
        let forms = memory.forms();
        forms.into_iter().find(|form| form.form == name).unwrap()
    }

    /// The table of Documentation/driver.rst, which was measured.
    #[test]
    fn costs_match_known_figures() {
        const MIB: u64 = 1 << 20;
        let memory = memory(4 << 30, 3 << 30);
        for (name, capacity, ram) in [
            ("raw", 3072 * MIB, 0),
            ("sector", 3_216_998_400, 0),
            ("fsdax-ram", 3070 * MIB, 48 * MIB),
            ("fsdax-device", 3022 * MIB, 0),
            ("devdax-4k", 3070 * MIB, 48 * MIB),
            ("devdax-2m", 3070 * MIB, 12 * MIB),
            ("devdax-1g", 2048 * MIB, 24 << 10),
            ("devdax-device", 3022 * MIB, 0),
            ("system-ram", 2944 * MIB, 46 * MIB),
        ] {
            let form = form(&memory, name);
            // Without labels, a BTT leaves 4 KiB free at the start.
            assert!(
                form.capacity.abs_diff(capacity) <= PAGE,
                "{name}: {}",
                form.capacity
            );
            assert_eq!(form.ram, ram, "{name}");
            assert_eq!(form.impossible, None, "{name}");
        }
        assert_eq!(form(&memory, "system-ram").cut_off, 128 * MIB);
    }

    #[test]
    fn device_dax_costs_as_much_as_fsdax_without_deduplication() {
        let mut memory = memory(4 << 30, 3 << 30);
        memory.shares_memmap = false;
        assert_eq!(
            form(&memory, "devdax-2m").ram,
            form(&memory, "fsdax-ram").ram
        );
        assert_eq!(form(&memory, "system-ram").ram, 46 << 20);
    }

    #[test]
    fn impossible_modes_have_a_reason() {
        let small = memory(4 << 30, 32 << 20);
        assert!(form(&small, "system-ram").impossible.is_some());
        assert!(form(&small, "devdax-1g").impossible.is_some());
        assert!(form(&small, "sector").impossible.is_none());
        assert!(
            form(&memory(0x1000, 1 << 30), "fsdax-ram")
                .impossible
                .is_some()
        );
        let mut other = memory(4 << 30, 1 << 30);
        other.alignments = vec![PAGE, M2];
        assert!(form(&other, "devdax-2m").impossible.is_none());
        assert_eq!(
            form(&other, "devdax-1g").impossible.unwrap(),
            "the kernel has no pages of 1G"
        );
        other.has_node = false;
        assert!(form(&other, "system-ram").impossible.is_some());
        other.provider = "virtio-pmem".into();
        assert!(form(&other, "sector").impossible.is_some());
        assert_eq!(other.take(&other.forms(), Purpose::Ram), None);
        assert_eq!(
            other.take(&other.forms(), Purpose::Sectors).unwrap().form,
            "raw"
        );
    }

    #[test]
    fn recommendation_fits_the_use() {
        let take = |memory: &Memory, purpose| memory.take(&memory.forms(), purpose).unwrap().form;
        let mut large = memory(4 << 30, 64 << 30);
        assert_eq!(take(&large, Purpose::Files), "fsdax-device");
        large.machine_ram = 256 << 30;
        assert_eq!(take(&large, Purpose::Files), "fsdax-ram");
        assert_eq!(take(&large, Purpose::Database), "fsdax-ram");
        assert_eq!(take(&large, Purpose::Sectors), "sector");
        assert_eq!(take(&large, Purpose::Programs), "devdax-1g");
        assert_eq!(take(&large, Purpose::Ram), "system-ram");
        assert_eq!(
            take(&memory(4 << 30, 3 << 30), Purpose::Programs),
            "devdax-2m"
        );
    }

    const PURPOSES: [Purpose; 5] = [
        Purpose::Files,
        Purpose::Database,
        Purpose::Sectors,
        Purpose::Programs,
        Purpose::Ram,
    ];

    #[test]
    fn commands_for_a_namespace_destroy_and_say_so() {
        let mut memory = memory(4 << 30, 3 << 30);
        for is_namespace in [false, true] {
            memory.namespace = is_namespace.then(|| "namespace0.0".parse().unwrap());
            let forms = memory.forms();
            assert!(forms.iter().all(|form| form.destroys == is_namespace));
            for purpose in PURPOSES {
                let take = memory.take(&forms, purpose).unwrap();
                assert_eq!(take.destroys, is_namespace, "{purpose:?}");
                assert!(!take.commands.is_empty());
                assert_eq!(take.commands[0].contains(" -f "), is_namespace);
            }
        }
    }

    #[test]
    fn namespace_that_has_the_form_gets_no_commands() {
        let mut memory = memory(4 << 30, 3 << 30);
        memory.namespace = Some("namespace0.0".parse().unwrap());
        for purpose in PURPOSES {
            memory.form = None;
            let form = memory.take(&memory.forms(), purpose).unwrap().form;
            memory.form = Some(form);
            let take = memory.take(&memory.forms(), purpose).unwrap();
            assert_eq!((take.form, take.destroys), (form, false));
            assert_eq!(take.commands, [""; 0], "{purpose:?}");
        }
    }

    #[test]
    fn form_of_a_namespace_is_seen() {
        let machine = FakeSysfs::new();
        let form = || {
            let name = "namespace0.0".parse().unwrap();
            form_of(&machine.host, &Device::find(&machine.host, name).unwrap())
        };
        let folder = "sys/devices/ndbus0/region0/pfn0.0";
        for (mode, align, expected) in [
            ("ram", "2097152", Some("fsdax-ram")),
            ("pmem", "2097152", Some("fsdax-device")),
            // No huge pages.
            ("ram", "4096", None),
            ("none", "2097152", None),
        ] {
            machine.write(&format!("{folder}/mode"), mode);
            machine.write(&format!("{folder}/align"), align);
            assert_eq!(form(), expected, "{mode} {align}");
        }
        machine.write("sys/devices/ndbus0/region0/namespace0.0/holder", "");
        assert_eq!(form(), Some("raw"));
    }

    #[test]
    fn contents_are_listed() {
        let mut part = Volume::made_up("pmem0p1", "259:1", vec![]);
        part.file_system = Some("ext4".into());
        let disk = Volume::made_up("pmem0", "259:0", vec![part]);
        assert_eq!(contents(&disk), ["pmem0p1: ext4"]);
    }

    proptest! {
        #[test]
        fn sizes_never_exceed_memory(start in 0_u64..1 << 46, size in 0_u64..1 << 46) {
            let memory = memory(start, size);
            for form in memory.forms() {
                if form.impossible.is_none() {
                    prop_assert!(form.capacity + form.cut_off + form.on_device <= size + PAGE, "{:?}", form);
                    prop_assert!(form.capacity > 0 || form.form == "raw");
                }
            }
        }
    }
}
