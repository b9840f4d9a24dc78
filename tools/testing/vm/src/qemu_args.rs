// SPDX-License-Identifier: GPL-2.0

//! Makes QEMU's command line from [`Options`].

use crate::architecture::Architecture;
use crate::options::{Cxl, Nvdimm, Options, Persistence, VirtioPmem};
use abstractions::tsc;
use anyhow::{Context, Result, ensure};
use std::env;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use units::Size;

/// Environment variable with the folder of `kernel`, `initrd` and `guest.img`.
const IMAGES: &str = "RUST_PMEM_IMAGES";
/// A file in that folder which marks the kernel as a debug kernel, with further arguments for its command line.
const DEBUG: &str = "debug.cmdline";
/// A file in that folder which marks a kernel that has virtiofs but not 9p.
const VIRTIOFS: &str = "virtiofs";

/// The files that a guest boots from.
#[derive(Debug, Clone)]
pub struct Images {
    pub kernel: PathBuf,
    pub architecture: Architecture,
    pub initrd: PathBuf,
    /// Image of the guest's root, or the disk with an installed system.
    pub image: PathBuf,
    /// Arguments for a debug kernel, which boots several times slower than a usual one.
    pub debug: Option<String>,
    /// Folder that the guest sees as /rust_pmem.
    pub share: PathBuf,
    /// Whether it sees that by virtiofs instead of 9p.
    pub virtiofs: bool,
}

impl Images {
    /// Finds the files that the options name, or those of the set-up. An error names the missing ones.
    pub fn find(options: &Options) -> Result<Self> {
        let folder = env::var_os(IMAGES).map(PathBuf::from);
        let pick = |named: &Option<PathBuf>, name: &str, flag: &str| {
            let path = match (named, &folder) {
                (Some(path), _) => path.clone(),
                (None, Some(folder)) => folder.join(name),
                (None, None) => anyhow::bail!(
                    "no {name}: name one by {flag}, or start this by setup/enter, which sets {IMAGES}"
                ),
            };
            ensure!(
                path.is_file(),
                "{}: no such file (from {flag} or {IMAGES})",
                path.display()
            );
            Ok(path)
        };
        let kernel = pick(&options.kernel, "kernel", "--kernel")?;
        // The files beside a kernel of the set-up tell what it is.
        let beside = |name: &str| match &options.kernel {
            Some(_) => None,
            None => folder.as_ref().map(|folder| folder.join(name)),
        };
        Ok(Self {
            architecture: Architecture::of_kernel(&kernel)?,
            kernel,
            initrd: pick(&options.initrd, "initrd", "--initrd")?,
            image: match &options.disk {
                disk @ Some(_) => pick(disk, "disk", "--disk")?,
                None => pick(&options.image, "guest.img", "--image")?,
            },
            debug: beside(DEBUG).and_then(|file| fs::read_to_string(file).ok()),
            share: share(options)?,
            virtiofs: beside(VIRTIOFS).is_some_and(|file| file.exists()),
        })
    }
}

/// Finds the checkout.
fn share(options: &Options) -> Result<PathBuf> {
    const GUEST: &str = "tools/testing/vm/guest/main";
    if let Some(share) = &options.share {
        ensure!(
            share.join(GUEST).is_file(),
            "--share {}: there is no {GUEST} in it",
            share.display()
        );
        return Ok(share.canonicalize()?);
    }
    let here = env::current_dir()?;
    here.ancestors()
        .find(|folder| folder.join(GUEST).is_file())
        .map(Path::to_path_buf)
        .with_context(|| {
            format!(
                "{} is in no checkout of the project: name one by --share",
                here.display()
            )
        })
}

/// Environment variable with the folder of the QEMU that takes the power-failure plugin.
const POWERFAIL: &str = "RUST_PMEM_POWERFAIL";

