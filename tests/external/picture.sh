#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# picture.sh, in the build root: the README's pictures show what pmemctl prints today.
set -eu

cd "$(dirname "$0")/../.."
drawn=build/picture
mkdir -p $drawn
build/tools/debug/pmem-demo --picture $drawn
# constant FILE: without the time of a scrub, which depends on the host, and the size of RAM, which depends on the kernel.
constant() {
	sed 's/complete after [0-9]* s/complete/; s/RAM of this machine [0-9]*M/RAM/' "$1"
}
same=true
for picture in "$drawn"/*.svg; do
	constant "$picture" >"$picture.constant"
	constant "Documentation/${picture##*/}" | diff - "$picture.constant" || same=false
done
$same || {
	echo "error: the pictures differ from Documentation/pmemctl*.svg: look at them, then run make picture" >&2
	exit 1
}
echo "the pictures are current"
