#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# SIGKILL at any system call of pmemctl repair leaves each page as it was or repaired, and the next repair succeeds.
#
# A page that is not repaired stays listed. A file that ends within its last page may be longer, by zeroes, and has to be cut.
# A page that another file of XFS shares moves to a new block.
# vm: files
# timeout: 400
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	umount "$MNT" 2>/dev/null
	forget_errors "$disk"
	rm -f /tmp/right /tmp/backup /tmp/killed.*
}

# One process for all steps: in a guest, each that is started takes some 30 ms.
cat >/tmp/killed.py <<'END'
import errno, fcntl, os, struct, subprocess, sys

FS_IOC_FIEMAP, FICLONE = 0xC020660B, 0x40049409
disk, mount, *cases = sys.argv[1:]
file, copy = mount + "/file", mount + "/copy"
badblocks = f"/sys/block/{disk}/badblocks"
right = open("/tmp/right", "rb").read()
SIZE = len(right)
# The pages of the file that get bad: the last one is not whole.
BAD = [4, 9]


class Wrong(Exception):
    pass


def write(path, data, offset):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done
    os.close(fd)


# The sector that holds this byte of the file.
def sector_of(offset):
    extent = bytearray(struct.pack("=QQIIII", offset, 1, 0, 0, 1, 0) + bytes(56))
    fd = os.open(file, os.O_RDONLY)
    fcntl.ioctl(fd, FS_IOC_FIEMAP, extent)
    os.close(fd)
    if struct.unpack_from("=I", extent, 20)[0] != 1:
        raise Wrong(f"byte {offset} of the file has no block")
    logical, physical = struct.unpack_from("=QQ", extent, 32)
    return (physical + offset - logical) // 512


def listed():
    return [tuple(map(int, line.split())) for line in open(badblocks)]


# Removes the other file, after its blocks are good again.
def clear_copy():
    if os.path.exists(copy):
        write(copy, bytes(40960), 0)
        os.sync()
        os.unlink(copy)


# Makes the pages bad. Their contents are not the backup's any more. If it is shared, another file has them as well.
def make_bad(shared):
    clear_copy()
    write(file, right, 0)
    os.truncate(file, SIZE)
    for page in BAD:
        write(file, b"x", page * 4096 + 10)
    if shared:
        source, target = os.open(file, os.O_RDONLY), os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        fcntl.ioctl(target, FICLONE, source)
        os.close(source)
        os.close(target)
    os.sync()
    for page in BAD:
        with open(badblocks, "w") as bad:
            bad.write(f"{sector_of(page * 4096)} 8\n")


def run(*command):
    with open("/tmp/killed.output", "w") as output:
        return subprocess.run(command, stdout=output, stderr=output).returncode


# Repairs the file, under the command.
def repair(*command):
    return run(*command, "pmemctl", "repair", "--trust-list", "--force", file, "--from", "/tmp/backup")


def output():
    return open("/tmp/killed.output", errors="replace").read()


# The contents of the file, with zeroes in place of pages that can't be read.
def seen():
    fd = os.open(file, os.O_RDONLY)
    size = os.fstat(fd).st_size
    data = b""
    for start in range(0, size, 4096):
        page = b""
        want = min(4096, size - start)
        try:
            while len(page) < want:
                more = os.pread(fd, want - len(page), start + len(page))
                if not more:
                    raise Wrong(f"the file ends at {start + len(page)}, not at {size}")
                page += more
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            page = bytes(want)
        data += page
    os.close(fd)
    return data


# Each page is listed, or is that of the backup.
def check_state():
    data = seen()
    if len(data) < SIZE:
        raise Wrong("the file is too short")
    for page in range((SIZE + 4095) // 4096):
        start, end = page * 4096, min((page + 1) * 4096, SIZE)
        if data[start:end] == right[start:end]:
            continue
        sector = sector_of(start)
        if not any(first <= sector < first + count for first, count in listed()):
            raise Wrong(f"page {page}, at sector {sector}, is wrong, and not listed: {listed()}")
    if data[SIZE:].strip(b"\0"):
        raise Wrong("the file is longer, and not by zeroes")


# Kills it at the first, second … such call, until it has no more of them; returns how many it had.
def kill_at_each(call, shared):
    number, killed = 0, None
    while killed != 0:
        number += 1
        make_bad(shared)
        killed = repair("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
        # strace ends as the program does.
        if killed not in (0, -9, 137):
            raise Wrong(f"at call {number} it was not killed, but failed (status {killed}):\n{output()}")
        check_state()
        if os.stat(file).st_size != SIZE:
            os.truncate(file, SIZE)
        if repair() != 0:
            raise Wrong(f"after SIGKILL at call {number} (status {killed}):\n{output()}")
        if open(file, "rb").read() != right:
            raise Wrong(f"after SIGKILL at call {number} and a repair, the file is not that of the backup")
        if run("pmemctl", "errors", file) != 0:
            raise Wrong(f"after SIGKILL at call {number} and a repair, it has errors:\n{output()}")
        if not shared and listed():
            raise Wrong(f"after SIGKILL at call {number} and a repair, these are listed: {listed()}")
    if number == 1:
        raise Wrong(f"it has no such call: {call}")
    return number - 1


for case in cases:
    shared, call = case.startswith("shared-"), case.removeprefix("shared-")
    try:
        result = f"killed {kill_at_each(call, shared)} times"
        open(f"/tmp/killed.{case}.good", "w").close()
    except (Wrong, OSError) as error:
        result = str(error)
    with open(f"/tmp/killed.{case}", "w") as text:
        print(result, file=text)
clear_copy()
END

# killed_at_each CASE: how this case went.
killed_at_each() {
	cat "/tmp/killed.$1"
	test -e "/tmp/killed.$1.good"
}

need strace python3
plan 6
load_driver
disk=$(e820_disk)
dd if=/dev/urandom of=/tmp/right bs=40000 count=1 status=none
cp /tmp/right /tmp/backup
for type in ext4 xfs; do
	wipefs -aq "/dev/$disk"
	make_fs $type "$disk"
	mount_dax "$disk"
	rm -f /tmp/killed.pwrite64* /tmp/killed.ftruncate*
	case $type in
	ext4) set -- pwrite64 ftruncate ;;
	xfs) set -- pwrite64 ftruncate shared-pwrite64 shared-ioctl ;;
	esac
	python3 /tmp/killed.py "$disk" "$MNT" "$@"
	for call in pwrite64 ftruncate; do
		check "$type: killed at each $call" killed_at_each $call
	done
	[ $type = ext4 ] || for call in pwrite64 ioctl; do
		check "$type: shared blocks: killed at each $call" killed_at_each shared-$call
	done
	umount "$MNT"
done