/// Returns the command that runs QEMU.
pub(crate) fn program(options: &Options, images: &Images) -> Result<Command> {
    if options.powerfail.is_none() {
        return Ok(Command::new(images.architecture.qemu()));
    }
    let root = env::var_os(POWERFAIL).map(PathBuf::from);
    let root = root.filter(|root| root.is_dir());
    let root = root.context(
        "there is no QEMU for --powerfail: run setup/setup powerfail, and this by setup/enter",
    )?;
    // Its libraries are not those of this root.
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(&libraries)
        .arg(root.join("usr/bin/qemu-system-x86_64"))
        .arg("-L")
        .arg(root.join("usr/share/qemu"))
        .arg("-L")
        .arg(root.join("usr/share/seabios"))
        .env("QEMU_MODULE_DIR", libraries.join("qemu"));
    Ok(command)
}

/// Escapes a value in QEMU's options `key=value,…`, where commas are doubled.
fn escaped(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{}: not a name in UTF-8", path.display()))?;
    Ok(text.replace(',', ",,"))
}

/// QEMU's options for a device and for the memory behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub objects: Vec<String>,
    pub device: String,
    /// Bytes that it takes of the guest's address space.
    pub bytes: u64,
}

/// The file behind a device: the one that is named, or one in `folder`.
fn backing_path(id: &str, file: Option<&Path>, folder: &Path) -> PathBuf {
    match file {
        Some(file) => file.to_path_buf(),
        None => folder.join(format!("{id}.img")),
    }
}

/// Finds or makes the backing file, in `folder` if it has no name. Returns its path and length.
fn backing(
    id: &str,
    file: Option<&Path>,
    size: Option<Size>,
    labels: Option<Size>,
    folder: &Path,
) -> Result<(PathBuf, u64)> {
    let path = backing_path(id, file, folder);
    let shown = path.display();
    let labels = labels.map_or(0, Size::bytes);
    let length = match (path.metadata(), size) {
        (Ok(meta), size) => {
            ensure!(meta.is_file(), "{shown}: not a regular file");
            if let Some(size) = size {
                ensure!(
                    meta.len() == size.bytes() + labels,
                    "{shown}: it holds {}, not {size} and {} of labels",
                    Size::from_bytes(meta.len()),
                    Size::from_bytes(labels)
                );
            }
            meta.len()
        }
        (Err(_), Some(size)) => {
            let length = size.bytes() + labels;
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            file.and_then(|file| file.set_len(length))
                .with_context(|| format!("{shown}: can't be made"))?;
            length
        }
        (Err(error), None) => return Err(error).with_context(|| shown.to_string()),
    };
    ensure!(length > labels, "{shown}: it is too small for a device");
    Ok((path, length))
}

impl Nvdimm {
    pub(crate) fn device(&self, id: &str, folder: &Path) -> Result<Device> {
        let (path, bytes) = backing(id, self.file.as_deref(), self.size, self.labels, folder)?;
        let mut device = format!("nvdimm,id={id},memdev=mem-{id}");
        if let Some(labels) = self.labels {
            device.push_str(&format!(",label-size={}", labels.bytes()));
        }
        if self.unarmed {
            device.push_str(",unarmed=on");
        }
        if let Some(node) = self.node {
            device.push_str(&format!(",node={node}"));
        }
        Ok(Device {
            objects: vec![object(id, &path, bytes)?],
            device,
            bytes,
        })
    }
}

impl VirtioPmem {
    pub(crate) fn device(&self, id: &str, folder: &Path) -> Result<Device> {
        let (path, bytes) = backing(id, self.file.as_deref(), self.size, None, folder)?;
        Ok(Device {
            objects: vec![object(id, &path, bytes)?],
            device: format!("virtio-pmem-pci,id={id},memdev=mem-{id}"),
            bytes,
        })
    }
}

/// Returns the files of virtio-pmem devices with a volatile cache, and those of the others.
pub(crate) fn virtio_pmem_files(options: &Options, folder: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut volatile, mut others) = (Vec::new(), Vec::new());
    for device in &options.virtio_pmem {
        let id = device.id.as_deref().unwrap_or_default();
        let path = backing_path(id, device.file.as_deref(), folder);
        if device.volatile_cache {
            volatile.push(path);
        } else {
            others.push(path);
        }
    }
    (volatile, others)
}

