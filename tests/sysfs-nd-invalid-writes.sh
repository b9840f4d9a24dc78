#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Every writable sysfs file of the driver, namespace, region and pfn device refuses garbage, bound or not, as recorded.
# compare
# vm: labels
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/rows.sh"

need perl
load_driver
# Also with names of devices that do not belong to the driver.
add_write_rows "driver" "/sys/bus/nd/drivers/$DRIVER" bind unbind uevent -- '' '\n' garbage nmem0 ndbus0 'region0\n' 'x*5000' 'namespace99.0' '../namespace0.0'
plain=$(basename "$(readlink -f "/sys/block/$(plain_disk)/device")")
add_write_rows "driver" "/sys/bus/nd/drivers/$DRIVER" bind -- "$(e820_ns)"
add_row "driver: bound already" "$(env echo "$plain" 2>&1 >"/sys/bus/nd/drivers/$DRIVER/bind" | sed 's/.*: //')."
rm -f "$ROWS.names"
sed "s/\"$(e820_ns)\"/the e820 one/" $ROWS >$ROWS.names
mv $ROWS.names $ROWS

disk=$(labelled_disk -m fsdax -M mem -s 32M)
region=$(labelled_region)
number=${region#region}
# write_all_files NAME DEVICE: writes to every writable file of the device except those that only trigger actions.
write_all_files() {
	# shellcheck disable=SC2046 # a list
	add_write_rows "$1" "$ND/$2" \
		$(cd "$ND/$2" && find . -maxdepth 2 -path './*/*' -prune -o -perm -200 -type f ! -name uevent -printf '%P\n' | sort) \
		-- '' '\n' garbage -1 3 512 18446744073709551616 'x*5000' '1*300' 11111111-2222-3333-4444-55555555555
}
write_all_files "region" "$region"
write_all_files "namespace of a pfn" "namespace$number.0"
write_all_files "pfn, bound" "$(device_of_disk "$disk")"
write_all_files "raw namespace, bound" "$plain"
echo "$plain" >"/sys/bus/nd/drivers/$DRIVER/unbind"
write_all_files "raw namespace, unbound" "$plain"
echo "$plain" >"/sys/bus/nd/drivers/$DRIVER/bind"
write_all_files "empty namespace" "$(cat "$ND/$region/namespace_seed")"
write_all_files "empty pfn" "$(cat "$ND/$region/pfn_seed")"
write_all_files "empty BTT" "$(cat "$ND/$region/btt_seed")"
add_row "the pfn's disk is there" "$(pmem-io pread --direct "/dev/$disk" --length 4096 2>&1)"
add_row "the raw disk is there" "$(pmem-io pread --direct "/dev/$(plain_disk)" --length 4096 2>&1)"
report_rows
