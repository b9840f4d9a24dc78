// SPDX-License-Identifier: GPL-2.0

//! Machine checks at random addresses, each of which costs what it hit and no more.

use crate::story::{Story, TOOLS};
use crate::truth::{self, Disk, Mapper, Owner, Stored, Told, Watched, Way};
use crate::{Driver, load, log_file};
use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use units::PAGE;
use vm::Options;

/// Where pmemctl keeps what it saves: the machine's own disk.
const STATE: &str = "/var/lib/pmemctl";
/// Where pmemctl monitor says what it sees.
const WATCH: &str = "/run/watch.log";
const SYSTEM_DISK: u64 = 32 << 20;
/// Files of each file system.
const FILES: usize = 18;
/// Besides, files of a page, all with the same content, in a folder of their own.
const SMALL: usize = 2500;
/// The lengths of the others, in pages.
const LENGTHS: std::ops::RangeInclusive<u64> = 16..=1024;
/// What the machine checks hit, in turn.
const TARGETS: [Target; 4] = [Target::Mapped, Target::Quiet, Target::Mapped, Target::Free];
/// How many processes map each of the others, in turn.
const MAPPERS: [usize; 4] = [1, 0, 2, 0];
/// Whose list is right so soon is told in time.
const SOON: Duration = Duration::from_secs(10);
/// So soon after it is on the list, `pmemctl monitor` has told all of it.
const PROMPT: Duration = Duration::from_secs(2);
/// A look into the machine takes no longer, where the host has time for it. What it takes longer is not
/// what the machine does.
const LOOK: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(20);
/// So many words fit into a line for debugfs.
const WORDS: usize = 16;

/// The kinds of memory, as the bus calls their provider, and the file system that each gets.
const KINDS: [Kind; 2] = [
    Kind {
        provider: "e820",
        system: "ext4",
        make: "mkfs.ext4 -q -b 4096 -N 4096 -J size=4 -E stride=512,stripe_width=512",
        mount: "mount -o dax,noatime",
        recover: "{ e2fsck -p /dev/DISK || [ $? = 1 ]; } && ",
        check: "e2fsck -fn",
    },
    Kind {
        provider: "virtio-pmem",
        system: "XFS",
        make: "mkfs.xfs -q -m rmapbt=1 -d agcount=2,su=2m,sw=1",
        mount: "mount -o dax=always,noatime",
        // The mount does it.
        recover: "",
        check: "xfs_repair -n",
    },
];

struct Kind {
    provider: &'static str,
    system: &'static str,
    make: &'static str,
    mount: &'static str,
    recover: &'static str,
    check: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// A page of a file that a process has mapped.
    Mapped,
    /// A page of a file that nobody has open.
    Quiet,
    /// A page that nothing is in.
    Free,
}

/// How a bad page is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cure {
    /// Its page of the file is written.
    Write,
    /// pmemctl takes it from a copy of the file.
    Repair,
    /// It is punched out of its file, and the hole is written.
    Punch,
    /// Its block of the disk is written.
    Block,
    /// It is left as it is.
    None,
}

/// A machine check.
struct Hit {
    disk: usize,
    /// Where on the disk.
    page: u64,
    /// The address that fails, and how many bits of it the processor leaves open.
    address: u64,
    lsb: u8,
    owner: Owner,
    /// From the machine check to the list.
    listed: Duration,
    /// From there to what `pmemctl monitor` says of it.
    told: Duration,
    cure: Cure,
    /// How it went.
    cured: String,
}

/// What the story is about.
struct Scene {
    disks: [Disk; 2],
    /// The files of this host with the memory, and where in them it begins.
    memory: [(PathBuf, u64); 2],
    hits: Vec<Hit>,
    answers: usize,
}

/// Tells it.
pub fn tell(story: &mut Story, driver: Driver, count: usize, seed: Option<u64>) -> Result<()> {
    let seed = seed.unwrap_or_else(|| fastrand::u64(1..1_000_000));
    let mut rng = Rng::with_seed(seed);
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    let ram = folder.path().join("ram.img");
    let virtio = folder.path().join("virtio.img");
    let log = log_file()?;
    let system = folder.path().join("system.img");
    File::create(&system)?.set_len(SYSTEM_DISK)?;
    let options = Options::from_words(&format!(
        "--bare --e820 96M@512M --virtio-pmem size=304M,file={} \
         --qemu '-object memory-backend-file,share=on,id=ram,mem-path={},size=1G -machine memory-backend=ram' \
         --qemu '-drive if=none,id=system,format=raw,file={} -device virtio-blk-pci,drive=system'",
        virtio.display(),
        ram.display(),
        system.display()
    ))?;

    story.title(&format!(
        "{count} machine checks, and what each of them costs"
    ));
    story.chapter(
        "A machine",
        "An emulated PC. 96 MiB of its RAM are what its firmware calls persistent (e820 type 12), and it has a virtio-pmem \
         device of 304 MiB. Neither keeps a log of errors: of a machine check there, nobody but the kernel that took it knows. \
         What is in both, this host sees as well, in the files behind them.",
    );
    story.host(&format!(
        "seed {seed} (make demo-errors ERRORS={count} SEED={seed} tells the same story again)"
    ));
    story.boot(&options, folder.path(), log.path())?;
    load(story, driver)?;
    let disks = find(story)?;
    for (kind, disk) in KINDS.iter().zip(&disks) {
        let size = (disk.pages * PAGE) >> 20;
        story.seen(
            &format!("a disk of {}", kind.provider),
            &format!("{}, {size} MiB from {:#x}", disk.name, disk.start),
        );
    }
    story.guest("mkfs.ext4 -q /dev/vdb")?;
    state(story)?;
    story.guest("pmemctl errors save --follow --all >/run/follow.log 2>&1 &")?;
    // The machine's RAM begins at address 0, below its hole for devices.
    let memory = [(ram, disks[0].start), (virtio, 0)];
    let mut scene = Scene {
        disks,
        memory,
        hits: Vec::new(),
        answers: 0,
    };
    files(story, &mut scene, &mut rng)?;
    draw(story, &mut scene, &mut rng, count)?;
    agree(story, &scene, "before")?;
    page_tables(story, &scene)?;
    machine_checks(story, &mut scene)?;

    story.chapter(
        "What is lost",
        "All files are read by read(2), with O_DIRECT and through a new mapping, each bad page and its neighbours on the disk, \
         and then the whole of both disks block by block, to compare it with the memory as this host sees it.",
    );
    story.guest("pmemctl errors | head -n 6")?;
    examine(story, &mut scene, "at first")?;
    heal(story, &mut scene)?;
    examine(story, &mut scene, "healed")?;
    power_cut(story, &scene)?;

    story.chapter(
        "The power comes back",
        "The kernel knows of no error: nobody told it. An emulator's memory is good again; on a real machine, the first touch \
         of one of these pages would be the next machine check. pmemctl errors restore, as a rule of udev runs it before anything is \
         mounted, puts the list back.",
    );
    story.boot(&options, folder.path(), log.path())?;
    load(story, driver)?;
    restored(story, &mut scene)?;
    examine(story, &mut scene, "after the power cut")?;
    goodbye(story, &scene, driver)?;
    table(story, &scene);
    Ok(())
}

