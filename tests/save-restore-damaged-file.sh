#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A saved list that is cut off, edited, stale or of other memory is refused with a reason and status 3, and changes
# nothing.
#
# Other devices are still restored.
# vm: three
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/schema.sh"
. "$(dirname "$0")/lib/save-restore.sh"

cleanup() {
	for disk in "$e820" "$virtio"; do
		pmem-io fill --direct --offset 4M --length 4K "/dev/$disk"
	done
	rm -rf $STATE /tmp/other
}

# rebind_disks: repairs the errors that the driver has listed and rebinds both disks, so that the saved errors can be restored.
rebind_disks() {
	for namespace in "$(e820_ns)" "$(virtio_ns)"; do
		disk=$(disk_of "$namespace")
		pmem-io fill --direct --offset 4M --length 4K "/dev/$disk"
		rebind "$namespace"
	done
	e820=$(e820_disk)
	virtio=$(disk_of "$(virtio_ns)")
}

# check_refused NAME WHY: refuses the saved list of the e820 memory and nothing else: 4 subtests.
check_refused() {
	rebind_disks
	cp "$file" /tmp/before
	status=0
	pmemctl errors restore --all --json >/tmp/restore.json 2>&1 || status=$?
	is "$1: status" "$status" 3
	# Nothing is saved for the NVDIMM.
	is "$1: refused, the other is restored" "$(jq -r --arg none "$nvdimm" '.reports[] | select(.disk != $none) | "\(.result) \(.refusal)"' \
		/tmp/restore.json | sort | xargs)" "refused $2 restored null"
	is_empty "$1: the list is as it was" cat "/sys/block/$e820/badblocks"
	check "$1: so is the file" cmp "$file" /tmp/before
	jq -r '.reports[].reasons // [] | .[]' /tmp/restore.json | sed 's/^/# /'
}

plan 28
rm -rf $STATE /tmp/other
load_driver_anew
nvdimm=$(plain_disk)
for namespace in "$(e820_ns)" "$(virtio_ns)"; do
	raw_disk "$namespace" >/dev/null
done
rebind_disks
echo ffff456789abcdef0123456789abcdef >/etc/machine-id
echo "8192 8" >"/sys/block/$e820/badblocks"
pmemctl errors save --state-dir /tmp/other "$e820"
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
rebind_disks
file=$(state_file e820 "$(e820_ns)")
is "nothing is saved yet" "$(restore --all | cut -d ' ' -f 2 | sort -u)" nothing-saved
echo "8192 8" >"/sys/block/$e820/badblocks"
echo "8192 8" >"/sys/block/$virtio/badblocks"
check "saved" pmemctl errors save --all
cp "$file" /tmp/good

pmem-io fill --direct --offset 4M --length 4K "/dev/$e820"
status=0
pmemctl errors restore "$e820" >/tmp/output 2>&1 || status=$?
is "stale: status" "$status" 3
check "stale: said so" grep -q 'is stale' /tmp/output
is_empty "stale: the repaired one is not listed again" cat "/sys/block/$e820/badblocks"
is "stale: the other has all of it" "$(restore "$virtio")" "$virtio there-already 0"

head -c 300 /tmp/good >"$file"
check_refused "cut off" damaged
sed 's/"offset": 4194304/"offset": 4198400/' /tmp/good >"$file"
check_refused "edited" damaged
sed 's/"version": 2/"version": 7/' /tmp/good >"$file"
check_refused "of a later version" version
cp /tmp/other/* "$file"
check_refused "of another machine" other-memory

check_schema "errors restore" /tmp/restore.json
cp /tmp/good "$file"
rebind_disks
is "the good one is restored" "$(restore "$e820")" "$e820 restored 8"
head -c 300 /tmp/good >"$file"
check "a save puts a bad one aside" pmemctl errors save "$e820"
check "where it can be looked at" test -s "$file.refused"
is "of which the status warns" "$(pmemctl status 2>&1 | grep -c "$file.refused: this saved list was refused")" 1
is "and saves what is listed" "$(jq -r '.list.errors[].offset' "$file")" 4194304
