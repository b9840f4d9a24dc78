// SPDX-License-Identifier: GPL-2.0

//! The architectures of guests.

use crate::options::{Nvdimm, Options, Persistence};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use units::Size;

/// An architecture of guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    Arm64,
}

/// Magic number of an arm64 kernel's image, and its offset (Documentation/arch/arm64/booting.rst).
const ARM64_MAGIC: [u8; 4] = *b"ARM\x64";
const ARM64_MAGIC_OFFSET: u64 = 56;

/// The physical addresses that QEMU emulates (`TCG_PHYS_ADDR_BITS`).
const X86_64_ADDRESSES: u64 = 1 << 40;

/// Why arm64 has no guest for a test.
const ONLY_NVDIMMS: &str =
    "QEMU has its persistent memory, or another device that it needs, for x86-64 only";

impl Architecture {
    /// Reads the architecture of a kernel from its image.
    pub(crate) fn of_kernel(kernel: &Path) -> Result<Self> {
        let mut magic = [0; 4];
        let read = File::open(kernel).and_then(|file| file.read_at(&mut magic, ARM64_MAGIC_OFFSET));
        read.with_context(|| kernel.display().to_string())?;
        Ok(match magic == ARM64_MAGIC {
            true => Self::Arm64,
            false => Self::X86_64,
        })
    }

    /// Returns the name of its QEMU.
    pub(crate) fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// Returns the default processor model of a guest.
    pub(crate) fn cpu(self) -> &'static str {
        match self {
            // Linux takes machine checks from this one.
            Self::X86_64 => "max,vendor=GenuineIntel,family=6,model=106",
            // The architecture's own algorithm for pointer authentication takes an emulator half of its time.
            Self::Arm64 => "max,pauth-impdef=on",
        }
    }

    /// Returns QEMU's machine, without what options add to it.
    pub(crate) fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "q35,nvdimm=on,i8042=off,vmport=off",
            // With ras=on, firmware reports errors.
            Self::Arm64 => "virt,nvdimm=on,ras=on",
        }
    }

    /// Returns the kernel's command line: the log goes to the serial port; a panic ends QEMU at once; an emulator needs
    /// neither checks of its clock nor mitigations.
    pub(crate) fn append(self) -> &'static str {
        match self {
            Self::X86_64 => "console=ttyS0 panic=-1 tsc=reliable no_timer_check mitigations=off",
            Self::Arm64 => "console=ttyAMA0 panic=-1 mitigations=off",
        }
    }

    /// Returns the firmware without which there are no ACPI tables, and so no NFIT.
    pub(crate) fn firmware(self) -> Option<&'static str> {
        match self {
            Self::X86_64 => None,
            Self::Arm64 => Some("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
        }
    }

    /// Changes what a test asks for to what QEMU has for this architecture, or returns why there is no such guest.
    ///
    /// For arm64, removes what only x86-64 has beside NVDIMMs, and replaces the memory that `memmap=` reserves by an NVDIMM if there
    /// is no other. A test that needs what was removed skips itself (tests/lib/test.sh).
    pub fn adapt(self, options: &mut Options) -> Result<(), &'static str> {
        if self == Self::X86_64 {
            let sizes = options.nvdimm.iter().filter_map(|nvdimm| nvdimm.size);
            let bytes: u64 = sizes.map(Size::bytes).sum();
            return match bytes < X86_64_ADDRESSES {
                true => Ok(()),
                false => Err("QEMU emulates x86-64 with 40 bits of physical addresses"),
            };
        }
        options.e820.clear();
        options.virtio_pmem.clear();
        options.cxl.clear();
        if options.nvdimm.is_empty() {
            options.nvdimm = options
                .append
                .iter()
                .filter_map(|a| reserved_memory(a))
                .collect();
        }
        options.append.retain(|a| reserved_memory(a).is_none());
        match !options.nvdimm.is_empty() && self.check(options).is_ok() {
            true => Ok(()),
            false => Err(ONLY_NVDIMMS),
        }
    }

    /// Fails with what QEMU has for another architecture only.
    pub(crate) fn check(self, options: &Options) -> Result<()> {
        if self == Self::X86_64 {
            return Ok(());
        }
        let memmap = |more: &String| more.contains("memmap=");
        let missing = [
            ("--e820", !options.e820.is_empty()),
            ("--virtio-pmem", !options.virtio_pmem.is_empty()),
            ("--cxl", !options.cxl.is_empty()),
            ("--powerfail", options.powerfail.is_some()),
            ("--coverage", options.coverage.is_some()),
            ("--append memmap=", options.append.iter().any(memmap)),
            ("--persistence cpu", options.persistence == Persistence::Cpu),
        ];
        for (option, is) in missing {
            ensure!(
                !is,
                "{option} is for x86-64: arm64 guests have NVDIMMs only"
            );
        }
        Ok(())
    }
}

