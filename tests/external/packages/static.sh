#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# static.sh, in the build root: the pmemctl that is installed starts with any libc, or none, and "make install" installs the expected files.
set -eu

cd "$(dirname "$0")/../../.."
built=$PWD/build/static
# Linked as for installation; an optimised build takes a minute more.
make --no-print-directory pmemctl PROFILE=dev BUILD="$built"
setup/check-pmemctl "$built/bin/pmemctl"
tests/external/packages/install.sh "$built"
echo "pmemctl is static, and installed"
