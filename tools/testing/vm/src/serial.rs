// SPDX-License-Identifier: GPL-2.0

//! The kernel's log from the serial port, and the kernel's reports in it: oopses, warnings, stalls.

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Texts that begin a report.
const SIGNS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "kernel BUG at",
    "Oops",
    "general protection",
    "Unable to handle kernel",
    "KASAN:",
    "KCSAN:",
    "KFENCE:",
    "UBSAN:",
    "INFO: possible",
    "INFO: trying to register",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "DEBUG_LOCKS_WARN_ON",
    "sleeping function called",
    "ODEBUG:",
    "page allocation failure",
    "rust_kernel: panicked",
    "turning off the locking correctness validator",
    "blocked for more than",
    "blocked in I/O wait",
    "detected stall",
    "self-detected stall",
    "detected expedited stalls",
    "lockup",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "scheduling while atomic",
    "Internal error:",
    "resource sanity check:",
    "Resources present before probing",
    "already exists in '",
    "hard LOCKUP",
    TRACE,
    ARM64_TRACE,
    "Kernel panic",
];

/// Texts of lines that are a report each.
const LINES: &[&str] = &[
    "leaked memory:",
    "printk messages dropped",
    "Trying to free nonexistent resource",
    "freeing invalid memtype",
    "Could not invalidate pfn",
    "truncate capacity from",
    // Broken entries of page tables (mm/pgtable-generic.c, mm/swapfile.c).
    ": bad pmd ",
    ": bad pud ",
    ": bad p4d ",
    ": bad pgd ",
    "Bad swap file entry",
    // Metadata that a file system could read, but that is wrong (fs/ext4, fs/jbd2, fs/xfs/xfs_error.c).
    "bad block bitmap checksum",
    "Corrupt inode bitmap",
    "block bitmap corrupt",
    "descriptor inconsistent",
    "group descriptors corrupted",
    "checksum invalid",
    "failed checksum",
    "invalid superblock checksum",
    "Invalid checksum recovering",
    "bad header/extent",
    "extent tree corrupted",
    "bad entry in directory",
    "corrupted inode contents",
    "corrupted xattr",
    "Metadata corruption detected",
    "Metadata CRC error",
    "Corruption detected. Unmount",
    "Corruption of in-memory data",
];

/// A report without any other sign, which began some lines before.
const TRACE: &str = "Call Trace:";
const ARM64_TRACE: &str = "Call trace:";

/// Lines between the first line of such a report and its trace.
const BETWEEN: &[&str] = &[
    "CPU: ",
    "Tainted: ",
    "Hardware name:",
    "Workqueue: ",
    "Modules linked in:",
];

/// Lines with a sign that are not reports.
const HARMLESS: &[&str] = &["hung_task_timeout_secs", "lockup_timeout"];

/// guest/main writes this at the end of each command.
const COMMAND_END: &str = "rust_pmem-vm: ";

/// Last lines of a report.
const ENDS: &[&str] = &[
    "---[ end trace",
    "---[ end Kernel panic",
    "</TASK>",
    "==========",
];

/// Maximum lines of a report.
const LONGEST: usize = 120;

/// A report of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The line with the sign, without its time.
    pub title: String,
    pub lines: Vec<String>,
}

impl Report {
    /// Returns whether its title contains this text; of `TITLE < LINE`, also one of its lines the second one. The title `WARN()` is
    /// that of any such call, but not of lockdep's warnings.
    pub fn is(&self, text: &str) -> bool {
        let (title, line) = text.split_once(" < ").unwrap_or((text, ""));
        let found = match title {
            "WARN()" => self.title.starts_with("WARNING: ") && self.title.contains(" at "),
            _ => self.title.contains(title),
        };
        found && self.mentions(line)
    }