/// Size of a CXL device's label area.
const CXL_LABELS: Size = Size::from_bytes(256 * 1024);

impl Cxl {
    pub(crate) fn device(&self, id: &str, folder: &Path) -> Result<Device> {
        let (path, bytes) = backing(id, self.file.as_deref(), self.size, None, folder)?;
        let mut labels = path.clone().into_os_string();
        labels.push(".labels");
        let label_id = format!("{id}.labels");
        let (labels, label_bytes) = backing(
            &label_id,
            Some(labels.as_ref()),
            Some(CXL_LABELS),
            None,
            folder,
        )?;
        Ok(Device {
            objects: vec![
                object(id, &path, bytes)?,
                object(&label_id, &labels, label_bytes)?,
            ],
            device: format!("cxl-type3,id={id},persistent-memdev=mem-{id},lsa=mem-{label_id}"),
            bytes,
        })
    }
}

fn object(id: &str, path: &Path, bytes: u64) -> Result<String> {
    Ok(format!(
        "memory-backend-file,id=mem-{id},share=on,size={bytes},mem-path={}",
        escaped(path)?
    ))
}

/// Free slots for NVDIMMs that are added later.
const FREE_DIMMS: usize = 4;
/// Free address space for devices that are added later.
const FREE_BYTES: u64 = 64 << 30;

