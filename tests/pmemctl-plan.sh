#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl plan: capacity and RAM that it predicts for each form are, within 5 %, what is there when the form is made.
# vm: --bare --memory 2G --nvdimm size=16G,labels
# timeout: 500
. "$(dirname "$0")/lib/test.sh"

cleanup() {
	fresh_labels
}

# predicted FORM FIELD
predicted() {
	jq -r --arg form "$1" --arg field "$2" '.[0].forms[] | select(.form == $form) | .[$field]' /tmp/advice.json
}

# near NAME PREDICTED SEEN [SLACK]: within 5 % of what is seen, or SLACK bytes.
near() {
	near_off=$(($2 > $3 ? $2 - $3 : $3 - $2))
	if [ "$near_off" -le $(($3 / 20 > ${4:-0} ? $3 / 20 : ${4:-0})) ]; then
		ok "$1"
	else
		not_ok "$1"
		printf '# predicted %d, seen %d\n' "$2" "$3"
	fi
}

# maps: bytes of the page maps of devices, wherever they are.
maps() {
	sed -n 's/^nr_memmap_pages //p' /proc/vmstat | awk '{ print $1 * 4096 }'
}

# memory: bytes that are free, or would be, when asked for.
memory() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	awk '$1 == "MemFree:" { print $2 * 1024 }' /proc/meminfo
}

# makes FORM: as it says; the bytes of page map and of RAM that it takes are in made_map and made_ram.
makes() {
	ndctl destroy-namespace -f all >/dev/null 2>&1 || :
	settle
	before_map=$(maps)
	before_ram=$(memory)
	sh -c "$(predicted "$1" 'commands' | jq -r '.[0]')" >/tmp/made.json 2>/tmp/made.err || cat /tmp/made.err
	settle
	made_map=$(($(maps) - before_map))
	made_ram=$((before_ram - $(memory)))
}

# has FORM: bytes that can be used.
has() {
	if [ "$(jq -r .blockdev /tmp/made.json)" != null ]; then
		blockdev --getsize64 "/dev/$(jq -r .blockdev /tmp/made.json)"
	else
		jq -r '.daxregion.devices[0].size // .size' /tmp/made.json
	fi
}

need jq daxctl blockdev
plan 38
modprobe -a dax_pmem device_dax kmem
load_driver
fresh_labels
region=$(labelled_region)
pmemctl plan --json "$region" >/tmp/advice.json

# The kernel's own count is exact. Free memory says only where the map is, as other allocations, in all the seconds that
# making one takes, are some MiB.
noise=$((40 << 20))
is "of a use" "$(pmemctl plan --json --use ram "$region" | jq -r '.[0].take.form')" system-ram
for form in raw sector fsdax-ram fsdax-device devdax-4k devdax-2m devdax-1g devdax-device; do
	is "$form: can be made" "$(predicted $form impossible)" null
	makes $form
	near "$form: capacity" "$(predicted $form capacity)" "$(has)"
	# The kernel counts maps on the device as well.
	case $form in
	*-device) near "$form: map on the device" "$(predicted $form on_device)" "$made_map" ;;
	*) near "$form: map" "$(predicted $form ram)" "$made_map" ;;
	esac
	near "$form: RAM, about" "$(predicted $form ram)" "$made_ram" $noise
done
makes system-ram
device=$(jq -r '.daxregion.devices[0].chardev' /tmp/made.json)
total=$(awk '$1 == "MemTotal:" { print $2 * 1024 }' /proc/meminfo)
predicted system-ram commands | jq -r '.[1:][]' | sed "s/DAX_DEVICE/$device/" >/tmp/commands
sh -e /tmp/commands >/tmp/ram.json 2>/tmp/ram.err || cat /tmp/ram.err
now=$(awk '$1 == "MemTotal:" { print $2 * 1024 }' /proc/meminfo)
near "system-ram: capacity" "$(predicted system-ram capacity)" $((now - total))
near "system-ram: map" "$(predicted system-ram ram)" $(($(maps) - before_map))
check_fails "a region that is full is refused" pmemctl plan "$region"
is "its namespace is not" "$(pmemctl plan --json "$(jq -r .dev /tmp/made.json)" | jq -r '.[0].memory.namespace')" "$(jq -r .dev /tmp/made.json)"
check_fails "no such use" pmemctl plan --use nothing "$region"
daxctl offline-memory "$device" >/dev/null 2>&1 || :
daxctl reconfigure-device -f -m devdax "$device" >/dev/null 2>&1 || :
