# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For selftests that need memory which fails, flushes that are counted, or a driver's probe that fails:
#
#	# vm: --bare --append memmap=64M$512M
#	. "$(dirname "$0")/../provider/lib.sh"
#	provide bad=1M+4K
#
# See pmem_provider.c for the parameters.

# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

# provide PARAMETER=VALUE…: a provider with these parameters, and the driver under test bound to what it provides. DISK is the
# name of its first disk, empty where there is none, NAMESPACE the name of its first namespace.
provide() {
	provider_load "$@"
	load_driver
	NAMESPACE=$(namespaces pmem_provider | head -n 1)
	DISK=$(disk_of "$NAMESPACE") || DISK=
}

provider_load() {
	modprobe libnvdimm
	insmod "$(dirname "$0")/../provider/pmem_provider.ko" "$@"
	settle
}

# provider NAME: the value of a parameter of the provider. provider NAME VALUE: sets it.
provider() {
	if [ $# -eq 1 ]; then
		cat "/sys/module/pmem_provider/parameters/$1"
	else
		printf '%s\n' "$2" >"/sys/module/pmem_provider/parameters/$1"
	fi
}

# badblocks_of DEVICE: the bad blocks of a disk (pmem0) or a region (region0), each as START+LENGTH, on one line.
badblocks_of() {
	case $1 in
	region*) tr ' \n' '+ ' <"$ND/$1/badblocks" ;;
	*) tr ' \n' '+ ' <"/sys/block/$1/badblocks" ;;
	esac | sed 's/ $//'
}

# rebind: the namespace is given up by the driver under test and taken again.
rebind() {
	echo "$1" >"/sys/bus/nd/drivers/$DRIVER/unbind"
	echo "$1" >"/sys/bus/nd/drivers/$DRIVER/bind"
	settle
}

# read_sectors DISK START [COUNT], write_sectors DISK START [COUNT] [dd's operands]: past the page cache, in one bio.
read_sectors() {
	dd if="/dev/$1" bs="$((512 * ${3:-1}))" count=1 iflag=direct,skip_bytes skip="$((512 * $2))" status=none
}

# write_sectors DISK START COUNT [FLAG,…]: from standard input, past the page cache, in one bio.
write_sectors() {
	dd of="/dev/$1" bs="$((512 * $3))" count=1 oflag="direct,seek_bytes${4:+,$4}" iflag=fullblock seek="$((512 * $2))" \
		conv=notrunc status=none
}

# pattern TEXT COUNT: so many sectors full of a text of 7 letters.
pattern() {
	yes "$1" | head -c "$((512 * $2))"
}

provider_cleanup() {
	[ ! -d "/sys/module/$DRIVER" ] || rmmod "$DRIVER"
	[ ! -d /sys/module/pmem_provider ] || rmmod pmem_provider
}

cleanup() {
	provider_cleanup
}