/// The disks, as the kernel has them.
fn find(story: &mut Story) -> Result<[Disk; 2]> {
    story.quietly(&format!(
        "mkdir -p {TOOLS} && cp /rust_pmem/build/tools/release/pmem-io /rust_pmem/build/tools/release/pmemctl {TOOLS}/"
    ))?;
    let said = story.quietly(
        "for n in /sys/bus/nd/devices/namespace*; do [ ! -e $n/block ] || \
         echo $(cat $n/../../provider) $(basename $n/block/*) $(cat $n/resource) $(cat $n/../resource) $(cat $n/size); done",
    )?;
    let mut found = [Disk::default(), Disk::default()];
    for (kind, disk) in KINDS.iter().zip(&mut found) {
        let line = said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&kind.provider));
        let Some(&[_, name, start, region, size]) = line.as_deref() else {
            bail!("there is no disk of {}", kind.provider);
        };
        ensure!(
            start == region,
            "{name} does not begin where its region does"
        );
        let start = start.trim_start_matches("0x");
        *disk = Disk {
            name: name.to_owned(),
            system: kind.system,
            start: u64::from_str_radix(start, 16).context("where it begins")?,
            pages: size.parse::<u64>().context("its size")? / PAGE,
            ..Disk::default()
        };
    }
    Ok(found)
}

fn mount_point(disk: &Disk) -> String {
    format!("/mnt/{}", disk.system)
}

fn files(story: &mut Story, scene: &mut Scene, rng: &mut Rng) -> Result<()> {
    story.chapter(
        "Files",
        "ext4 and XFS with DAX, and on each of them files of random lengths whose every byte is known, beside thousands of \
         a page. Every other one of the former is mapped by one or two processes that have touched all of it. Processes shall be told at once of memory that fails under them \
         (vm.memory_failure_early_kill).",
    );
    for (kind, disk) in KINDS.iter().zip(&mut scene.disks) {
        let folder = mount_point(disk);
        story.guest(&format!("{} /dev/{}", kind.make, disk.name))?;
        story.guest(&format!(
            "mkdir -p {folder} && {} /dev/{} {folder}",
            kind.mount, disk.name
        ))?;
        let mut script = String::from("set -e\n");
        for index in 0..FILES {
            let file = Stored {
                path: format!("{folder}/f{index:02}"),
                seed: rng.u64(..),
                pages: rng.u64(LENGTHS),
                mapped: vec![Mapper::default(); MAPPERS[index % MAPPERS.len()]],
                ..Stored::default()
            };
            let Stored {
                path, seed, pages, ..
            } = &file;
            script.push_str(&format!(
                "fallocate -l {} {path}; pmem-io fill {path} --seed {seed}\n",
                pages * PAGE
            ));
            disk.files.push(file);
        }
        let seed = rng.u64(..);
        script.push_str(&format!(
            "mkdir {folder}/s; cd {folder}/s; fallocate -l {PAGE} 0; pmem-io fill 0 --seed {seed}\n\
             seq {} >/run/numbers; xargs -n 500 -a /run/numbers sh -c 'tee \"$@\" <0 >/dev/null' sh; cd /\n",
            SMALL - 1
        ));
        disk.files.extend((0..SMALL).map(|index| Stored {
            path: format!("{folder}/s/{index}"),
            seed,
            pages: 1,
            small: true,
            ..Stored::default()
        }));
        story.quietly(&script)?;
        let pages: u64 = disk.files.iter().map(|file| file.pages).sum();
        let mapped = disk
            .files
            .iter()
            .map(|file| file.mapped.len())
            .sum::<usize>();
        story.seen(
            &format!("{} with DAX on {}", disk.system, disk.name),
            &format!(
                "{} files, {pages} pages of known content, mapped by {mapped} processes",
                disk.files.len()
            ),
        );
    }

    let mut script = String::from(
        "echo 1 >/proc/sys/vm/memory_failure_early_kill\nmkdir -p /run/witness\nmkfifo /run/witness/go\n",
    );
    for (file, number) in witnesses(scene) {
        script.push_str(&format!(
            "pmem-io map {} --read-only --seed {} load run='cat /run/witness/go' told verify >{} 2>&1 & echo $!\n",
            file.path,
            file.seed,
            testimony(file, number)
        ));
    }
    let pids = story.quietly(&script)?;
    said_by_all(story, scene, "load: ")?;
    let mut pids = pids.lines();
    for file in scene.disks.iter_mut().flat_map(|disk| &mut disk.files) {
        for mapper in &mut file.mapped {
            let pid = pids.next().context("a process")?;
            let said = story.quietly(&format!("grep ' {}$' /proc/{pid}/maps", file.path))?;
            let address = said.split('-').next().unwrap_or_default();
            mapper.pid = pid.parse().context("its number")?;
            mapper.address = u64::from_str_radix(address, 16).with_context(|| said.clone())?;
        }
    }
    locate(story, scene)
}

