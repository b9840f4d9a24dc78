#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tests/external/packages/no-btt.sh: the module is built for a kernel without CONFIG_BTT, as Fedora's, and does not need nd_btt.
# It needs no root and no VM.
set -eu

top=$(cd "$(dirname "$0")/../../.." && pwd -P)
build=/usr/src/kernel-build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kdir=$work/kdir

# The build directory of the build root, without the option and without the module.
mkdir "$kdir"
cp -rs "$build/." "$kdir"
for file in .config include/config/auto.conf include/generated/autoconf.h include/generated/rustc_cfg; do
	rm "$kdir/$file"
	sed '/CONFIG_BTT\>/d' "$build/$file" >"$kdir/$file"
done
rm "$kdir/Makefile" "$kdir/Module.symvers"
awk '$3 !~ /nd_btt/ && $2 !~ /_btt(_probe|_create)?$/' "$build/Module.symvers" >"$kdir/Module.symvers"
printf 'export KBUILD_OUTPUT = %s\ninclude %s\n' "$kdir" "$(realpath "$build/source")/Makefile" >"$kdir/Makefile"
"$top/setup/check-kdir" "$kdir"

mkdir "$work/module"
cd "$top"
cp -r --parents Kbuild ./*.rs abstractions "$work/module"
rm -f "$work/module/abstractions/bindings_generated.rs"
cd "$work/module"
make -s -C "$kdir" ARCH=x86 CC="$(sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\) .*/\1/p' "$build/.config")" \
	M="$work/module" modules
depends=$(modinfo -F depends rust_pmem.ko)
if [ "$depends" != libnvdimm ]; then
	echo "expected: it depends on libnvdimm"
	echo "seen:     $depends"
	exit 1
fi
