#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A bad block below md, swap, dm-crypt and the NVMe target reaches the user as the right error, and RAID 1 repairs it.
# compare
# vm: provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/stack.sh"

need mdadm cryptsetup nvme python3
md=md127
export DM_DISABLE_UDEV=1
nvmet=/sys/kernel/config/nvmet
subsystem=$nvmet/subsystems/pmem
cleanup() {
	mdadm -q --stop /dev/$md
	cryptsetup close secret
	swapoff "/dev/$FIRST"
	stop_nvmet
	rmdir /sys/fs/cgroup/badblocks-below-md-swap-crypt-nvmet
	umount /sys/fs/cgroup
	umount /sys/kernel/config
	rm -f /tmp/badblocks-below-md-swap-crypt-nvmet.*
	provider_cleanup
} 2>/dev/null

stop_nvmet() {
	nvme disconnect -n pmem >/dev/null
	rm -f $nvmet/ports/1/subsystems/pmem
	rmdir $nvmet/ports/1
	echo 0 >$subsystem/namespaces/1/enable
	rmdir $subsystem/namespaces/1 $subsystem
	modprobe -r nvme_loop nvmet
}

# read_sector DISK SECTOR: the result of a read of one sector.
read_sector() {
	pmem-io pread --direct "/dev/$1" --offset $(($2 * 512)) --length 512 2>&1
}

# verify_neighbours DISK SECTOR BYTES: verifies BYTES before the sector, and BYTES behind its block of that size.
verify_neighbours() {
	pmem-io verify --direct "/dev/$1" --offset $(($2 * 512 - $3)) --length "$3" &&
		pmem-io verify --direct "/dev/$1" --offset $(($2 * 512 + $3)) --length "$3"
}

plan 20
provide nr_regions=2 pages=1
FIRST=$DISK
SECOND=$(disk_of "$(namespaces pmem_provider | sed -n 2p)")

# The data begins at 2 MiB on each disk; chunks are 64 KiB.
mdadm -q --create /dev/$md --run --metadata=1.2 --homehost=none --bitmap=none --level=0 --chunk=64 --data-offset=2M \
	--raid-devices=2 "/dev/$FIRST" "/dev/$SECOND"
pmem-io fill --direct /dev/$md --length 4M
# Sector 128 is the first of the second chunk.
provider bad $(((32 << 20) + (2 << 20)))+512
record "RAID 0: a read of the bad sector" "$(read_sector $md 128)"
check "RAID 0: its neighbours" verify_neighbours $md 128 512
pmem-io fill --direct /dev/$md --length 4M
is_empty "RAID 0: written, it is repaired" badblocks_of "$SECOND"
mdadm -q --stop /dev/$md

mdadm -q --create /dev/$md --run --metadata=1.2 --homehost=none --bitmap=none --level=1 --data-offset=2M --raid-devices=2 \
	--assume-clean "/dev/$FIRST" "/dev/$SECOND"
pmem-io fill --direct /dev/$md --length 4M
provider bad "3M+4K,$(((32 << 20) + (5 << 20)))+4K"
is "RAID 1: both halves have a bad block" "$(badblocks_of "$FIRST") $(badblocks_of "$SECOND")" "6144+8 10240+8"
check "RAID 1: nobody sees them" pmem-io verify --direct /dev/$md --length 4M
echo check >/sys/block/$md/md/sync_action
mdadm -q --wait /dev/$md || :
is_empty "RAID 1: once all was read, they are repaired" cat "/sys/block/$FIRST/badblocks" "/sys/block/$SECOND/badblocks"
is "RAID 1: and both are in it" "$(cat /sys/block/$md/md/degraded)" 0
mdadm -q --fail /dev/$md "/dev/$FIRST"
check "RAID 1: the second half alone" pmem-io verify --direct /dev/$md --length 4M
# If the bus refuses to clear poison, the last mirror has no good copy left.
provider clear_limit 0
provider bad "$(((32 << 20) + (4 << 20)))+4K"
record "RAID 1: a read of what is bad in the last half" "$(read_sector $md 4096)"
record "RAID 1: a write of it, which is refused" "$(pmem-io pwrite --direct /dev/$md --offset 2M --length 4K 2>&1)"
provider clear_limit 4294967295
mdadm -q --stop /dev/$md
write_sectors "$SECOND" 8192 8 </dev/zero

