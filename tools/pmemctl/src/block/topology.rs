// SPDX-License-Identifier: GPL-2.0

//! Partitions, volumes, file systems and mounts of a disk, from lsblk(8) and the table of mounts.

use crate::block::devno::DeviceNumber;
use crate::block::mountinfo::{self, MountInfo};
use crate::programs::{self, sandboxed};
use crate::sysfs::{self, Host, printable};
use anyhow::{Context, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A disk, or a partition or volume on one.
#[derive(Debug, Clone, JsonSchema, Serialize, Deserialize)]
pub struct Volume {
    /// `pmem0`, `pmem0p1`, `data-home`.
    pub name: String,
    /// The kernel's name for it: `dm-0`.
    #[serde(rename(deserialize = "kname"))]
    pub kernel_name: String,
    /// `disk`, `part`, `lvm`, `crypt`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In bytes.
    pub size: u64,
    /// `ext4`, `xfs`, `LVM2_member`.
    #[serde(rename(serialize = "file_system", deserialize = "fstype"))]
    pub file_system: Option<String>,
    #[serde(skip_deserializing)]
    pub mounts: Vec<Mount>,
    /// Partitions and volumes on it.
    #[serde(default)]
    pub children: Vec<Volume>,
    #[serde(rename = "maj:min", skip_serializing)]
    number: String,
}

impl Volume {
    /// Where it is mounted, if it is, as [`printable`] has it; the first place of several.
    pub fn mount(&self) -> Option<String> {
        Some(printable(&self.mounts.first()?.directory))
    }

    /// The path of its device.
    pub(crate) fn node(&self) -> String {
        format!("/dev/{}", self.kernel_name)
    }

    pub(crate) fn is_ext4(&self) -> bool {
        matches!(self.file_system.as_deref(), Some("ext2" | "ext3" | "ext4"))
    }

    pub fn number(&self) -> Result<DeviceNumber> {
        self.number
            .parse()
            .with_context(|| format!("the number of {}", self.name))
    }

    #[cfg(test)]
    pub(crate) fn made_up(name: &str, number: &str, children: Vec<Volume>) -> Self {
        Self {
            name: name.into(),
            kernel_name: name.into(),
            kind: "disk".into(),
            size: 0,
            file_system: None,
            mounts: Vec::new(),
            children,
            number: number.into(),
        }
    }
}

/// Where a file system is mounted.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Mount {
    #[serde(serialize_with = "as_printable")]
    #[schemars(with = "String")]
    pub directory: OsString,
    /// Whether files are mapped and copied without the page cache.
    pub dax: Dax,
    /// The directory of the file system that is seen there: `/` where it is seen as a whole.
    #[serde(skip)]
    pub root: OsString,
    /// The options of the file system.
    #[serde(skip)]
    pub options: String,
}

fn as_printable<S: Serializer>(path: &OsStr, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(&printable(path))
}

/// Which files of a mount are accessed directly (Documentation/filesystems/dax.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dax {
    /// All: `-o dax=always`.
    Always,
    /// Files with the flag `FS_XFLAG_DAX`.
    PerFile,
    /// None: `-o dax=never`.
    Never,
    /// None, as the device or the file system has no direct access.
    Unsupported,
}

impl fmt::Display for Dax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Always => "always",
            Self::PerFile => "per file",
            Self::Never => "never",
            Self::Unsupported => "unsupported",
        })
    }
}

impl Dax {
    /// Returns the mode of a mount with these options, on a device with or without direct access.
    fn of(file_system: &str, options: &str, device: bool) -> Self {
        let option = options
            .split(',')
            .filter_map(|option| option.strip_prefix("dax"))
            .next_back();
        match (option, file_system) {
            _ if !device => Self::Unsupported,
            (Some("" | "=always"), _) => Self::Always,
            (Some("=never"), _) => Self::Never,
            (Some("=inode"), _) | (None, "ext4" | "xfs") => Self::PerFile,
            (_, "ext2") => Self::Never,
            _ => Self::Unsupported,
        }
    }
}

#[derive(Deserialize)]
struct Lsblk {
    blockdevices: Vec<Volume>,
}