/// Makes QEMU's command line, except for the channels to this program and to virtiofsd.
pub(crate) fn arguments(
    options: &Options,
    images: &Images,
    serial: &Path,
    folder: &Path,
) -> Result<Vec<OsString>> {
    let architecture = images.architecture;
    architecture.check(options)?;
    let mut devices = Vec::new();
    for dimm in &options.nvdimm {
        devices.push(dimm.device(dimm.id.as_deref().unwrap_or_default(), folder)?);
    }
    for device in &options.virtio_pmem {
        devices.push(device.device(device.id.as_deref().unwrap_or_default(), folder)?);
    }
    let mut cxl = Vec::new();
    for device in &options.cxl {
        cxl.push(device.device(device.id.as_deref().unwrap_or_default(), folder)?);
    }
    let most = options.memory.bytes()
        + FREE_BYTES
        + devices.iter().map(|device| device.bytes).sum::<u64>();
    let most = most.next_multiple_of(1 << 30);

    let mut machine = String::from(architecture.machine());
    // virtiofsd maps the guest's memory.
    let ram = match images.virtiofs {
        true => "memory-backend-memfd,share=on",
        false => "memory-backend-ram",
    };
    // Options for QEMU may lay out the memory themselves.
    let shared = images.virtiofs
        && options.nodes() == 1
        && !options.qemu.iter().any(|more| more.contains("-numa"));
    if shared {
        machine.push_str(",memory-backend=main-ram");
    }
    if options.persistence == Persistence::Cpu {
        machine.push_str(",nvdimm-persistence=cpu");
    }
    let mut cpu = options.cpu.clone();
    let cpu = cpu.get_or_insert_with(|| architecture.cpu().to_owned());
    if !cxl.is_empty() {
        machine.push_str(",cxl=on");
        // The kernel refuses CXL regions if it runs on a hypervisor that can't flush the caches.
        cpu.push_str(",hypervisor=off");
    }
    let mut append = String::from(architecture.append());
    // The emulated counter is the host's. On a busy host, the kernel may measure forty times its frequency, and its clock is
    // slower by that. With --icount, the counter is that of instructions.
    if let (Architecture::X86_64, false, Some(khz)) = (architecture, options.icount, tsc::khz()) {
        append.push_str(&format!(" tsc_early_khz={khz}"));
    }
    if options.disk.is_some() {
        append.push_str(" root=/dev/vda");
    }
    for extent in &options.e820 {
        append.push_str(&format!(" memmap={}!{}", extent.size(), extent.start()));
    }
    for more in images.debug.iter().chain(&options.append) {
        append.push(' ');
        append.push_str(more.trim_end());
    }

    let mut line: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
    add(&[
        "-no-user-config",
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
        "-nic",
        "none",
    ]);
    let threads = if options.icount { "single" } else { "multi" };
    add(&[
        "-accel",
        &format!("tcg,thread={threads}"),
        "-cpu",
        cpu,
        "-machine",
        &machine,
    ]);
    if let Some(firmware) = architecture.firmware() {
        add(&["-bios", firmware]);
    }
    if options.icount {
        add(&["-icount", "shift=0,sleep=off"]);
    }
    add(&["-smp", &options.cpus.to_string()]);
    let slots = options.nvdimm.len() + FREE_DIMMS;
    add(&[
        "-m",
        &format!(
            "size={}M,slots={slots},maxmem={}M",
            options.memory.bytes() >> 20,
            most >> 20
        ),
    ]);
    if options.nodes() > 1 {
        numa(options, ram, &mut add);
    } else if shared {
        add(&[
            "-object",
            &format!("{ram},id=main-ram,size={}", options.memory.bytes()),
        ]);
    }
    add(&[
        "-kernel",
        &utf8(&images.kernel)?,
        "-initrd",
        &utf8(&images.initrd)?,
        "-append",
        &append,
    ]);
    let access = match options.disk {
        Some(_) => "off",
        None => "on",
    };
    add(&[
        "-drive",
        &format!(
            "if=none,id=root,format=raw,read-only={access},file={}",
            escaped(&images.image)?
        ),
        "-device",
        "virtio-blk-pci,drive=root",
    ]);
    if !images.virtiofs {
        add(&[
            "-virtfs",
            &format!(
                "local,mount_tag=checkout,security_model=none,readonly=on,multidevs=remap,path={}",
                escaped(&images.share)?
            ),
        ]);
    }
    add(&[
        "-chardev",
        &format!("file,id=serial,append=on,path={}", escaped(serial)?),
        "-serial",
        "chardev:serial",
        "-device",
        "virtio-serial-pci",
    ]);
    for slot in 0..options.slots {
        add(&[
            "-device",
            &format!("pcie-root-port,id=slot{slot},chassis={}", slot + 1),
        ]);
    }
    for device in &devices {
        for object in &device.objects {
            add(&["-object", object]);
        }
        add(&["-device", &device.device]);
    }
    if !cxl.is_empty() {
        cxl_bridge(&cxl, &mut add);
    }
    if let Some(words) = &options.powerfail {
        add(&["-plugin", &format!("{},{words}", plugin("powerfail")?)]);
    }
    if let Some(file) = &options.coverage {
        let words = format!("{},blocks={}", plugin("counter")?, escaped(file)?);
        add(&["-plugin", &words]);
    }
    for more in &options.qemu {
        let words =
            shlex::split(more).with_context(|| format!("--qemu {more}: a quote is not closed"))?;
        line.extend(words.into_iter().map(OsString::from));
    }
    Ok(line)
}

/// Returns QEMU's option for a plugin of ours.
fn plugin(name: &str) -> Result<String> {
    let plugin = env::current_exe()?.with_file_name(format!("libpmem_{name}.so"));
    ensure!(
        plugin.is_file(),
        "{}: there is no such file; `make tools` builds it",
        plugin.display()
    );
    Ok(format!("file={}", escaped(&plugin)?))
}

/// Adds NUMA nodes with equal memory of kind `ram`; the first one has the remainder as well.
fn numa(options: &Options, ram: &str, add: &mut impl FnMut(&[&str])) {
    const UNIT: u64 = 2 << 20;
    let nodes = u64::from(options.nodes());
    let memory = options.memory.bytes();
    let share = memory / (nodes * UNIT) * UNIT;
    for node in 0..nodes {
        let size = match node {
            0 => memory - (nodes - 1) * share,
            _ => share,
        };
        add(&[
            "-object",
            &format!("{ram},id=node{node},size={size}"),
            "-numa",
            &format!("node,nodeid={node},memdev=node{node}"),
        ]);
    }
}

