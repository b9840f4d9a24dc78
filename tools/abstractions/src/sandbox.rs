// SPDX-License-Identifier: GPL-2.0

//! Child processes without privileges, for programs that parse untrusted data.
//!
//! The child has no capabilities and can gain none, limited memory and CPU time, no sockets, and, where the kernel has
//! Landlock (linux/landlock.h), can open nothing for writing and only a few directories and one device for reading.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use std::env::consts::ARCH;
use std::ffi::c_long;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

/// The resources of a child process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of address space.
    pub memory: u64,
    /// Seconds of CPU time.
    pub cpu: u64,
}

/// A device that the child inherits under the same number, and may open again.
#[derive(Debug)]
pub struct Device {
    /// The descriptor.
    pub file: OwnedFd,
    /// The child may open it for writing.
    pub writable: bool,
}

/// Bytes that the child may write to a file, a memfd for its messages included.
const WRITTEN: u64 = 64 << 20;

/// Confines the child of `command`, which opens nothing but `device` and files below `readable`.
///
/// Limits below the given ones stay. A kernel without Landlock does not restrict the files.
pub fn confine(
    command: &mut Command,
    limits: Limits,
    readable: &[&Path],
    device: Option<Device>,
) -> io::Result<()> {
    let ruleset = ruleset(readable, device.as_ref())?;
    let refused = refused_calls()?;
    let nothing = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let confine = move || {
        limit(Resource::As, limits.memory)?;
        limit(Resource::Cpu, limits.cpu)?;
        limit(Resource::Fsize, WRITTEN)?;
        limit(Resource::Core, 0)?;
        set_no_new_privs(true)?;
        // Without CAP_SETPCAP the set stays, but no_new_privs keeps execve(2) from granting it.
        drop_bounding_set();
        let _ = clear_ambient_capability_set();
        set_capabilities(None, nothing)?;
        if let Some(ruleset) = &ruleset {
            restrict(ruleset)?;
        }
        if let Some(device) = &device {
            fcntl_setfd(&device.file, FdFlags::empty())?;
        }
        apply_filter(&refused).map_err(|_| io::Error::last_os_error())
    };
    // SAFETY: Only async-signal-safe functions may run between fork and exec. The closure only makes system calls,
    // and does not allocate: an `io::Error` of an errno has no heap part.
    unsafe { command.pre_exec(confine) };
    Ok(())
}

/// The system calls that fail with `EPERM`: by those, the user that the child still is could have services act for it,
/// or change other processes of that user. Landlock does not cover sockets that have a path.
fn refused_calls() -> io::Result<BpfProgram> {
    let calls = [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_keyctl,
    ];
    let filter = SeccompFilter::new(
        calls.into_iter().map(|call| (call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::try_from(ARCH).map_err(io::Error::other)?,
    );
    filter
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let least = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    let new = Rlimit {
        current: least(now.current),
        maximum: least(now.maximum),
    };
    Ok(setrlimit(resource, new)?)
}

fn drop_bounding_set() {
    for capability in 0..64 {
        // SAFETY: PR_CAPBSET_DROP takes a number and accesses no user memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            return;
        }
    }
}

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttributes {
    files: u64,
    network: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// `LANDLOCK_ACCESS_FS_…`
mod access {
    pub(super) const EXECUTE: u64 = 1;
    pub(super) const WRITE_FILE: u64 = 1 << 1;
    pub(super) const READ_FILE: u64 = 1 << 2;
    pub(super) const READ_DIR: u64 = 1 << 3;
    pub(super) const IOCTL_DEV: u64 = 1 << 15;
}

/// Returns the number, or the error, of a system call.
fn answer(answer: c_long) -> io::Result<c_long> {
    match answer {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

/// Creates a Landlock ruleset; `None` if the kernel has no Landlock.
fn ruleset(readable: &[&Path], device: Option<&Device>) -> io::Result<Option<OwnedFd>> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: u32 = 1;
    // SAFETY: With this flag the call takes no attributes and returns the version of the interface.
    let version = answer(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<RulesetAttributes>(),
            0_usize,
            VERSION,
        )
    });
    // Not built in, or not enabled at boot.
    let Ok(version) = version else {
        return Ok(None);
    };
    // Each version knows more rights, and the attributes grew with 4 and 6.
    let rights: u32 = match version {
        ..=1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    let attributes = RulesetAttributes {
        files: (1 << rights) - 1,
        // Bind and connect.
        network: if version >= 4 { 3 } else { 0 },
        // Abstract sockets and signals.
        scoped: if version >= 6 { 3 } else { 0 },
    };
    let size: usize = match version {
        ..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    // SAFETY: The call reads `size` bytes, which is at most the size of `attributes`.
    let ruleset = answer(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size,
            0_u32,
        )
    })?;
    // CAST: A descriptor is an `int`.
    // SAFETY: The call returned a new descriptor, which nothing else owns.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as i32) };
    for path in readable {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path);
        // A path that does not exist needs no rule.
        let Ok(opened) = opened else { continue };
        let folder = opened.metadata()?.is_dir();
        let allowed =
            access::READ_FILE | access::EXECUTE | if folder { access::READ_DIR } else { 0 };
        allow(&ruleset, &opened, allowed)?;
    }
    if let Some(device) = device {
        let write = if device.writable {
            access::WRITE_FILE
        } else {
            0
        };
        let allowed = access::READ_FILE | access::IOCTL_DEV | write;
        allow(&ruleset, &device.file, allowed & attributes.files)?;
    }
    Ok(Some(ruleset))
}

