#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# On a machine without persistent memory the module loads once, does nothing, and unloads.
# vm: --bare --append memmap=128M$512M
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/provider.sh"

case $DRIVER in
rust_pmem) MODULE_FILE=$MODULE ;;
*) MODULE_FILE=$(modinfo -n "$DRIVER") ;;
esac
plan 6
cleanup() {
	:
}
check "loaded" load_driver
check_fails "but not twice" insmod "$MODULE_FILE"
is "it is there once" "$(grep -c "^$DRIVER " /proc/modules)" 1
is_empty "no disk" find /sys/block -name 'pmem*'
check "it goes" unload_driver
check "and comes again" sh -c "insmod $MODULE_FILE && rmmod $DRIVER"