/// Adds a host bridge with a root port for each device, and a memory window.
fn cxl_bridge(devices: &[Device], add: &mut impl FnMut(&[&str])) {
    const BUS: u8 = 64;
    /// Granularity of windows.
    const UNIT: u64 = 256 << 20;
    add(&[
        "-device",
        &format!("pxb-cxl,id=cxl.bus,bus=pcie.0,bus_nr={BUS}"),
    ]);
    let mut window = 0;
    for (index, device) in devices.iter().enumerate() {
        window += device.bytes.next_multiple_of(UNIT);
        for object in &device.objects {
            add(&["-object", object]);
        }
        add(&[
            "-device",
            &format!("cxl-rp,id=cxl.port{index},bus=cxl.bus,port={index},chassis=0,slot={index}"),
            "-device",
            &format!("{},bus=cxl.port{index},sn={}", device.device, index + 1),
        ]);
    }
    add(&[
        "-machine",
        &format!("cxl-fmw.0.targets.0=cxl.bus,cxl-fmw.0.size={window}"),
    ]);
}

fn utf8(path: &Path) -> Result<String> {
    Ok(path
        .to_str()
        .with_context(|| format!("{}: not a name in UTF-8", path.display()))?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(dimm: &str, folder: &Path) -> String {
        let dimm: Nvdimm = dimm.parse().unwrap();
        format!("{:#}", dimm.device("a", folder).unwrap_err())
    }

    #[test]
    fn unnamed_file_is_made_and_reused() {
        let folder = tempfile::tempdir().unwrap();
        let dimm: Nvdimm = "size=16M,labels".parse().unwrap();
        let device = dimm.device("a", folder.path()).unwrap();
        assert_eq!(device.bytes, (16 << 20) + (128 << 10));
        assert_eq!(
            folder.path().join("a.img").metadata().unwrap().len(),
            device.bytes
        );
        assert_eq!(
            dimm.device("a", folder.path()).unwrap(),
            device,
            "and taken again"
        );
    }

    #[test]
    fn unsuitable_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let file = path.display();
        assert!(problem(&format!("file={file}"), folder.path()).contains("No such file"));
        std::fs::write(&path, [0; 4096]).unwrap();
        assert!(
            problem(&format!("file={file},size=16M"), folder.path())
                .contains("it holds 4K, not 16M")
        );
        assert!(problem(&format!("file={file},labels"), folder.path()).contains("too small"));
        let dir = folder.path().display();
        assert!(problem(&format!("file={dir}"), folder.path()).contains("not a regular file"));
    }

    #[test]
    fn cxl_labels_have_their_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let cxl: Cxl = "size=256M".parse().unwrap();
        let device = cxl.device("a", folder.path()).unwrap();
        assert_eq!(device.bytes, 256 << 20);
        let labels = folder.path().join("a.img.labels");
        assert_eq!(labels.metadata().unwrap().len(), CXL_LABELS.bytes());
    }

    #[test]
    fn numa_nodes_share_the_memory() {
        let options =
            Options::from_words("--memory 512M --nvdimm size=16M,node=2 --nvdimm size=16M");
        let mut words = Vec::new();
        numa(
            &options.unwrap(),
            "memory-backend-ram",
            &mut |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned())),
        );
        let sizes: Vec<u64> = words
            .iter()
            .filter_map(|word| word.split_once("size=")?.1.parse().ok())
            .collect();
        assert_eq!(sizes.len(), 3);
        assert_eq!(sizes.iter().sum::<u64>(), 512 << 20);
    }

    #[test]
    fn commas_are_doubled() {
        assert_eq!(escaped(Path::new("/a,b")).unwrap(), "/a,,b");
    }
}
