#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A write of a DAX file from within a page, over a bad one and into the next, is durable after fsync.
# soak
# vm: powerfail-provider 2
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"
. "$(dirname "$0")/lib/powerfail.sh"

plan 4
# The plugin of a guest that another test has used already follows stores: keep=1 does not fill the memory.
provide dimm=0 keep=1
make_fs ext4 "$DISK" -E lazy_itable_init=0,lazy_journal_init=0
mount_dax "$DISK"
fallocate -l 64K $MNT/file
pmem-io fill $MNT/file
at=$(($(pmem-io phys $MNT/file --offset 32K) - MEMORY))
sync
watch_stores
pmem-io map $MNT/file store=0+4K
check "a store through a mapping is seen" [ "$(undurable)" -gt 0 ]
sync $MNT/file
provider bad "$at+4K"
# 101 bytes before the bad page, and 202 behind it.
is_durable "odd bytes around the bad page" sh -c "pmem-io pwrite $MNT/file --offset 32667 --length 4399 --seed 2 && sync $MNT/file"
check "they are there" pmem-io verify $MNT/file --offset 32667 --length 4399 --seed 2
is_empty "nothing is listed" badblocks_of "$DISK"
