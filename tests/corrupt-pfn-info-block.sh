#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Corrupt info blocks of fsdax and devdax namespaces yield the recorded namespace and log messages, and stay unchanged.
#
# Changes each field, with the right checksum and without.
# kernel: device_dax
# compare
# vm: provider
# expect-splat: at badblocks_check+ < nd_pfn_clear_memmap_errors
# expect-splat: shift-out-of-bounds < drivers/nvdimm/pfn_devs.c
# expect-splat-nd_pmem: at add_pages+
# expect-splat-nd_pmem: at arch_add_memory+
# timeout: 300
. "$(dirname "$0")/lib/test.sh"
. "$(dirname "$0")/lib/corrupt.sh"

need perl
# struct nd_pfn_sb, in drivers/nvdimm/pfn.h.
provide size=$((64 << 20))
make_fsdax "$NAMESPACE" dev >/dev/null
save_memory 64
try_corruptions "fsdax, map on the device" 64 <<-END
	nothing changed|block|0|4e
	another signature|block|0|4d
	the signature of device DAX|block|0|4e564449414d5f4441585f494e464f00
	a wrong checksum|block|4088|0000000000000000
	no uuid|block|16|00000000000000000000000000000000
	another parent's uuid|block|32|11111111111111111111111111111111
	flags|block|48|ffffffff
	a major version of the future|block|52|0200
	major version 0|block|52|0000
	minor version 0|block|54|0000
	minor version 1|block|54|0100
	minor version 3|block|54|0300
	data out of the grid of pages|block|56|0108200000000000
	data out of the alignment|block|56|0010200000000000
	data far behind the end|block|56|000000000000ff7f
	no pages|block|64|0000000000000000
	more pages than there are|block|64|ffffffffffffff7f
	mode 0|block|72|00000000
	mode RAM|block|72|01000000
	a start padding|block|76|00002000
	a huge start padding|block|76|000000f0
	an end cut off|block|80|00002000
	alignment 0|block|84|00000000
	alignment 3|block|84|03000000
	alignment 4K|block|84|00100000
	alignment 1G|block|84|00000040
	a page size of 64K|block|88|00000100
	a page size of 0|block|88|00000000
	a small struct page|block|92|2000
	a huge struct page|block|92|ffff
	padding that is not zero|block|94|ffffffff
	no room for struct pages, alignment 4K|block|56|0020000000000000fe3f00000000000002000000000000000000000000100000
	data in front of the struct pages, alignment 4K|block|56|0010000000000000fe3f00000000000002000000000000000000000000100000
	data at 0, alignment 0|block|56|0000000000000000fe3f00000000000002000000000000000000000000000000
	intact again|block|0|4e
END
provider_cleanup
# Memory that is mapped with struct pages anyway needs no info block for struct pages in RAM.
export PARAMETERS=pages=0
provide size=$((64 << 20)) pages=0
make_fsdax "$NAMESPACE" mem >/dev/null
save_memory 64
try_corruptions "fsdax, map in RAM" 64 <<-END
	nothing changed|block|0|4e
	no pages|block|64|0000000000000000
	more pages than there are|block|64|ffffffffffffff7f
	data out of the alignment|block|56|0010200000000000
	data at 4M|block|56|0000400000000000
	mode on the device|block|72|02000000
	a start padding|block|76|00002000
	an end cut off|block|80|00002000
	a page size of 64K|block|88|00000100
	a small struct page|block|92|2000
END
provider_cleanup
provide size=$((64 << 20))
make_namespace -e "$NAMESPACE" -m devdax -M mem >/dev/null
save_memory 64
try_corruptions "device DAX" 64 <<-END
	nothing changed|block|0|4e
	another signature|block|0|4d
	a wrong checksum|block|4088|0000000000000000
	an alignment that is none|block|84|00300000
	mode 7|block|72|07000000
	data far behind the end|block|56|000000000000ff7f
END
report_rows
