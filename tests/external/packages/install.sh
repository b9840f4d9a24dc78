#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tests/external/packages/install.sh BUILD: "make install" into a directory installs exactly the expected files, a second one
# removes names that are gone, and "make uninstall" removes them all, also those of an installation that was cut off, but leaves
# files of others and saved lists. Before a removal, the drivers that the machine needs to boot are listed for its initramfs. It
# needs no root and no VM, but rust_pmem.ko, and pmemctl in the folder BUILD.
set -eu

top=$(cd "$(dirname "$0")/../../.." && pwd -P)
build=$(realpath "$1")
dest=$(mktemp -d)
trap 'rm -rf "$dest" "$dest.expected" "$dest.build"' EXIT
rmdir "$dest"
status=0
fail() {
	printf 'error: %s\n' "$1"
	status=1
}
run() { make -s --no-print-directory -C "$top" "$@" BUILD="$build" DESTDIR="$dest" || fail "make $* failed"; }
files() { (cd "$dest" && find . ! -type d | LC_ALL=C sort); }
same() { files | diff "$dest.expected" - >&2 || fail "$1: other files than expected (<) are there (>)"; }

release=$(modinfo -F vermagic "$top/rust_pmem.ko" | cut -d' ' -f1)

# expected PREFIX
expected() {
	cat <<-END
		./lib/modules/$release/updates/rust_pmem.ko
		.$1/lib/modprobe.d/rust_pmem.conf
		.$1/lib/systemd/catalog/rust_pmem.catalog
		.$1/lib/udev/rules.d/59-pmemctl.rules
		.$1/sbin/pmemctl
		.$1/share/bash-completion/completions/pmemctl
		.$1/share/fish/vendor_completions.d/pmemctl.fish
		.$1/share/rust_pmem/installed
		.$1/share/zsh/site-functions/_pmemctl
	END
	for unit in "$top"/contrib/systemd/pmemctl-*.service "$top"/contrib/systemd/pmemctl-*.timer; do
		echo ".$1/lib/systemd/system/${unit##*/}"
	done
	for schema in "$build"/schema/pmemctl-*.json; do
		echo ".$1/share/pmemctl/schema/${schema##*/}"
	done
	if [ "$1" = /usr ]; then
		echo ./usr/share/initramfs-tools/conf-hooks.d/rust_pmem
		echo ./usr/share/initramfs-tools/hooks/rust_pmem
		echo ./usr/share/initramfs-tools/scripts/local-bottom/rust_pmem
		echo ./usr/share/pmemctl/initramfs.sh
		echo ./usr/lib/dracut/modules.d/90rust_pmem/module-setup.sh
		echo ./usr/lib/dracut/modules.d/90rust_pmem/restore.sh
	fi
	for page in "$build"/man/pmemctl*.1; do
		echo ".$1/share/man/man1/${page##*/}"
	done
}