/// Adds a rule for the files below a directory, or for a file.
fn allow(ruleset: &OwnedFd, beneath: impl AsFd, allowed: u64) -> io::Result<()> {
    /// `LANDLOCK_RULE_PATH_BENEATH`.
    const PATH_BENEATH: u32 = 1;
    let rule = PathBeneath {
        allowed,
        parent: beneath.as_fd().as_raw_fd(),
    };
    // SAFETY: The call reads a `struct landlock_path_beneath_attr`, whose descriptor is borrowed until it returns.
    answer(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    })?;
    Ok(())
}

/// Applies a ruleset to this process.
fn restrict(ruleset: &OwnedFd) -> io::Result<()> {
    // SAFETY: The call takes a descriptor, which is open, and no flags.
    answer(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) })?;
    Ok(())
}

/// Opens a device or image for [`confine`]. An open of a FIFO in its place does not wait.
pub fn open_read_only(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        memory: 512 << 20,
        cpu: 7,
    };

    fn output(script: &str, device: Option<Device>) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let readable = ["/usr", "/lib", "/lib64", "/bin", "/proc"].map(Path::new);
        confine(&mut command, LIMITS, &readable, device).unwrap();
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn child_has_no_capabilities_and_limits() {
        let status = output(
            "cat /proc/self/status; ulimit -v; ulimit -t; ulimit -c",
            None,
        );
        for line in [
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            assert!(status.contains(line), "{status}");
        }
        assert!(status.ends_with("\n524288\n7\n0\n"), "{status}");
    }

    #[test]
    fn child_has_no_sockets() {
        let script = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/1' 2>&1";
        let said = output(script, None);
        assert!(said.contains("Operation not permitted"), "{said}");
    }

    #[test]
    fn child_opens_only_the_device() {
        if ruleset(&[], None).unwrap().is_none() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        std::fs::write(&path, "content").unwrap();
        for (writable, written) in [(false, "no"), (true, "yes")] {
            let file: OwnedFd = open_read_only(&path).unwrap().into();
            let script = format!(
                "open() {{ (: >>$1) 2>&- && echo yes || echo no; }}; \
                cat /proc/self/fd/{0}; cat {1}; echo; open {1}; open /proc/self/fd/{0}",
                file.as_raw_fd(),
                path.display()
            );
            let output = output(&script, Some(Device { file, writable }));
            // By its name, too, because a rule is for the file.
            let expected = format!("contentcontent\n{written}\n{written}\n");
            assert_eq!(output, expected);
        }
        let script = format!("cat {} 2>&1", folder.path().join("image").display());
        assert!(output(&script, None).contains("denied"));
    }
}
