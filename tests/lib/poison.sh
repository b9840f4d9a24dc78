# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers to poison memory. The guest needs `--append nokaslr --append no_hash_pointers`.

# kernel_address PHYSICAL: where the kernel loads from it: a mapping of its own, for persistent memory without struct pages, or
# else the direct map (Documentation/arch/x86/x86_64/mm.rst).
#
# The shell's numbers have a sign: the first byte of an address, 0xff, is left out of them.
kernel_address() {
	if grep -qw la57 /proc/cpuinfo; then
		poison_map=0x11000000000000
	else
		poison_map=0xff888000000000
	fi
	while read -r poison_range poison_size poison_rest; do
		case $poison_rest in
		*phys=0x*ioremap*) ;;
		*) continue ;;
		esac
		poison_phys=${poison_rest#*phys=}
		poison_at=$(($1 - ${poison_phys%% *}))
		if [ $poison_at -ge 0 ] && [ $poison_at -lt "$poison_size" ]; then
			poison_start=${poison_range%-*}
			printf '0xff%014x\n' $((0x${poison_start#0xff} + poison_at))
			return
		fi
	done </proc/vmallocinfo
	printf '0xff%014x\n' $((poison_map + $1))
}

# poison PHYSICAL: poisons that cache line for the kernel.
poison() {
	host poison "$(kernel_address "$1")" "$1"
}