for prefix in /usr /usr/local; do
	expected $prefix | LC_ALL=C sort >"$dest.expected"
	run install PREFIX=$prefix
	same "install under $prefix"
	installed=$dest$prefix/share/rust_pmem/installed
	"$dest$prefix/sbin/pmemctl" --version >/dev/null || fail "the installed pmemctl does not start"
	cmp "$top/rust_pmem.ko" "$dest/lib/modules/$release/updates/rust_pmem.ko" || fail "another module is installed"
	[ -z "$(find "$dest" -type f -perm /022 -o -type f ! -perm -444)" ] || fail "modes of files are wrong"
	paths=$(grep -rhoE '(/[a-z]+)+/pmemctl\b' "$dest$prefix/lib/systemd" "$dest$prefix/lib/udev" | grep '/sbin/' | sort -u)
	[ "$paths" = "$prefix/sbin/pmemctl" ] || fail "units and rule call: $paths"

	# A second version without a unit of the first one; a module for another kernel stays.
	other=/lib/modules/$release-other/updates/rust_pmem.ko
	mkdir -p "$dest${other%/*}"
	touch "$dest$other" "$dest$prefix/lib/systemd/system/pmemctl-old.service"
	printf '%s\n' "/lib/modules/$release-other/updates/" "/lib/modules/$release-other/" "$other" \
		"$prefix/lib/systemd/system/pmemctl-old.service" >>"$installed"
	run install PREFIX=$prefix
	echo ".$other" >>"$dest.expected"
	LC_ALL=C sort -o "$dest.expected" "$dest.expected"
	same "second install under $prefix"

	# Files of the administrator, and saved lists.
	mkdir -p "$dest/var/lib/pmemctl"
	touch "$dest/var/lib/pmemctl/list" "$dest$prefix/lib/systemd/system/pmemctl-mine.service"
	run uninstall PREFIX=$prefix
	printf '%s\n' "./var/lib/pmemctl/list" ".$prefix/lib/systemd/system/pmemctl-mine.service" | LC_ALL=C sort >"$dest.expected"
	same "uninstall under $prefix"
	[ "$(find "$dest" -type d -empty)" = "" ] || fail "uninstall leaves directories: $(find "$dest" -type d -empty)"

	rm -r "${dest:?}"/*
	run install PREFIX=$prefix
	run uninstall PREFIX=$prefix
	[ -z "$(ls -A "$dest")" ] || fail "uninstall leaves $(cd "$dest" && find .)"
done

# An installation that ends at a file that can't be copied.
cp -r "$build" "$dest.build"
rm "$dest.build/completions/_pmemctl"
! make -s --no-print-directory -C "$top" install BUILD="$dest.build" DESTDIR="$dest" 2>/dev/null ||
	fail "install without completions succeeds"
run uninstall
[ -z "$(ls -A "$dest")" ] || fail "uninstall after a part of install leaves $(cd "$dest" && find .)"

! make -s --no-print-directory -C "$top" uninstall DESTDIR="$dest" 2>/dev/null || fail "uninstall of nothing succeeds"
mkdir -p "$dest/kdir/include/config"
echo 1.2.3-other >"$dest/kdir/include/config/kernel.release"
! make -s --no-print-directory -C "$top" install BUILD="$build" DESTDIR="$dest" KDIR="$dest/kdir" 2>/dev/null ||
	fail "a module for another kernel than that of KDIR is installed"
[ "$(ls "$dest")" = kdir ] || fail "an installation without module has begun"

# Two kernels: one of them has no virtio_pmem, the other no cxl_pmem, and a third one has no driver at all.
root=$dest/root
mkdir -p "$root/bin" "$root/modules/1" "$root/modules/2" "$root/modules/3" "$root/initramfs-tools" "$root/dracut.conf.d"
# shellcheck disable=SC2016 # for that script
printf '#!/bin/sh\nprintf "%%s\\n" $root_disk\n' >"$root/bin/findmnt"
# shellcheck disable=SC2016 # for that script
printf '#!/bin/sh\nfor disk; do :; done\necho "$disk"\n' >"$root/bin/lsblk"
# shellcheck disable=SC2016 # for that script
printf '#!/bin/sh\ncase $2:$3 in 1:virtio_pmem | 2:cxl_pmem | 3:*) exit 1 ;; esac\n' >"$root/bin/modinfo"
chmod 755 "$root"/bin/*
sed -e "s,/etc/dracut.conf.d,$root/dracut.conf.d," -e "s,/etc/initramfs-tools,$root/initramfs-tools," \
	-e "s,/lib/modules/,$root/modules/," -e "s,/sys/dev/block,$root," -e "s,/var/lib/pmemctl/,$root/," "$top/contrib/initramfs.sh" \
	>"$root/initramfs.sh"
mkdir "$root/directory.json"
touch "$root/list.json"
# shellcheck disable=SC2016 # for that shell
[ "$(sh -euc '. "$0"; echo $pmem_saved' "$root/initramfs.sh" | sed 's,^/etc/machine-id ,,')" = "$root/list.json" ] ||
	fail "an initramfs gets other lists than there are"
# keep_drivers DISK: calls it with the root file system on this disk, or on several, one on top of the other.
keep_drivers() { root_disk=$1 PATH=$root/bin:$PATH sh -euc ". '$root/initramfs.sh' && keep_drivers"; }
printf '%s\n' loop nd_pmem >"$root/initramfs-tools/modules"
listed=$(keep_drivers vda) || fail "a removal can't look for the root file system"
[ -z "$listed$(ls -A "$root/dracut.conf.d")" ] || fail "a removal lists drivers without need"
keep_drivers "vda pmem0" >"$root/said"
[ "$(grep -c ' now has its drivers' "$root/said")" = 2 ] || fail "a removal does not say that it lists the drivers"
[ "$(sed '/^#/d; /^$/d' "$root/initramfs-tools/modules" | sort | paste -sd ' ')" = \
	"cxl_acpi cxl_mem cxl_pci cxl_pmem cxl_port loop nd_btt nd_e820 nd_pmem nfit virtio_pmem" ] ||
	fail "a removal does not list each driver once for initramfs-tools: $(paste -sd ' ' "$root/initramfs-tools/modules")"
grep -q '^add_drivers+=" .* nd_pmem .* virtio_pmem cxl_pmem "$' "$root/dracut.conf.d/pmem-drivers.conf" ||
	fail "a removal lists what a kernel lacks in front of what all have: $(cat "$root/dracut.conf.d/pmem-drivers.conf")"
# What an administrator has changed stays.
sed -i 's/ nfit / nfit dm_crypt /' "$root/dracut.conf.d/pmem-drivers.conf"
cp -r "$root/dracut.conf.d/pmem-drivers.conf" "$root/initramfs-tools/modules" "$root/bin"
[ -z "$(keep_drivers pmem0)" ] || fail "a second removal says that it lists what is listed"
{ cmp "$root/bin/pmem-drivers.conf" "$root/dracut.conf.d/pmem-drivers.conf" &&
	cmp "$root/bin/modules" "$root/initramfs-tools/modules"; } || fail "a second removal changes lists that have the drivers"
exit $status