/// Returns a value that blkid(8) finds on a device by reading it; empty if it finds none.
pub(crate) fn probed(tag: &str, types: &[&str], node: &str) -> Result<String> {
    let options = [&["--probe", "--output", "value", "--match-tag", tag], types].concat();
    let output = sandboxed::run("blkid", "util-linux", &options, node, "")?;
    ensure!(
        output.success || output.error.is_empty(),
        "{}",
        output.reason("blkid")
    );
    Ok(output.text().trim().to_owned())
}

/// All mounts that this process sees.
pub struct Mounts(Vec<MountInfo>);

impl Mounts {
    pub fn here() -> Result<Self> {
        let mounts = mountinfo::own(&Host::here());
        Ok(Self(mounts.context("cannot read the table of mounts")?))
    }

    /// Returns the device that an option of a mounted file system names.
    fn device_option(
        &self,
        host: &Host,
        file_system: DeviceNumber,
        name: &str,
    ) -> Option<DeviceNumber> {
        let mut mounts = self.0.iter().filter(|mount| mount.device == file_system);
        let device = mounts.find_map(|mount| mount.device_option(name))?;
        let node = fs::metadata(host.absolute(&device)).ok()?;
        Some(DeviceNumber::from_rdev(node.rdev()))
    }

    /// Returns the real-time device of an XFS, if it is on a device of its own.
    pub fn realtime_device(&self, host: &Host, file_system: DeviceNumber) -> Option<DeviceNumber> {
        self.device_option(host, file_system, "rtdev")
    }

    /// Returns the real-time device and the log device of an XFS, if they are persistent memory of their own.
    pub fn other_devices(&self, host: &Host, file_system: DeviceNumber) -> Vec<DeviceNumber> {
        let is_pmem = |device: &DeviceNumber| {
            let below = disks_below(host, *device);
            below.iter().any(|name| name.starts_with("pmem"))
        };
        ["rtdev", "logdev"]
            .iter()
            .filter_map(|name| self.device_option(host, file_system, name))
            .filter(is_pmem)
            .collect()
    }

    /// Returns where an XFS is mounted that has this volume as its real-time device, as [`printable`] has it.
    pub fn with_realtime_device(&self, kernel_name: &str) -> Option<String> {
        let is_it = |mount: &&MountInfo| {
            let path = mount.device_option("rtdev");
            let path = path.map(|path| fs::canonicalize(&path).unwrap_or(path));
            path.is_some_and(|path| path.file_name().is_some_and(|name| name == kernel_name))
        };
        let found = self.0.iter().find(is_it)?;
        Some(printable(&found.directory))
    }

    /// Fills in the mounts of a volume and of those on it.
    fn complete(&self, host: &Host, volume: &mut Volume) -> Result<()> {
        let dax = has_dax(host, &volume.kernel_name);
        let number = volume.number()?;
        for mount in self.0.iter().filter(|mount| mount.device == number) {
            // lsblk may not know the type.
            volume
                .file_system
                .get_or_insert_with(|| mount.file_system.clone());
            let options = mount.options();
            volume.mounts.push(Mount {
                directory: mount.directory.clone(),
                root: mount.root.clone(),
                dax: Dax::of(&mount.file_system, &options, dax),
                options,
            });
        }
        volume
            .children
            .iter_mut()
            .try_for_each(|child| self.complete(host, child))
    }
}

/// Returns an attribute of the queue of a block device, or of the disk that it is a partition of.
fn queue_number(host: &Host, name: &str, attribute: &str) -> Option<u64> {
    let folder = host.path("sys/class/block").join(name);
    let disk = match folder.join("partition").exists() {
        true => folder.join(".."),
        false => folder,
    };
    sysfs::number(disk.join("queue").join(attribute))
}

/// Whether a block device, or the disk that it is a partition of, has direct access.
pub(crate) fn has_dax(host: &Host, name: &str) -> bool {
    queue_number(host, name, "dax") == Some(1)
}

/// Returns the size of the blocks that a device reads and writes.
pub(crate) fn block_size(host: &Host, name: &str) -> u64 {
    let size = queue_number(host, name, "logical_block_size");
    size.filter(|size| *size > 0).unwrap_or(512)
}