    /// Returns whether one of its lines contains this text.
    pub fn mentions(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}

/// Finds the reports in a part of a kernel's log.
pub fn reports(log: &str) -> Vec<Report> {
    let lines: Vec<&str> = log
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .filter(|line| !line.contains(COMMAND_END))
        .collect();
    let is_alone = |line: &str| LINES.iter().any(|sign| line.contains(sign));
    let is_sign = |line: &str| {
        (is_alone(line) || SIGNS.iter().any(|sign| line.contains(sign)))
            && !HARMLESS.iter().any(|not| line.contains(not))
    };
    let is_trace = |line: &str| line.contains(TRACE) || line.contains(ARM64_TRACE);
    let mut found = Vec::new();
    let mut at = 0;
    let mut end_of_last = 0;
    while let Some(line) = lines.get(at) {
        if !is_sign(line) {
            at += 1;
            continue;
        }
        if is_trace(line) {
            let before = &lines[end_of_last..at];
            let is_between = |line: &&&str| BETWEEN.iter().any(|text| line.contains(text));
            let between = before.iter().rev().take_while(is_between).count();
            at -= (between + 1).min(before.len());
        }
        let line = lines[at];
        let longest = if is_alone(line) { 1 } else { LONGEST };
        let rest = &lines[at..lines.len().min(at + longest)];
        let length = rest
            .iter()
            .position(|line| ENDS.iter().any(|end| line.contains(end)))
            .map_or(rest.len(), |last| last + 1);
        // On arm64, nothing marks the end of a trace, and nothing the begin of KCSAN's.
        let trace = match line.contains("KCSAN:") {
            true => Some(1),
            false => rest[..length].iter().position(|line| is_trace(line)),
        };
        let next = (trace.unwrap_or(length)..length)
            .find(|&next| is_sign(rest[next]) && !is_trace(rest[next]));
        let length = next.unwrap_or(length);
        found.push(Report {
            title: without_time(line).to_owned(),
            lines: rest[..length].iter().map(|&line| line.to_owned()).collect(),
        });
        at += length;
        end_of_last = at;
    }
    found
}

/// Strips the time from a line of the log.
fn without_time(line: &str) -> &str {
    match line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    {
        Some((time, text))
            if time
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b'.' || b == b' ') =>
        {
            text
        }
        _ => line,
    }
}

/// The log of one guest, or of several that were booted one after the other.
#[derive(Debug, Clone)]
pub struct Serial {
    path: PathBuf,
}

impl Serial {
    /// Returns the log in this file, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> u64 {
        self.path.metadata().map_or(0, |meta| meta.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the log from byte `start` on.
    pub fn since(&self, start: u64) -> io::Result<String> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the last `count` lines, without blank ones and those that mark the ends of commands.
    pub fn tail(&self, count: usize) -> Vec<String> {
        let start = self.len().saturating_sub(64 * 1024);
        let text = self.since(start).unwrap_or_default();
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty() && !line.contains(COMMAND_END))
            .collect();
        lines[lines.len().saturating_sub(count)..]
            .iter()
            .map(|&line| line.to_owned())
            .collect()
    }
}

/// An empty file for a log, locked while this value exists.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    _lock: File,
}

impl LogFile {
    /// Opens this file. Fails if another program has locked it.
    pub fn at(path: PathBuf) -> Result<Self> {
        match Self::taken(&path)? {
            Some(lock) => Ok(Self { path, _lock: lock }),
            None => bail!("{}: another machine's log", path.display()),
        }
    }

