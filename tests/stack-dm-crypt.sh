#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# dm-crypt, LUKS and plain, works without DAX and leaves no plaintext on the disk.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/stack.sh"

need cryptsetup fio
# Without udev.
export DM_DISABLE_UDEV=1
tmp=/tmp/stack-dm-crypt
cleanup() {
	umount $MNT 2>/dev/null
	cryptsetup close secret
	rm -f $tmp.*
} 2>/dev/null

open_luks() {
	cryptsetup open --disable-keyring --key-file $tmp.key "/dev/$disk" secret
}

open_plain() {
	cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 256 --key-file $tmp.key "/dev/$disk" secret
}

plan 18
load_driver
disk=$(labelled_disk -m fsdax -M dev -s 48M)
seq 1000 | head -c 32 >$tmp.key
for type in luks plain; do
	clean_disk "$disk"
	[ $type = plain ] ||
		cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "/dev/$disk" $tmp.key 2>/dev/null
	check "$type: opened" open_$type
	record "$type: queue" "$(queue_attributes mapper/secret dax write_cache fua logical_block_size)"
	check_disk "$type" mapper/secret
	yes 'to be kept secret' | dd of=/dev/mapper/secret bs=64k count=16 iflag=fullblock conv=fsync status=none
	check_fails "$type: what is secret is not on the disk" grep -q -a 'to be kept secret' "/dev/$disk"
	cryptsetup close secret
	open_$type
	is "$type: but there, when it is opened again" "$(head -c 1M /dev/mapper/secret | md5sum)" \
		"$(yes 'to be kept secret' | head -c 1M | md5sum)"
	cryptsetup close secret
done
