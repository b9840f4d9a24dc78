# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# These functions are debian/initramfs.sh, which is copied into each maintainer script that needs one.

# image_has KERNEL PATTERN: a file that the kernel's initramfs has ends like this.
image_has() {
	{ lsinitramfs "/boot/initrd.img-$1" || lsinitrd "/boot/initrd.img-$1"; } 2>/dev/null | grep -q "/$2"
}

# update_image KERNEL: dracut has no update-initramfs yet, and would remove an image that it can't write.
update_image() {
	image=/boot/initrd.img-$1 hooks=/etc/initramfs/post-update.d
	if command -v update-initramfs >/dev/null; then
		update-initramfs -u -k "$1"
	else
		NO_POST_UPDATE_HOOKS=1 dracut --quiet --force "$image.new" "$1" && mv "$image.new" "$image" && sync /boot ||
			{ rm -f "$image.new" && false; } && { [ ! -d $hooks ] || run-parts --arg="$1" --arg="$image" $hooks; }
	fi || echo "$DPKG_MAINTSCRIPT_PACKAGE: $image could not be made again: it has what it had before" >&2
}

# list_nd_pmem: without pmemctl's hook, the list of initramfs-tools may be all that an initramfs has of drivers for persistent memory.
list_nd_pmem() {
	list=/etc/initramfs-tools/modules
	if grep -qsE '^[[:space:]]*rust_pmem([[:space:]]|$)' $list && ! grep -qsE '^[[:space:]]*nd_pmem' $list; then
		printf '%s\n' '' '# In place of rust_pmem, which was removed.' nd_pmem nd_btt >>$list
		sync $list
	fi
}