/// The files that processes have mapped, for each of these.
fn witnesses(scene: &Scene) -> impl Iterator<Item = (&Stored, usize)> {
    let files = scene.disks.iter().flat_map(|disk| &disk.files);
    files.flat_map(|file| (0..file.mapped.len()).map(move |number| (file, number)))
}

/// Where the process writes what it sees.
fn testimony(file: &Stored, number: usize) -> String {
    format!("/run/witness{}-{number}", file.path.replace('/', "-"))
}

/// Waits until each of these processes has said it.
fn said_by_all(story: &mut Story, scene: &Scene, what: &str) -> Result<()> {
    let count = witnesses(scene).count();
    let start = Instant::now();
    loop {
        let said = story.quietly(&format!("grep -l '^{what}' /run/witness-* | wc -l"))?;
        if said.trim() == count.to_string() {
            return Ok(());
        }
        ensure!(
            start.elapsed() < 3 * SOON,
            "{} of {count} processes have said \"{what}\"",
            said.trim()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// Asks the file systems where all files are.
fn locate(story: &mut Story, scene: &mut Scene) -> Result<()> {
    for disk in &mut scene.disks {
        let folder = mount_point(disk);
        locate_some(story, disk, &format!("{folder}/f* {folder}/s/*"))?;
        for file in &disk.files {
            let length: u64 = file.extents.iter().map(|extent| extent.length).sum();
            ensure!(
                length == file.pages,
                "{}: {length} pages of {} are somewhere",
                file.path,
                file.pages
            );
        }
    }
    Ok(())
}

/// Asks a file system where these files are, and what of it is free.
fn locate_some(story: &mut Story, disk: &mut Disk, paths: &str) -> Result<()> {
    let folder = mount_point(disk);
    let said = story.quietly(&format!("sync -f {folder}; filefrag -v -b4096 {paths}"))?;
    let mut extents: BTreeMap<_, _> = truth::extents(&said)?.into_iter().collect();
    let inodes = story.quietly(&format!("stat -c '%n %i' {paths}"))?;
    let mut inodes: BTreeMap<&str, u64> = inodes
        .lines()
        .filter_map(|line| {
            let (path, inode) = line.rsplit_once(' ')?;
            Some((path, inode.parse().ok()?))
        })
        .collect();
    for file in &mut disk.files {
        let (found, inode) = (
            extents.remove(&file.path),
            inodes.remove(file.path.as_str()),
        );
        if let (Some(found), Some(inode)) = (found, inode) {
            (file.extents, file.inode) = (found, inode);
        }
    }
    ensure!(
        extents.is_empty() && inodes.is_empty(),
        "there are other files: {extents:?} {inodes:?}"
    );
    let space = truth::space(&story.quietly(&format!("xfs_io -r -c fsmap {folder}"))?)?;
    disk.free = truth::free(&space);
    Ok(())
}

/// Draws the addresses.
fn draw(story: &mut Story, scene: &mut Scene, rng: &mut Rng, count: usize) -> Result<()> {
    story.chapter(
        "Addresses",
        "Drawn from all persistent memory of the machine, until there is one of the kind that is wanted: a page of a mapped \
         file, of a file that nobody has open, or free. What the file systems keep for themselves is drawn again: a file \
         system without its records is broken, whatever the driver does.",
    );
    let total: u64 = scene.disks.iter().map(|disk| disk.pages).sum();
    let (mut drawn, mut records) = (0, 0);
    let mut cures = [0; 2];
    while scene.hits.len() < count {
        let wanted = TARGETS[scene.hits.len() % TARGETS.len()];
        let mut page = rng.u64(..total);
        let index = usize::from(page >= scene.disks[0].pages);
        let disk = &mut scene.disks[index];
        if index == 1 {
            page -= total - disk.pages;
        }
        drawn += 1;
        let owner = disk.owner(page);
        let target = match owner {
            Owner::File(file, _) if !disk.files[file].mapped.is_empty() => Target::Mapped,
            Owner::File(..) => Target::Quiet,
            Owner::Free => Target::Free,
            Owner::Records => {
                records += 1;
                continue;
            }
        };
        if target != wanted || !disk.bad.insert(page) {
            continue;
        }
        let kind = usize::from(target == Target::Free);
        let cure = match kind {
            0 => [Cure::Write, Cure::Repair, Cure::Punch, Cure::None][cures[0] % 4],
            _ => [Cure::Block, Cure::None][cures[1] % 2],
        };
        cures[kind] += 1;
        // A page, or a line of the cache somewhere in it.
        let lsb = if rng.bool() { 12 } else { 6 };
        let within = (rng.u64(..PAGE) >> lsb) << lsb;
        scene.hits.push(Hit {
            disk: index,
            page,
            address: disk.start + page * PAGE + within,
            lsb,
            owner,
            listed: Duration::ZERO,
            told: Duration::ZERO,
            cure,
            cured: String::new(),
        });
    }
    // They are good still.
    for disk in &mut scene.disks {
        disk.bad.clear();
    }
    story.seen(
        &format!("{count} random addresses"),
        &format!("{drawn} drawn from {total} pages; {records} were a file system's records"),
    );
    Ok(())
}

impl Scene {
    /// The disk of a hit, and the file and its page that was hit, if one was.
    fn place(&self, hit: &Hit) -> (&Disk, Option<(&Stored, u64)>) {
        let disk = &self.disks[hit.disk];
        match hit.owner {
            Owner::File(file, page) => (disk, Some((&disk.files[file], page))),
            _ => (disk, None),
        }
    }
}

/// Others than we say whose the pages are: the file systems' own tools, by their own records.
fn agree(story: &mut Story, scene: &Scene, when: &str) -> Result<()> {
    let disk = &scene.disks[0];
    let pages: Vec<u64> = scene
        .hits
        .iter()
        .filter(|hit| hit.disk == 0)
        .map(|hit| hit.page)
        .collect();
    let mut inodes = BTreeMap::new();
    let mut requests: Vec<(String, Vec<String>)> = Vec::new();
    for pages in pages.chunks(WORDS) {
        let mut request = "icheck".to_owned();
        let mut wanted = vec!["Block\tInode number".to_owned()];
        let mut singly = Vec::new();
        for page in pages {
            request.push_str(&format!(" {page}"));
            match disk.owner(*page) {
                Owner::File(file, place) => {
                    let Stored { inode, path, .. } = &disk.files[file];
                    wanted.push(format!("{page}\t{inode}"));
                    singly.push((format!("bmap <{inode}> {place}"), vec![page.to_string()]));
                    inodes.insert(*inode, path.trim_start_matches(&mount_point(disk)));
                }
                _ => {
                    wanted.push(format!("{page}\t<block not found>"));
                    singly.push((
                        format!("testb {page}"),
                        vec![format!("Block {page} not in use")],
                    ));
                }
            }
        }
        requests.push((request, wanted));
        requests.append(&mut singly);
    }
    let inodes: Vec<(u64, &str)> = inodes.into_iter().collect();
    for inodes in inodes.chunks(WORDS) {
        let numbers: Vec<_> = inodes.iter().map(|(inode, _)| inode.to_string()).collect();
        let names = inodes
            .iter()
            .map(|(inode, name)| format!("{inode}\t{name}"));
        let wanted = ["Inode\tPathname".to_owned()].into_iter().chain(names);
        requests.push((format!("ncheck {}", numbers.join(" ")), wanted.collect()));
    }
    let lines: Vec<_> = requests
        .iter()
        .map(|(request, _)| request.as_str())
        .collect();
    let said = story.quietly(&format!(
        "sync -f {}; printf '%s\\n' '{}' | debugfs -f /proc/self/fd/0 /dev/{} 2>/dev/null",
        mount_point(disk),
        lines.join("' '"),
        disk.name
    ))?;
    // Of what is in the root, ncheck says "//name".
    let said = said.replace("\t//", "\t/");
    let answers = truth::answers(&said);
    ensure!(
        answers.len() == requests.len(),
        "{when}: debugfs answers {} of {} requests",
        answers.len(),
        requests.len()
    );
    for ((request, mut wanted), (answered, mut said)) in requests.into_iter().zip(answers) {
        // ncheck has an order of its own.
        wanted.sort_unstable();
        said.sort_unstable();
        ensure!(
            answered == request && said == wanted,
            "{when}: debugfs, asked for \"{request}\", says {said:?} to \"{answered}\", and not {wanted:?}"
        );
    }

    let disk = &scene.disks[1];
    let folder = mount_point(disk);
    let space = truth::space(&story.quietly(&format!("xfs_io -r -c fsmap {folder}"))?)?;
    for hit in scene.hits.iter().filter(|hit| hit.disk == 1) {
        let found = truth::owner_by_map(&space, hit.page)?;
        let ours = match disk.owner(hit.page) {
            Owner::File(file, place) => Some((disk.files[file].inode, place)),
            _ => None,
        };
        ensure!(
            found == ours,
            "{when}: page {} of XFS: {found:?} by its own record of owners, {ours:?} by its extents",
            hit.page
        );
    }
    story.seen(
        &format!("{when}: whose the pages are, others agree"),
        &format!(
            "{} of ext4: debugfs (icheck, bmap, testb, ncheck); {} of XFS: its reverse map",
            pages.len(),
            scene.hits.len() - pages.len()
        ),
    );
    Ok(())
}

/// The page tables of a process lead to the same addresses.
fn page_tables(story: &mut Story, scene: &Scene) -> Result<()> {
    let mut walked = 0;
    for hit in &scene.hits {
        let (disk, Some((file, page))) = scene.place(hit) else {
            continue;
        };
        if file.mapped.is_empty() {
            continue;
        }
        let said = story.quietly(&format!(
            "pmem-io phys {} --offset {}",
            file.path,
            page * PAGE
        ))?;
        let wanted = format!("{:#x}", disk.start + hit.page * PAGE);
        ensure!(
            said.trim() == wanted,
            "{}, page {page}: at {} by its page table, at {wanted} by its extents",
            file.path,
            said.trim()
        );
        walked += 1;
    }
    story.seen(
        "before: so do page tables",
        &format!("{walked} pages of mapped files"),
    );
    Ok(())
}

fn machine_checks(story: &mut Story, scene: &mut Scene) -> Result<()> {
    story.chapter(
        "Memory goes bad",
        "Real machine checks, injected by QEMU's monitor. The processor reports a page or a line of 64 bytes; the kernel gives \
         up the whole page. After each, the lists of both disks and of both regions must have all pages that failed so far, \
         and nothing else.",
    );
    story.guest(&format!(
        "pmemctl monitor --json >{WATCH} 2>&1 & echo $! >{WATCH}.pid"
    ))?;
    story.quietly(&format!(
        "until grep -q '\"watching\"' {WATCH}; do sleep 0.1; done"
    ))?;
    let mut watch = Watch::default();
    let mut asked = Duration::ZERO;
    for index in 0..scene.hits.len() {
        let (disk, page) = (scene.hits[index].disk, scene.hits[index].page);
        story.machine_check(scene.hits[index].address, scene.hits[index].lsb)?;
        let start = Instant::now();
        scene.disks[disk].bad.insert(page);
        await_lists(story, &scene.disks)?;
        let listed = start.elapsed();
        let told = watch.wait(story, scene, &scene.hits[index])?;
        let hit = &mut scene.hits[index];
        (hit.listed, hit.told) = (listed, told);
        let hit = &scene.hits[index];
        let when = format!("after machine check {}", index + 1);
        asked = asked.max(told_by_bad(story, &scene.disks[disk], &when)?.1);
        story.remark(&format!(
            "{:>3}  {}: listed after {} ms, told of {} ms later",
            index + 1,
            victim(scene, hit),
            hit.listed.as_millis(),
            hit.told.as_millis()
        ));
    }
    story.quietly(&format!("kill $(cat {WATCH}.pid)"))?;
    let latest = |time: fn(&Hit) -> Duration| {
        let time = scene.hits.iter().map(time).max();
        time.unwrap_or_default().as_millis()
    };
    story.seen(
        "each machine check is listed, and nothing else",
        &format!(
            "{} pages; disk and region; within {} ms",
            scene.hits.len(),
            latest(|hit| hit.listed)
        ),
    );
    story.seen(
        "pmemctl monitor has told of each: file, place, and who has it mapped where",
        &format!(
            "within {} ms of the list; {} at once, {} first without the file",
            latest(|hit| hit.told),
            scene.hits.len() - watch.early,
            watch.early
        ),
    );
    story.seen(
        "after each, pmemctl errors knows whose all pages of that disk are",
        &format!("no difference; within {} ms", asked.as_millis()),
    );

    // The processes go on.
    story.quietly(": >/run/witness/go")?;
    said_by_all(story, scene, "verify: ")?;
    let (mut told, mut huge) = (0, 0);
    for disk in &scene.disks {
        for file in &disk.files {
            for number in 0..file.mapped.len() {
                let said = story.quietly(&format!("cat {}", testimony(file, number)))?;
                let lsb = truth::judge_witness(file, &disk.bad_of(file), &said)?;
                told += usize::from(lsb.is_some());
                huge += usize::from(lsb > Some(12));
            }
        }
    }
    story.seen(
        "who has it mapped is told, and loses that page alone",
        &format!(
            "{} processes; {told} told ({huge} of a mapping by 2 MiB); then SIGBUS, lsb 12, there alone",
            witnesses(scene).count()
        ),
    );
    Ok(())
}

/// What pmemctl monitor has said.
#[derive(Default)]
struct Watch {
    /// The bytes of it that have been read, in whole lines.
    read: usize,
    /// How often it has said that something is bad before it could say all of it.
    early: usize,
}

impl Watch {
    /// Waits until it has said whose the page is, and who has it mapped where. Returns how long that
    /// took, less what the host has kept the machine waiting.
    fn wait(&mut self, story: &mut Story, scene: &Scene, hit: &Hit) -> Result<Duration> {
        let (disk, file) = scene.place(hit);
        let wanted = Watched {
            told: Some(Told {
                page: hit.page,
                file: file.map(|(file, page)| (file.path.clone(), file.inode, page * PAGE)),
            }),
            mapped: file.map_or_else(Vec::new, |(file, _)| {
                let mut mapped = file.mapped.clone();
                mapped.sort_unstable();
                mapped
            }),
        };
        let mut last = None;
        let mut waited = Duration::ZERO;
        loop {
            let start = Instant::now();
            let said = story.quietly(&format!("tail -c +{} {WATCH}", self.read + 1))?;
            let whole = said.rfind('\n').map_or(0, |end| end + 1);
            self.read += whole;
            for line in said[..whole].lines() {
                if let Some(watched) = truth::watched(line, &disk.name, hit.page)? {
                    self.early += usize::from(watched.told.is_none());
                    last = Some(watched);
                }
            }
            waited += start.elapsed().min(LOOK);
            if last.as_ref() == Some(&wanted) {
                return Ok(waited);
            }
            ensure!(
                waited < PROMPT,
                "{} ms after it was listed, pmemctl monitor says {last:?}, and not {wanted:?}",
                waited.as_millis()
            );
            thread::sleep(PAUSE);
            waited += PAUSE;
        }
    }
}

/// What was hit, in words.
fn victim(scene: &Scene, hit: &Hit) -> String {
    match scene.place(hit) {
        (disk, Some((file, page))) => {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            let how = match file.mapped.len() {
                0 => "",
                1 => ", mapped",
                _ => ", mapped by two",
            };
            format!("{} {name}, page {page} of {}{how}", disk.system, file.pages)
        }
        (disk, None) => format!("{}, free space", disk.system),
    }
}

/// Waits until the lists of disks and regions, and the driver's own of what it was told, are what they
/// must be, to the sector.
fn await_lists(story: &mut Story, disks: &[Disk]) -> Result<()> {
    const LISTS: [&str; 3] = ["badblocks", "device/../badblocks", "device/errors/list"];
    let mut command = String::new();
    for disk in disks {
        for list in LISTS {
            command.push_str(&format!("cat /sys/block/{}/{list}; echo .; ", disk.name));
        }
    }
    let start = Instant::now();
    loop {
        let said = story.quietly(&command)?;
        let lists: Vec<&str> = said.split_terminator(".\n").collect();
        ensure!(lists.len() == LISTS.len() * disks.len(), "{said}");
        let mut wrong = None;
        for (disk, lists) in disks.iter().zip(lists.chunks(LISTS.len())) {
            for (name, text) in LISTS.iter().zip(lists) {
                let sectors = match *name {
                    "device/errors/list" => truth::exact(text)?,
                    _ => truth::listed(text)?,
                };
                if sectors != disk.sectors() {
                    wrong = Some((disk, name, sectors));
                }
            }
        }
        let Some((disk, name, sectors)) = wrong else {
            return Ok(());
        };
        ensure!(
            start.elapsed() < SOON,
            "/sys/block/{}/{name} has sectors {sectors:?}, and not {:?}",
            disk.name,
            disk.sectors()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Each way to each file and each bad page gives what it must.
fn examine(story: &mut Story, scene: &mut Scene, when: &str) -> Result<()> {
    await_lists(story, &scene.disks)?;
    for disk in &scene.disks {
        let claims = truth::claims(disk);
        let answers = story.quietly(&truth::script(&claims))?;
        truth::judge(&claims, &answers).with_context(|| format!("{when}, {}", disk.name))?;
        scene.answers += claims.len();
        let count = |way| claims.iter().filter(|claim| claim.way == way).count();
        let lost: usize = disk.files.iter().map(|file| disk.bad_of(file).len()).sum();
        let pages: u64 = disk.files.iter().map(|file| file.pages).sum();
        story.seen(
            &format!("{when}: the files of {}", disk.system),
            &format!(
                "{lost} of {pages} pages lost; {} times read(2), {} mappings, {} part writes, {} block reads",
                count(Way::Read),
                count(Way::Mapping),
                count(Way::Write),
                count(Way::Block)
            ),
        );
    }
    agree(story, scene, when)?;
    told(story, scene, when)?;
    scan(story, scene, when)
}

/// pmemctl says of each bad page of a disk whose it is, with no difference to what the file systems'
/// own tools have said. Returns of how many pages it was told that they are a file's, and how long that
/// took.
fn told_by_bad(story: &mut Story, disk: &Disk, when: &str) -> Result<(usize, Duration)> {
    let start = Instant::now();
    let said = story.quietly(&format!(
        "pmemctl errors --json /dev/{} 2>/dev/null || [ $? = {} ]",
        disk.name,
        i32::from(!disk.bad.is_empty())
    ))?;
    let took = start.elapsed();
    let (found, wanted) = (truth::told(&said)?, disk.told()?);
    let wrong: Vec<_> = found.symmetric_difference(&wanted).collect();
    ensure!(
        wrong.is_empty(),
        "{when}, {}: pmemctl errors differs in {wrong:?}",
        disk.name
    );
    let files = found.iter().filter(|told| told.file.is_some()).count();
    Ok((files, took))
}

/// All small files are as they were, but those that are hit; and pmemctl says of each bad page whose
/// it is.
fn told(story: &mut Story, scene: &Scene, when: &str) -> Result<()> {
    for disk in &scene.disks {
        let folder = mount_point(disk);
        let (files, took) = told_by_bad(story, disk, when)?;
        let small: Vec<_> = disk.files.iter().filter(|file| file.small).collect();
        let good = small
            .iter()
            .filter(|file| disk.bad_of(file).is_empty())
            .count();
        let sums = story.quietly(&format!(
            "md5sum {folder}/s/* 2>/dev/null | cut -c-32 | sort | uniq -c"
        ))?;
        let counts: Vec<_> = sums
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        ensure!(
            counts == [good.to_string()],
            "{when}, {}: {good} small files shall be the same, and are:\n{sums}",
            disk.name
        );
        story.seen(
            &format!("{when}: pmemctl errors, of {}", disk.system),
            &format!(
                "{files} pages of files, {} free, by path, inode and offset; no difference; {} ms; {good} of {} small files whole",
                disk.bad.len() - files,
                took.as_millis(),
                small.len()
            ),
        );
    }
    Ok(())
}

/// Reads both disks block by block and compares what comes with the memory.
fn scan(story: &mut Story, scene: &mut Scene, when: &str) -> Result<()> {
    let mut script = String::from(
        "scan() { dd if=/dev/$1 bs=4K conv=noerror,sync iflag=direct 2>/run/$1.said | md5sum >/run/$1.sum; }\n",
    );
    // Nothing may change between one look and the other.
    for disk in &scene.disks {
        script.push_str(&format!("fsfreeze -f {} || exit\n", mount_point(disk)));
    }
    for disk in &scene.disks {
        script.push_str(&format!("scan {} &\n", disk.name));
    }
    script.push_str("wait\n");
    for disk in &scene.disks {
        script.push_str(&format!(
            "cat /run/{0}.sum /run/{0}.said; echo .\n",
            disk.name
        ));
    }
    let said = story.quietly(&script)?;
    let reports: Vec<&str> = said.split_terminator(".\n").collect();
    ensure!(
        reports.len() == scene.disks.len(),
        "{} reports",
        reports.len()
    );
    let (mut blocks, mut unread) = (0, 0);
    for ((disk, memory), report) in scene.disks.iter().zip(&scene.memory).zip(reports) {
        let found = truth::unread(report)?;
        ensure!(
            found == disk.bad,
            "{when}: of {}, blocks {found:?} can't be read, and not {:?}",
            disk.name,
            disk.bad
        );
        let sum = report.split_whitespace().next().unwrap_or_default();
        let wanted = sum_of_memory(disk, &memory.0, memory.1)?;
        ensure!(
            sum == wanted,
            "{when}: what {} gives is not what is in the memory ({sum}, {wanted})",
            disk.name
        );
        blocks += disk.pages;
        unread += found.len();
        story.quietly(&format!("fsfreeze -u {}", mount_point(disk)))?;
    }
    story.seen(
        &format!("{when}: both disks, block by block"),
        &format!(
            "{unread} of {blocks} blocks are EIO, all others as in the memory, seen from outside"
        ),
    );
    Ok(())
}

/// The MD5 sum of the disk as this host sees it, with zeroes in the place of bad pages, as dd puts
/// them there.
fn sum_of_memory(disk: &Disk, path: &Path, start: u64) -> Result<String> {
    let mut bytes = vec![0; usize::try_from(disk.pages * PAGE)?];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut bytes, start))
        .with_context(|| path.display().to_string())?;
    for (number, page) in bytes.chunks_mut(PAGE as usize).enumerate() {
        if disk.bad.contains(&(number as u64)) {
            page.fill(0);
        }
    }
    let mut child = Command::new("md5sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("md5sum")?;
    // It prints nothing before it has read all.
    child
        .stdin
        .take()
        .context("its input")?
        .write_all(&bytes)
        .context("md5sum")?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let sum = text.split_whitespace().next();
    Ok(sum.context("md5sum says nothing")?.to_owned())
}

fn heal(story: &mut Story, scene: &mut Scene) -> Result<()> {
    story.chapter(
        "Healing",
        "Neither memory has a command to clear errors. A write of the whole page heals it, if the page is found in memory \
         afterwards: by pwrite(2) into the file, by pmemctl repair from a copy of the file, by punching the page out of its file and writing the hole, by a write of the \
         free block. Some pages are left as they are.",
    );
    for index in 0..scene.hits.len() {
        let hit = &scene.hits[index];
        let (disk, page, cure) = (hit.disk, hit.page, hit.cure);
        let what = victim(scene, hit);
        let name = scene.disks[disk].name.clone();
        let write_block = format!(
            "pmem-io fill --direct /dev/{name} --offset {0} --length {PAGE} --seed {index} && \
             pmem-io verify --direct /dev/{name} --offset {0} --length {PAGE} --seed {index}",
            page * PAGE
        );
        let file = scene.place(hit).1.map(|(file, page)| {
            let (path, at) = (file.path.clone(), page * PAGE);
            let fill = format!(
                "pmem-io fill {path} --seed {} --offset {at} --length {PAGE}",
                file.seed
            );
            let copy = format!(
                "fallocate -l {0} /run/copy && pmem-io fill /run/copy --seed {1} --length {0}",
                file.pages * PAGE,
                file.seed
            );
            (path, at, fill, copy)
        });
        let cured = match (cure, file) {
            (Cure::Write, Some((_, _, fill, _))) => {
                story.guest(&fill)?;
                scene.disks[disk].bad.remove(&page);
                "pwrite"
            }
            (Cure::Repair, Some((path, at, _, copy))) => {
                story.quietly(&copy)?;
                story.guest(&format!(
                    "pmemctl repair --from /run/copy --offset {at} --length {PAGE} {path}"
                ))?;
                story.quietly("rm /run/copy")?;
                scene.disks[disk].bad.remove(&page);
                "pmemctl repair"
            }
            (Cure::Punch, Some((path, at, fill, _))) => {
                story.guest(&format!(
                    "fallocate -p -o {at} -l {PAGE} {path} && sync -f {path} && {fill}"
                ))?;
                locate_some(story, &mut scene.disks[disk], &path)?;
                match scene.disks[disk].owner(page) {
                    // The same block was taken for the hole.
                    Owner::File(..) => {
                        scene.disks[disk].bad.remove(&page);
                        "punch, write"
                    }
                    // The file is whole in another place, and the bad block free, and bad.
                    Owner::Free => {
                        await_lists(story, &scene.disks)?;
                        story.guest(&write_block)?;
                        scene.disks[disk].bad.remove(&page);
                        "punch, write; block write"
                    }
                    Owner::Records => bail!("the file system has taken page {page} for itself"),
                }
            }
            (Cure::Block, None) => {
                story.guest(&write_block)?;
                scene.disks[disk].bad.remove(&page);
                "block write"
            }
            _ => "–",
        };
        await_lists(story, &scene.disks).with_context(|| what.clone())?;
        scene.hits[index].cured = cured.to_owned();
        story.remark(&format!("{:>3}  {what}: {cured}", index + 1));
    }
    locate(story, scene)?;
    let left: usize = scene.disks.iter().map(|disk| disk.bad.len()).sum();
    story.seen(
        "what was written is off all lists, and nothing else",
        &format!("{} healed, {left} left", scene.hits.len() - left),
    );
    Ok(())
}

/// The machine's own disk, where pmemctl keeps what it saves, and the machine's name for itself.
fn state(story: &mut Story) -> Result<()> {
    story.quietly("echo 0123456789abcdef0123456789abcdef >/etc/machine-id")?;
    story.guest(&format!("mkdir -p {STATE} && mount /dev/vdb {STATE}"))?;
    Ok(())
}

fn power_cut(story: &mut Story, scene: &Scene) -> Result<()> {
    story.chapter(
        "The power fails",
        "QEMU is killed (SIGKILL) with both file systems mounted and pages bad. pmemctl errors save --follow has run all the time, and \
         has saved the list within a second of each change on the machine's own disk.",
    );
    let wanted: Vec<BTreeSet<u64>> = scene.disks.iter().map(Disk::sectors).collect();
    let start = Instant::now();
    loop {
        let mut saved = Vec::new();
        for kind in &KINDS {
            saved.push(truth::exact(&story.quietly(&format!(
                "jq -r '.list.errors[] | \"\\(.offset) \\(.length) \\(.origin)\"' {STATE}/{}-*.json",
                kind.provider
            ))?)?);
        }
        if saved == wanted {
            break;
        }
        ensure!(
            start.elapsed() < SOON,
            "sectors {saved:?} are saved, and not {wanted:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
    story.guest(&format!("ls {STATE}; grep -c . /run/follow.log"))?;
    story.cut_power()?;
    story.seen(
        "saved as it happened",
        &format!(
            "{} pages left; then SIGKILL to QEMU",
            scene.disks.iter().map(|disk| disk.bad.len()).sum::<usize>()
        ),
    );
    Ok(())
}

fn restored(story: &mut Story, scene: &mut Scene) -> Result<()> {
    let found = find(story)?;
    for (disk, found) in scene.disks.iter_mut().zip(&found) {
        disk.name.clone_from(&found.name);
        ensure!(
            (disk.start, disk.pages) == (found.start, found.pages),
            "{} is elsewhere",
            disk.name
        );
    }
    await_lists(story, &found).context("before anything is restored")?;
    state(story)?;
    story.guest("pmemctl errors restore --all")?;
    await_lists(story, &scene.disks)?;
    let left: usize = scene.disks.iter().map(|disk| disk.bad.len()).sum();
    story.seen(
        "a list that was empty has all that was left, and nothing else",
        &format!("{left} pages; disk and region"),
    );

    for (kind, disk) in KINDS.iter().zip(&scene.disks) {
        let folder = mount_point(disk);
        let recover = kind.recover.replace("DISK", &disk.name);
        story.guest(&format!(
            "{recover}mkdir -p {folder} && {} /dev/{} {folder}",
            kind.mount, disk.name
        ))?;
    }
    let before = places(scene);
    locate(story, scene)?;
    ensure!(before == places(scene), "files have moved");
    Ok(())
}

/// Where all files are.
fn places(scene: &Scene) -> Vec<Vec<truth::Extent>> {
    let files = scene.disks.iter().flat_map(|disk| &disk.files);
    files.map(|file| file.extents.clone()).collect()
}

fn goodbye(story: &mut Story, scene: &Scene, driver: Driver) -> Result<()> {
    story.chapter(
        "Goodbye",
        "The file systems are unmounted and checked; the driver leaves.",
    );
    for (kind, disk) in KINDS.iter().zip(&scene.disks) {
        story.guest(&format!(
            "umount {} && {} /dev/{}",
            mount_point(disk),
            kind.check,
            disk.name
        ))?;
    }
    story.guest(&format!("rmmod {}", driver.name()))?;
    story.healthy()?;
    story.seen(
        "file systems without a fault, module removed",
        &format!(
            "{} answers, each as claimed; no warning in the kernel's log",
            scene.answers
        ),
    );
    Ok(())
}

/// What became of each.
fn table(story: &Story, scene: &Scene) {
    let rows: Vec<_> = scene
        .hits
        .iter()
        .enumerate()
        .map(|(index, hit)| {
            let (_, file) = scene.place(hit);
            let (read, mapping) = match file {
                Some((file, _)) => ("EIO".to_owned(), format!("SIGBUS 1 of {}", file.pages)),
                None => ("–".to_owned(), "–".to_owned()),
            };
            [
                (index + 1).to_string(),
                format!("{:#x}", hit.address),
                (1_u64 << hit.lsb).to_string(),
                victim(scene, hit),
                format!("{} ms", hit.listed.as_millis()),
                format!("{} ms", hit.told.as_millis()),
                read,
                mapping,
                "EIO".to_owned(),
                hit.cured.clone(),
                match hit.cure {
                    Cure::None => "listed, EIO".to_owned(),
                    _ => "whole".to_owned(),
                },
            ]
        })
        .collect();
    story.table(
        [
            "",
            "address",
            "bytes",
            "hit",
            "listed",
            "told",
            "read(2)",
            "mapping",
            "block",
            "healed by",
            "after the cut",
        ],
        &rows,
    );
}