seq 1000 | head -c 32 >/tmp/badblocks-below-md-swap-crypt-nvmet.key
cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 256 --key-file /tmp/badblocks-below-md-swap-crypt-nvmet.key "/dev/$FIRST" secret 2>/dev/null
pmem-io fill --direct /dev/mapper/secret --length 4M
provider bad 1M+512
record "dm-crypt: a read of the bad sector" "$(read_sector mapper/secret 2048)"
check "dm-crypt: its neighbours" verify_neighbours mapper/secret 2048 512
pmem-io fill --direct /dev/mapper/secret --length 4M
is_empty "dm-crypt: written, it is repaired" badblocks_of "$FIRST"
cryptsetup close secret

mount -t configfs none /sys/kernel/config
modprobe -a nvmet nvme_loop
mkdir $subsystem $subsystem/namespaces/1 $nvmet/ports/1
echo 1 >$subsystem/attr_allow_any_host
echo "/dev/$FIRST" >$subsystem/namespaces/1/device_path
echo 1 >$subsystem/namespaces/1/enable
echo loop >$nvmet/ports/1/addr_trtype
ln -s $subsystem $nvmet/ports/1/subsystems/pmem
nvme connect -t loop -n pmem --hostnqn nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555 \
	--hostid 11111111-2222-3333-4444-555555555555 >/dev/null
wait_for 30 sh -c 'test -b /dev/nvme*n1'
remote=$(basename /dev/nvme*n1)
pmem-io fill --direct "/dev/$remote" --length 4M
provider bad 1M+512
dmesg -C
record "NVMe: a read of the bad sector" "$(read_sector "$remote" 2048)"
record "NVMe: what the kernel says" "$(dmesg | grep -o '[a-zA-Z/]* error, dev nvme.*, sector [0-9]*' | sed 's/nvme[0-9a-z]*/DISK/' | uniq)"
check "NVMe: its neighbours" verify_neighbours "$remote" 2048 512
pmem-io fill --direct "/dev/$remote" --length 4M
is_empty "NVMe: written, it is repaired" badblocks_of "$FIRST"
stop_nvmet

cat >/tmp/badblocks-below-md-swap-crypt-nvmet.py <<'END'
from os import urandom
from sys import stdin

held = [bytearray(urandom(1 << 20)) for _ in range(24)]
print("filled", flush=True)
stdin.readline()
print(sum(part[0] for part in held) >= 0)
END
[ ! -e /sys/module/zswap ] || echo N >/sys/module/zswap/parameters/enabled
mount -t cgroup2 none /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/badblocks-below-md-swap-crypt-nvmet
echo 16M >/sys/fs/cgroup/badblocks-below-md-swap-crypt-nvmet/memory.max
mkswap -q "/dev/$FIRST"
check "swap: on" swapon "/dev/$FIRST"
mkfifo /tmp/badblocks-below-md-swap-crypt-nvmet.in
# -B: bytecode that it saved in the tmpfs would go to the bad swap space too, and the kernel warns when that is deleted.
(
	exec sh -c 'echo $$ >/sys/fs/cgroup/badblocks-below-md-swap-crypt-nvmet/cgroup.procs && exec python3 -B /tmp/badblocks-below-md-swap-crypt-nvmet.py'
) </tmp/badblocks-below-md-swap-crypt-nvmet.in >/tmp/badblocks-below-md-swap-crypt-nvmet.out 2>&1 &
exec 5>/tmp/badblocks-below-md-swap-crypt-nvmet.in
wait_for 90 grep -q filled /tmp/badblocks-below-md-swap-crypt-nvmet.out
# All of the swap space except the page with its header.
provider bad 4K+32764K
echo >&5
status=0
wait $! || status=$?
is "swap: a process whose page can't be read back gets SIGBUS" "$status" $((128 + 7))
check "swap: swapoff succeeds" swapoff "/dev/$FIRST"
exec 5>&-
rmdir /sys/fs/cgroup/badblocks-below-md-swap-crypt-nvmet