/// Returns an NVDIMM as large as the range of `memmap=SIZE$START`.
fn reserved_memory(append: &str) -> Option<Nvdimm> {
    let (size, _) = append.strip_prefix("memmap=")?.split_once('$')?;
    format!("size={size},id=reserved").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_image_has_its_architecture() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel");
        let mut image = vec![0; 64];
        std::fs::write(&kernel, &image).unwrap();
        assert_eq!(
            Architecture::of_kernel(&kernel).unwrap(),
            Architecture::X86_64
        );
        image[56..60].copy_from_slice(b"ARMd");
        std::fs::write(&kernel, &image).unwrap();
        assert_eq!(
            Architecture::of_kernel(&kernel).unwrap(),
            Architecture::Arm64
        );
        std::fs::write(&kernel, b"short").unwrap();
        assert_eq!(
            Architecture::of_kernel(&kernel).unwrap(),
            Architecture::X86_64
        );
    }

    #[test]
    fn arm64_guest_has_nvdimms_only() {
        let adapted = |words: &str| {
            let mut options = Options::from_words(words).unwrap();
            let usable = Architecture::Arm64.adapt(&mut options).is_ok();
            (usable, options.nvdimm.len(), options.e820.len())
        };
        assert_eq!(adapted(""), (true, 1, 0));
        assert_eq!(adapted("--nvdimm size=16M --e820 64M@512M"), (true, 1, 0));
        assert!(!adapted("--bare --e820 64M@512M").0);
        assert_eq!(
            adapted("--nvdimm size=16M --virtio-pmem size=16M"),
            (true, 1, 0)
        );
        assert!(!adapted("--virtio-pmem size=16M").0);
        assert!(!adapted("--nvdimm size=16M --persistence cpu").0);
        assert_eq!(
            adapted("--nvdimm size=16M --append memmap=16M$512M"),
            (true, 1, 0)
        );
        assert_eq!(adapted("--bare --append memmap=16M$512M"), (true, 1, 0));
        assert!(!adapted("--bare --append memmap=16M!2G").0);
        assert!(!adapted("--bare --append memmap=16M").0);
    }

    #[test]
    fn x86_64_guest_has_less_than_a_tib() {
        let usable = |words: &str| {
            let mut options = Options::from_words(words).unwrap();
            Architecture::X86_64.adapt(&mut options).is_ok()
        };
        assert!(usable("--nvdimm size=512G --nvdimm size=256G"));
        assert!(!usable("--nvdimm size=512G --nvdimm size=512G"));
    }

    #[test]
    fn options_for_another_architecture_are_refused() {
        let options = Options::from_words("--bare --virtio-pmem size=16M").unwrap();
        Architecture::X86_64.check(&options).unwrap();
        let error = Architecture::Arm64.check(&options).unwrap_err().to_string();
        assert!(error.contains("--virtio-pmem is for x86-64"), "{error}");
    }
}
