#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tests/external/packages/kdir.sh: setup/check-kdir accepts the kernel's build directory of the build root, and names in
# one sentence the fault of others. It needs no root and no VM.
set -eu

top=$(cd "$(dirname "$0")/../../.." && pwd -P)
build=/usr/src/kernel-build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kdir=$work/kdir
failed=0

# fresh: a directory that has all files that are checked.
fresh() {
	rm -rf "$kdir"
	mkdir -p "$kdir/include/config" "$kdir/include/generated" "$kdir/rust" "$kdir/drivers/nvdimm"
	cp "$build/include/config/auto.conf" "$build/include/config/kernel.release" "$kdir/include/config"
	cp "$build/Module.symvers" "$kdir"
	touch "$kdir/Makefile" "$kdir/include/generated/autoconf.h" "$kdir/rust/libkernel.rmeta" "$kdir/drivers/nvdimm/nd.h"
}

without() { sed -i "/^CONFIG_$1=/d" "$kdir/include/config/auto.conf"; }

# refused TEXT: check-kdir refuses the directory by a sentence with this text.
refused() {
	if said=$("$top/setup/check-kdir" "$kdir" 2>&1); then
		said="it is accepted"
	else
		case $said in
		"KDIR=$kdir: "*"$1"*) [ "$(echo "$said" | wc -l)" != 1 ] || return 0 ;;
		esac
	fi
	echo "expected: a sentence with \"$1\""
	echo "seen:     $said"
	failed=1
}

"$top/setup/check-kdir" "$build"
fresh
"$top/setup/check-kdir" "$kdir"
# As "make O=DIR" in the source makes it.
fresh && mv "$kdir/drivers" "$work" && ln -s .. "$kdir/source"
"$top/setup/check-kdir" "$kdir"

kdir=$work/none
refused "there is no such directory"
kdir=$work/kdir
fresh && rm "$kdir/include/generated/autoconf.h"
refused "not a prepared kernel build directory"
fresh && echo 7.1.9-amd64 >"$kdir/include/config/kernel.release"
refused "this is Linux 7.1.9-amd64, and the driver needs 7.2"
fresh && rm "$kdir/include/config/kernel.release"
refused "unknown version"
fresh && without RUST
refused "configured without Rust"
fresh && without MODULES
refused "without loadable modules"
for option in LIBNVDIMM NVDIMM_PFN NVDIMM_DAX FS_DAX; do
	fresh && without $option
	refused "configured without CONFIG_$option"
done
fresh && without TASKS_RCU && echo CONFIG_PREEMPTION=y >>"$kdir/include/config/auto.conf"
refused "configured without CONFIG_TASKS_RCU"
fresh && without TASKS_RCU && without PREEMPTION
"$top/setup/check-kdir" "$kdir"
fresh && without X86_64
refused "another architecture"
fresh && rm "$kdir/rust/libkernel.rmeta"
refused "no Rust metadata"
fresh && rm "$kdir/drivers/nvdimm/nd.h"
refused "no drivers/nvdimm/nd.h"
fresh && : >"$kdir/Module.symvers"
refused "no Module.symvers"
fresh && ln -s "$work/gone" "$kdir/source"
refused "$work/gone, is not there"
fresh && sed -i 's/^CONFIG_RUSTC_VERSION_TEXT=.*/CONFIG_RUSTC_VERSION_TEXT="rustc 1.0.0"/' "$kdir/include/config/auto.conf"
refused "was built with 'rustc 1.0.0'"
fresh
RUSTC=$work/rustc refused "no rustc here"
BINDGEN=$work/bindgen refused "no bindgen here"
exit $failed