/// Returns the disks below a device: the device itself if it is a disk. Loop devices count as disks.
pub fn disks_below(host: &Host, number: DeviceNumber) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let device = host.path("sys/dev/block").join(number.to_string());
    if let Ok(folder) = fs::canonicalize(device) {
        add_disks(&folder, &mut found);
    }
    found
}

fn add_disks(folder: &Path, found: &mut BTreeSet<String>) {
    if folder.join("partition").exists() {
        return folder.parent().map_or((), |disk| add_disks(disk, found));
    }
    let slaves = folder.join("slaves");
    let below = sysfs::names(&slaves);
    if below.is_empty() {
        found.extend(
            folder
                .file_name()
                .and_then(|name| Some(name.to_str()?.to_owned())),
        );
    }
    for name in below {
        if let Ok(slave) = fs::canonicalize(slaves.join(name)) {
            add_disks(&slave, found);
        }
    }
}

/// Returns the tree of volumes with the disk as its root.
pub fn of_disk(host: &Host, disk: &str, mounts: &Mounts) -> Result<Volume> {
    let columns = "NAME,KNAME,TYPE,MAJ:MIN,SIZE,FSTYPE";
    let node = Path::new("/dev").join(disk);
    let text = programs::output(
        "lsblk",
        "util-linux",
        &[
            "--json",
            "--bytes",
            "--output",
            columns,
            &node.to_string_lossy(),
        ],
    )?;
    let mut volume = parse(&text).with_context(|| node.display().to_string())?;
    mounts.complete(host, &mut volume)?;
    if !host.path("run/udev/data").exists() {
        probe(&mut volume)?;
    }
    Ok(volume)
}

/// Fills in file system types with blkid if there is no udev, whose database lsblk reads.
fn probe(volume: &mut Volume) -> Result<()> {
    let node = volume.node();
    // The search finds out that a disk has gone.
    if volume.file_system.is_none() && volume.children.is_empty() && Path::new(&node).exists() {
        // blkid fails on read errors, and for most types it reads the end of the device as well.
        let few = ["--match-types", "ext2,ext3,ext4,xfs"];
        for types in [&few[..0], &few] {
            let kind = probed("TYPE", types, &node)?;
            volume.file_system = Some(kind).filter(|kind| !kind.is_empty());
            if volume.file_system.is_some() {
                break;
            }
        }
    }
    volume.children.iter_mut().try_for_each(probe)
}