    /// Opens the first of serial.log, serial-2.log, … in a folder that is not locked. Makes the folder if necessary.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut path = folder.join("serial.log");
        for number in 2.. {
            if let Some(lock) = Self::taken(&path)? {
                return Ok(Self { path, _lock: lock });
            }
            path = folder.join(format!("serial-{number}.log"));
        }
        bail!("{}: full of logs", folder.display())
    }

    fn taken(path: &Path) -> Result<Option<File>> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| path.display().to_string())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
        file.set_len(0)?;
        Ok(Some(file))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = "\
[    3.083334] EXT4-fs (vda): mounted filesystem ro without journal. Quota mode: none.\r
[    4.351839] nd_pmem namespace1.0: unable to guarantee persistence of writes\r
[    5.100000] mce: [Hardware Error]: Machine check events logged\r
[    5.200000] Memory failure: 0x100200: recovery action for dax page: Recovered\r
[    5.250000] XFS (pmem0): Corruption of on-disk metadata (0x8) detected at xfs_dax_notify_dev_failure+0x1/0x2 [xfs]\r
[    5.260000] EXT4-fs error (device pmem0): __ext4_find_entry:1639: inode #2: comm cat: reading directory lblock 0\r
[    5.300000] \"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\" disables this message.\r
";

    const WARN: &str = "\
[   10.000000] ------------[ cut here ]------------\r
[   10.000001] WARNING: block/badblocks.c:1329 at badblocks_show+0x1/0x2, CPU#1: cat/123\r
[   10.000002] Call Trace:\r
[   10.000003]  <TASK>\r
[   10.000004]  sysfs_kf_seq_show+0x10/0x20\r
[   10.000005]  </TASK>\r
[   10.000006] ---[ end trace 0000000000000000 ]---\r
";

    #[test]
    fn healthy_log_has_no_report() {
        assert_eq!(reports(HEALTHY), []);
    }

    #[test]
    fn warning_is_one_report_with_its_trace() {
        let log = format!("{HEALTHY}{WARN}{HEALTHY}");
        let found = reports(&log);
        assert_eq!(found.len(), 1);
        assert!(
            found[0]
                .title
                .starts_with("WARNING: block/badblocks.c:1329")
        );
        assert!(found[0].mentions("sysfs_kf_seq_show"));
        assert!(found[0].is("block/badblocks.c") && !found[0].is("sysfs_kf_seq_show"));
        assert!(
            found[0].is("WARNING: block/ < sysfs_kf_seq_show")
                && !found[0].is("WARNING: block/ < EXT4-fs")
        );
        assert!(found[0].is("WARN() < sysfs_kf_seq_show") && !found[0].is("WARN() < EXT4-fs"));
        let of_lockdep = reports("WARNING: possible circular locking dependency detected\n");
        assert!(of_lockdep[0].is("WARNING:") && !of_lockdep[0].is("WARN() < "));
        assert!(!found[0].mentions("EXT4-fs"));
    }

    #[test]
    fn report_behind_a_trace_without_an_end_is_one_of_its_own() {
        let log = "\
[    5.699880] sysfs: cannot create duplicate filename '/devices/virtual/bdi/259:0'\r
[    5.699881] CPU: 0 UID: 0 PID: 38 Comm: sh\r
[    5.699884] Call trace:\r
[    5.711693]  dump_stack+0x18/0x24\r
[    5.711694] kobject: error\r
[    5.800001] WARNING: block/badblocks.c:1329 at badblocks_show+0x1/0x2, CPU#1: cat/123\r
[    5.800002] Call trace:\r
[    5.800003]  sysfs_kf_seq_show+0x10/0x20\r
[    5.800004] ---[ end trace 0000000000000000 ]---\r
[    5.900000] quiet\r
";
        let found = reports(log);
        assert_eq!(found.len(), 2);
        assert!(found[0].is("duplicate filename < dump_stack"));
        assert!(found[1].is("WARNING: block/badblocks.c < sysfs_kf_seq_show"));
        assert!(!found[1].mentions("quiet"));
    }

    #[test]
    fn report_of_one_line_does_not_hide_the_next() {
        let line = "[    9.100000] Trying to free nonexistent resource <0x20000000-0x21ffffff>\r\n";
        let found = reports(&format!("{line}{WARN}"));
        assert_eq!(found.len(), 2);
        assert!(found[0].is("nonexistent resource") && !found[0].mentions("WARNING"));
        assert!(found[1].is("block/badblocks.c:1329"));
    }

    #[test]
    fn bare_trace_has_the_line_before_as_title() {
        let log = "\
[   15.699870] quiet\r
[   15.699880] sysfs: cannot create duplicate filename '/devices/virtual/bdi/259:0'\r
[   15.699881] CPU: 0 UID: 0 PID: 38 Comm: kworker/u8:2 Tainted: G           OE\r
[   15.699882] Hardware name: QEMU\r
[   15.699884] Call Trace:\r
[   15.700380]  <TASK>\r
[   15.711693]  sysfs_warn_dup.cold+0x17/0x23\r
[   15.711694]  </TASK>\r
";
        let found = reports(log);
        assert_eq!(found.len(), 1);
        assert!(
            found[0]
                .title
                .starts_with("sysfs: cannot create duplicate filename")
        );
        assert!(found[0].mentions("sysfs_warn_dup"));
        assert_eq!(reports("Call Trace:\n").len(), 1);
    }

    #[test]
    fn each_kind_of_report_is_found() {
        for line in [
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "Oops: Oops: 0002 [#1] SMP NOPTI",
            "Oops: general protection fault, probably for non-canonical address 0xdead",
            "BUG: KASAN: slab-use-after-free in pmem_submit_bio+0x1/0x2",
            "UBSAN: array-index-out-of-bounds in a.c:1:2",
            "WARNING: possible circular locking dependency detected",
            "INFO: task fio:812 blocked for more than 45 seconds.",
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [fio:812]",
            "Kernel panic - not syncing: sysrq triggered crash",
            "refcount_t: underflow; use-after-free.",
            "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:623",
            "leaked memory: 0xff110000046c2a00 (size 32): kasprintf+0x5c/0x80 pmem_probe+0x1/0x2",
            "ODEBUG: free active (active state 0) object: ff11000004 object type: work_struct",
            "DEBUG_LOCKS_WARN_ON(lock->magic != lock)",
            "Internal error: synchronous external abort: 0000000096000410 [#1]  SMP",
            "Trying to free nonexistent resource <0x0000000020000000-0x0000000021ffffff>",
            "get_swap_device: Bad swap file entry 3ffffc0000000",
            "EXT4-fs error (device pmem0): ext4_validate_block_bitmap:423: comm cp: bg 3: bad block bitmap checksum",
            "EXT4-fs error (device pmem0): __ext4_iget:5411: inode #12: comm ls: iget: checksum invalid",
            "XFS (pmem0): Metadata CRC error detected at xfs_agi_read_verify+0x1/0x2 [xfs], xfs_agi block 0x2",
            "Call trace:",
        ] {
            assert_eq!(
                reports(&format!("[   12.345678] {line}\r\n")).len(),
                1,
                "{line}"
            );
        }
    }

    #[test]
    fn log_file_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let first = LogFile::in_folder(folder.path()).unwrap();
        let second = LogFile::in_folder(folder.path()).unwrap();
        assert!(second.path().ends_with("serial-2.log"));
        assert!(LogFile::at(first.path().to_owned()).is_err());
        let path = first.path().to_owned();
        drop(first);
        assert_eq!(LogFile::in_folder(folder.path()).unwrap().path(), path);
    }

    #[test]
    fn warning_in_the_middle_of_a_data_race_is_a_report_of_its_own() {
        let race =
            "[ 9.0] BUG: KCSAN: data-race in a / b\n\n[ 9.0] read by task 1:\n[ 9.0]  a+0x1/0x2\n";
        let found = reports(&format!(
            "{race}{WARN}[ 9.2]  b+0x1/0x2\n[ 9.2] ==========\n"
        ));
        assert_eq!(found.len(), 2);
        assert!(found[0].is("KCSAN") && !found[0].mentions("WARNING"));
        assert!(found[1].is("WARN() < badblocks_show"));
    }

    #[test]
    fn two_warnings_are_two_reports() {
        assert_eq!(reports(&format!("{WARN}{HEALTHY}{WARN}")).len(), 2);
    }
}
