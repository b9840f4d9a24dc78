#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tests/external/packages/dkms.sh: the module's DKMS package from build/deb, with the headers and source packages of Debian's
# kernel: DKMS builds the module, uses the prepared build directory again, and skips a kernel, with one sentence, if it can't be
# built for. It needs no VM, but "make deb" and the root that packages are built in:
#
#	ENTER_ROOT=packages setup/enter tests/external/packages/dkms.sh
set -eu

top=$(cd "$(dirname "$0")/../../.." && pwd -P)
work=$(mktemp -d "$top/build/dkms.XXXXXX")
trap 'rm -rf "$work"' EXIT
status=0
fail() {
	printf 'error: %s\n' "$1"
	[ ! -e "$work/log" ] || tail -n 20 "$work/log" | sed 's/^/	| /'
	[ ! -e "$work/tree/rust-pmem/$version/build/make.log" ] ||
		tail -n 20 "$work/tree/rust-pmem/$version/build/make.log" | sed 's/^/	make.log | /'
	status=1
}

headers=$(echo /usr/src/linux-headers-*-amd64)
kernel=${headers#/usr/src/linux-headers-}
installed=$work/lib/modules/$kernel/updates/dkms
cache=$work/cache
export RUST_PMEM_DKMS_CACHE="$cache"

dpkg-deb -x "$(echo "$top"/build/deb/rust-pmem-dkms_*_all.deb)" "$work/package"
version=$(basename "$work"/package/usr/src/rust-pmem-* | sed 's/^rust-pmem-//')
mkdir -p "$work/tree" "$work/lib/modules/$kernel"
ln -s "$headers" "$work/lib/modules/$kernel/build"

# Signing is tried with a key of this test.
dkms() {
	command=$1
	shift
	fakeroot dkms "$command" -m rust-pmem -v "$version" "$@" --dkmstree "$work/tree" --sourcetree "$work/package/usr/src" \
		--installtree "$work/lib/modules" </dev/null >"$work/log" 2>&1
}
is_installed() { [ -n "$(find "$installed" -name 'rust_pmem.ko*' 2>/dev/null)" ]; }
remove() { dkms remove --all || fail "dkms remove fails"; }
again() { dkms add || fail "dkms add fails"; }

# skipped NAME SENTENCE: DKMS skips the kernel, says why in one line, and installs nothing.
skipped() {
	result=0
	dkms install -k "$kernel" || result=$?
	[ "$result" = 77 ] || fail "$1: status $result, not 77"
	grep -h "^rust-pmem: no module for Linux $kernel, which will use nd_pmem: .*\.$" "$work/log" \
		"$work/tree/rust-pmem/$version/build/make.log" 2>/dev/null | sort -u >"$work/sentence"
	[ "$(wc -l <"$work/sentence")" = 1 ] || fail "$1: not one sentence"
	grep -q "$2" "$work/sentence" || fail "$1: another sentence: $(cat "$work/sentence")"
	! is_installed || fail "$1: a module is installed"
	remove
	again
}

again
# No kernel source of this version.
RUST_PMEM_DKMS_SOURCES=/nonexistent skipped "no source" "its source is not installed (/nonexistent/linux-source-"

# A source package that is damaged: the unfinished build directory is removed.
mkdir -p "$work/damaged"
name=$(basename /usr/src/linux-source-*.tar.xz)
head -c 1000000 "/usr/src/$name" >"$work/damaged/$name"
RUST_PMEM_DKMS_SOURCES=$work/damaged skipped "damaged source" "its source could not be prepared"
[ ! -e "$cache/$kernel" ] || fail "damaged source: $cache/$kernel stays"

# No directory can be made there.
touch "$work/file"
RUST_PMEM_DKMS_CACHE=$work/file skipped "no cache" "$work/file can not be written"

# No space for the build directory, before anything is unpacked.
mkdir "$work/df"
printf '#!/bin/sh\nprintf "%%s\\n" header "/dev/vda 9000000 8900000 102400 99%% /"\n' >"$work/df/df"
chmod +x "$work/df/df"
PATH=$work/df:$PATH skipped "no space" "its build directory needs 500 MB in $cache, where 100 MB are free"
[ ! -e "$cache/$kernel" ] || fail "no space: $cache/$kernel stays"

# A kernel whose module is in a package.
mkdir "$work/dpkg"
# shellcheck disable=SC2016 # for that script
printf '#!/bin/sh\ncase $* in *" rust-pmem-modules-%s") echo "$STATUS" ;; esac\n' "$kernel" >"$work/dpkg/dpkg-query"
chmod +x "$work/dpkg/dpkg-query"
# with_package STATUS: checks the kernel while that package has this status.
with_package() {
	result=0
	STATUS=$1 PATH=$work/dpkg:$PATH "$work/package/usr/src/rust-pmem-$version/contrib/dkms/build" check "$kernel" "$headers" \
		>"$work/log" 2>&1 || result=$?
}
with_package unpacked
[ "$result" = 77 ] || fail "with the package of this kernel: status $result"
grep -qx "rust-pmem: Linux $kernel has the module of the package rust-pmem-modules-$kernel." "$work/log" ||
	fail "with the package of this kernel: no sentence says so"
# /proc is mounted noexec.
result=0
"$work/package/usr/src/rust-pmem-$version/contrib/dkms/build" check "$kernel" "$headers" /proc >"$work/log" 2>&1 || result=$?
[ "$result" = 77 ] || fail "noexec: status $result"
grep -q ': /proc is mounted noexec\.$' "$work/log" || fail "noexec: no sentence says so"
with_package config-files
! grep -q 'has the module' "$work/log" || fail "a removed package counts"

# Headers of a kernel without Rust; of one that another compiler built; and none.
rm "$work/lib/modules/$kernel/build"
fake=$work/lib/modules/$kernel/build
mkdir -p "$fake/include/config"
grep -v '^CONFIG_RUST=' "$headers/.config" >"$fake/include/config/auto.conf"
skipped "no Rust" "it is configured without Rust"
sed 's/^CONFIG_RUSTC_VERSION_TEXT=.*/CONFIG_RUSTC_VERSION_TEXT="rustc 1.0.0"/' "$headers/.config" >"$fake/include/config/auto.conf"
skipped "other rustc" "it was built by 'rustc 1.0.0', and '"
rm -r "$fake"
ln -s "$headers" "$work/lib/modules/$kernel/build"

# The build, without openssl, whose features the kernel's configuration has; a kernel that has been removed loses its
# build directory.
mkdir "$work/bin"
ln -s /bin/false "$work/bin/openssl"
PATH=$work/bin:$PATH
mkdir -p "$cache/1.2.3-removed"
dkms install -k "$kernel" || fail "the module is not built"
is_installed || fail "no module is installed"
module=$(find "$installed" -name 'rust_pmem.ko*')
[ "$(modinfo -F vermagic "$module" | cut -d' ' -f1)" = "$kernel" ] || fail "$module is for another kernel"
[ "$(modinfo -F depends "$module")" = libnvdimm,nd_btt ] || fail "$module depends on $(modinfo -F depends "$module")"
[ ! -e "$cache/1.2.3-removed" ] || fail "the build directory of a removed kernel stays"
printf '# prepared build directory: %s MB\n' "$(du -sm "$cache/$kernel" | cut -f1)"
remove
! is_installed || fail "dkms remove leaves the module"

# Again, without source package: from the prepared build directory. Then a module that does not compile.
again
RUST_PMEM_DKMS_SOURCES=/nonexistent dkms install -k "$kernel" || fail "the prepared build directory is not used"
is_installed || fail "no module is installed from the prepared build directory"
remove
again
echo 'not Rust' >>"$work/package/usr/src/rust-pmem-$version/rust_pmem.rs"
skipped "no compilation" "the module could not be built"
remove

left=$(find "$work/tree" "$work/lib/modules" -name '*pmem*')
[ -z "$left" ] || fail "dkms remove leaves $left"
exit $status