fn parse(text: &str) -> Result<Volume> {
    let found: Lsblk = serde_json::from_str(text).context("output of lsblk")?;
    let [volume] =
        <[Volume; 1]>::try_from(found.blockdevices).map_err(|_| anyhow::anyhow!("it has gone"))?;
    Ok(volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_is_escaped_for_people_and_kept_as_bytes() {
        use std::os::unix::ffi::OsStringExt;
        let directory = OsString::from_vec(b"/mnt/\x1b[31m\xff".to_vec());
        let mut volume = Volume::made_up("pmem0", "259:0", Vec::new());
        volume.mounts.push(Mount {
            directory: directory.clone(),
            dax: Dax::Always,
            root: "/".into(),
            options: String::new(),
        });
        let shown = volume.mount().unwrap();
        assert_eq!(shown, r"/mnt/\u{1b}[31m\xff");
        assert_eq!(sysfs::raw(&shown), Some(directory));
    }

    #[test]
    fn lsblk_tree_and_mounts_parse() {
        let mut disk = parse(
            r#"{ "blockdevices": [ { "name": "pmem0", "kname": "pmem0", "type": "disk", "maj:min": "259:0", "size": 532676608,
                "fstype": null, "children": [ { "name": "pmem0p1", "kname": "pmem0p1", "type": "part", "maj:min": "259:1",
                "size": 1048576, "fstype": "LVM2_member", "children": [ { "name": "a-b", "kname": "dm-0", "type": "lvm",
                "maj:min": "252:0", "size": 4096, "fstype": "xfs" } ] } ] } ] }"#,
        )
        .unwrap();
        let mounts = Mounts(mountinfo::parse(
            b"36 1 252:0 / /mnt/x\\040y rw - xfs /dev/dm-0 rw,dax=always\n22 1 0:22 / /proc rw - proc proc rw\n",
        ));
        let folder = tempfile::tempdir().unwrap();
        let queue = folder.path().join("sys/class/block/dm-0/queue");
        std::fs::create_dir_all(&queue).unwrap();
        std::fs::write(queue.join("dax"), "1\n").unwrap();
        mounts
            .complete(&Host::at(folder.path()), &mut disk)
            .unwrap();

        assert!(disk.mounts.is_empty());
        let volume = &disk.children[0].children[0];
        assert_eq!(volume.file_system.as_deref(), Some("xfs"));
        assert_eq!(
            volume.mounts,
            [Mount {
                directory: "/mnt/x y".into(),
                dax: Dax::Always,
                root: "/".into(),
                options: "rw,dax=always".into()
            }]
        );
        let json = serde_json::to_value(&disk).unwrap();
        assert_eq!(json["children"][0]["file_system"], "LVM2_member");
        assert_eq!(
            json["children"][0]["children"][0]["mounts"][0]["dax"],
            "always"
        );
    }

    #[test]
    fn disks_below_a_volume_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::at(folder.path());
        let devices = host.path("sys/devices");
        for file in [
            "pmem0/pmem0p1/partition",
            "sda/size",
            "dm-0/slaves/x",
            "loop0/size",
        ] {
            let path = devices.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "1\n").unwrap();
        }
        fs::remove_file(devices.join("dm-0/slaves/x")).unwrap();
        fs::create_dir_all(host.path("sys/dev/block")).unwrap();
        let link = |target: &str, link: &str| {
            std::os::unix::fs::symlink(devices.join(target), host.path(link)).unwrap();
        };
        link("pmem0/pmem0p1", "sys/devices/dm-0/slaves/pmem0p1");
        link("sda", "sys/devices/dm-0/slaves/sda");
        for (number, device) in [
            ("259:0", "pmem0"),
            ("259:1", "pmem0/pmem0p1"),
            ("252:0", "dm-0"),
            ("7:0", "loop0"),
        ] {
            link(device, &format!("sys/dev/block/{number}"));
        }
        for (number, disks) in [
            ("259:0", &["pmem0"][..]),
            ("259:1", &["pmem0"]),
            ("252:0", &["pmem0", "sda"]),
            ("7:0", &["loop0"]),
            ("0:42", &[]),
        ] {
            let found = disks_below(&host, number.parse().unwrap());
            assert!(found.iter().eq(disks), "{number}: {found:?}");
        }
    }

    #[test]
    fn realtime_device_of_a_mount_is_found() {
        let mounts = Mounts(mountinfo::parse(
            b"36 1 259:0 / /mnt/\x1b[2J rw - xfs /dev/pmem0 rw,rtdev=/dev/pmem9,noquota\n",
        ));
        assert_eq!(
            mounts.with_realtime_device("pmem9").as_deref(),
            Some(r"/mnt/\u{1b}[2J")
        );
        assert_eq!(mounts.with_realtime_device("pmem0"), None);
        // There is no such device here.
        let host = Host::at("/nonexistent");
        assert_eq!(
            mounts.realtime_device(&host, "259:0".parse().unwrap()),
            None
        );
    }

    #[test]
    fn missing_disk_is_refused() {
        assert!(parse(r#"{ "blockdevices": [] }"#).is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn dax_mode_follows_mount_options() {
        for (file_system, options, dax) in [
            ("ext4", "rw", Dax::PerFile),
            ("ext4", "rw,dax=always", Dax::Always),
            ("ext4", "rw,dax=never,nobarrier", Dax::Never),
            ("xfs", "rw,dax=inode,attr2", Dax::PerFile),
            ("xfs", "rw", Dax::PerFile),
            ("ext2", "rw,dax", Dax::Always),
            ("ext2", "rw", Dax::Never),
            ("vfat", "rw", Dax::Unsupported),
        ] {
            assert_eq!(Dax::of(file_system, options, true), dax, "{options}");
            assert_eq!(Dax::of(file_system, options, false), Dax::Unsupported);
        }
    }
}
