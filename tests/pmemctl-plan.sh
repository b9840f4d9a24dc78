#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pmemctl plan predicts capacity and RAM use of each mode of a namespace within 5 %.
# kernel: device_dax kmem
# vm: big
# timeout: 500
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"
. "$(dirname "$0")/lib/ram.sh"

ONLINE=/sys/devices/system/memory/auto_online_blocks

cleanup() {
	fresh_labels
	modprobe -r kmem device_dax dax_pmem
	echo "$online" >$ONLINE
}

# predicted FORM FIELD
predicted() {
	jq -r --arg form "$1" --arg field "$2" '.plans[0].forms[] | select(.form == $form) | .[$field]' /tmp/advice.json
}

# check_near NAME PREDICTED SEEN [SLACK]: the prediction is within 5 % of the actual value, or SLACK bytes.
check_near() {
	near_off=$(($2 > $3 ? $2 - $3 : $3 - $2))
	if [ "$near_off" -le $(($3 / 20 > ${4:-0} ? $3 / 20 : ${4:-0})) ]; then
		ok "$1"
	else
		not_ok "$1"
		printf '# predicted %d, seen %d\n' "$2" "$3"
	fi
}

# memmap_bytes: the struct pages of devices, in RAM and on devices.
memmap_bytes() {
	sed -n 's/^nr_memmap_pages //p' /proc/vmstat | awk '{ print $1 * 4096 }'
}

# make_form FORM: makes it with the predicted commands; made_map and made_ram are the bytes of struct pages and of RAM
# that it takes.
make_form() {
	ndctl destroy-namespace -f -r "$region" all >/dev/null 2>&1 || :
	settle
	before_map=$(memmap_bytes)
	before_ram=$(free_ram)
	sh -c "$(predicted "$1" 'commands' | jq -r '.[0]')" >/tmp/made.json 2>/tmp/made.err || cat /tmp/made.err
	settle
	made_map=$(($(memmap_bytes) - before_map))
	made_ram=$(((before_ram - $(free_ram)) * 1024))
}

# actual_capacity: the usable bytes.
actual_capacity() {
	if [ "$(jq -r .blockdev /tmp/made.json)" != null ]; then
		blockdev --getsize64 "/dev/$(jq -r .blockdev /tmp/made.json)"
	else
		jq -r '.daxregion.devices[0].size // .size' /tmp/made.json
	fi
}

need jq daxctl blockdev
# Not every architecture has huge pages of 1 GiB.
if kernel_has vmf_insert_folio_pud; then
	plan 41
	gigabyte=devdax-1g
else
	plan 38
	gigabyte=
fi
# Its commands change this.
online=$(cat $ONLINE)
modprobe -a dax_pmem device_dax kmem
load_driver
fresh_labels
region=$(labelled_region)
pmemctl plan --json "$region" >/tmp/advice.json
check_schema plan /tmp/advice.json

# The kernel's count is exact. Free memory only shows where the struct pages are, because other allocations take some
# MiB in the seconds that this needs.
noise=$((40 << 20))
is "of a use" "$(pmemctl plan --json --use ram "$region" | jq -r '.plans[0].take.form')" system-ram
[ -n "$gigabyte" ] || is "devdax-1g: can't be made" "$(predicted devdax-1g impossible)" "the kernel has no pages of 1G"
for form in raw sector fsdax-ram fsdax-device devdax-4k devdax-2m $gigabyte devdax-device; do
	is "$form: can be made" "$(predicted "$form" impossible)" null
	make_form "$form"
	check_near "$form: capacity" "$(predicted "$form" capacity)" "$(actual_capacity)"
	# The kernel also counts struct pages on the device.
	case $form in
	*-device) check_near "$form: map on the device" "$(predicted "$form" on_device)" "$made_map" ;;
	*) check_near "$form: map" "$(predicted "$form" ram)" "$made_map" ;;
	esac
	if [ -n "${KERNEL:-}" ] && kernel_has kasan_report; then
		skip "$form: RAM, about" "KASAN's shadow of mapped memory is in RAM too"
	else
		check_near "$form: RAM, about" "$(predicted "$form" ram)" "$made_ram" $noise
	fi
done
make_form system-ram
device=$(jq -r '.daxregion.devices[0].chardev' /tmp/made.json)
total=$(awk '$1 == "MemTotal:" { print $2 * 1024 }' /proc/meminfo)
predicted system-ram commands | jq -r '.[1:][]' | sed "s/DAX_DEVICE/$device/" >/tmp/commands
sh -e /tmp/commands >/tmp/ram.json 2>/tmp/ram.err || cat /tmp/ram.err
now=$(awk '$1 == "MemTotal:" { print $2 * 1024 }' /proc/meminfo)
check_near "system-ram: capacity" "$(predicted system-ram capacity)" $((now - total))
check_near "system-ram: map" "$(predicted system-ram ram)" $(($(memmap_bytes) - before_map))
check_fails "a region that is full is refused" pmemctl plan "$region"
namespace=$(jq -r .dev /tmp/made.json)
is "its namespace is not" "$(pmemctl plan --json "$namespace" | jq -r '.plans[0].memory.namespace')" "$namespace"
is "commands that destroy its data are announced" "$(pmemctl plan --use files "$namespace" | grep -c "^THIS DESTROYS ALL DATA OF $namespace")" 1
is "no commands for the mode that it has" "$(pmemctl plan --json --use ram "$namespace" | jq -c '.plans[0].take | [.form, .commands, .destroys]')" \
	'["system-ram",[],false]'
check_fails "no such use" pmemctl plan --use nothing "$region"
# Other tests need the NVDIMM.
wait_for 30 daxctl offline-memory "$device" >/dev/null 2>&1
daxctl reconfigure-device -f -m devdax "$device" >/dev/null 2>&1 || :
