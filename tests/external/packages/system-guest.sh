#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tests/external/packages/system-guest.sh STEP: the part of a step of system.sh in the guest, an installed Debian with systemd, as root.
# shellcheck disable=SC3043 # dash has "local"
set -u
# shellcheck source=tests/lib/tap.sh
. "$(dirname "$0")/../../lib/tap.sh"

export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
host=/rust_pmem/tools/testing/vm/guest/host
data=/srv/data
files=/var/tmp/files-before

# driver DISK: prints its driver.
driver() { basename "$(readlink -f "/sys/block/$1/device/driver")"; }
# is_right: the files of the first step are there, on a DAX file system.
is_right() {
	findmnt --noheadings --output OPTIONS $data | grep -q dax=always && (cd $data && md5sum --quiet -c /srv/md5sums)
}
# module KERNEL: the module that modprobe would load there.
module() { modinfo -k "$1" -F filename rust_pmem; }
# other_files: files that are there, but for those that a running system writes, and caches that dpkg and apt keep anyway.
other_files() {
	find / -xdev \( -path /srv -o -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root \
		-o -path /var/tmp -o -path /var/log -o -path /var/cache/apt -o -path /var/cache/debconf -o -path /var/lib/apt \
		-o -path /var/lib/dpkg -o -path /var/lib/systemd \) -prune -o -print | sort
}
installed_version() { dpkg-query --show --showformat='${Version}' "$1"; }
apt() { apt-get --quiet=2 --yes -o Dpkg::Use-Pty=0 "$@"; }

# check_driver DRIVER: after a boot: this driver has the namespaces, the system is as it should be, and the files are right.
check_driver() {
	is "the namespaces have $1" "$(driver pmem0) $(driver pmem0.1s)" "$1 $1"
	check "the files are there" is_right
	check "the sector-mode disk as well" sh -c 'head -c 1M /dev/pmem0.1s | cmp - /srv/sectors'
	is "the system runs, no unit has failed" "$(systemctl is-system-running) $(systemctl list-units --failed --plain --no-legend)" "running "
}

# Namespaces with files, under nd_pmem, and the state of the system before.
step_prepare() {
	plan 3
	# It fails if it starts before there is a bus to monitor.
	systemctl --quiet mask ndctl-monitor
	systemctl reset-failed
	# Without KVM an initramfs with most modules takes minutes, and each step makes one or more.
	echo MODULES=dep >/etc/initramfs-tools/conf.d/modules
	update-initramfs -u
	ndctl disable-region all
	ndctl init-labels --force all
	ndctl enable-region all
	ndctl create-namespace --mode=fsdax --size=320M >/dev/null
	ndctl create-namespace --mode=sector --size=64M >/dev/null
	is "the namespaces have nd_pmem" "$(driver pmem0) $(driver pmem0.1s)" "nd_pmem nd_pmem"
	mkfs.ext4 -q -b 4096 /dev/pmem0
	mkdir $data
	mount -o dax=always /dev/pmem0 $data || exit
	echo "/dev/pmem0 $data ext4 dax=always 0 2" >>/etc/fstab
	cp -r /etc /usr/bin/systemctl $data
	(cd $data && find . -type f -exec md5sum {} + >/srv/md5sums)
	head -c 1M /dev/urandom >/srv/sectors
	dd if=/srv/sectors of=/dev/pmem0.1s bs=1M conv=fsync status=none
	check "the files are there" is_right
	check "the sector-mode disk as well" sh -c 'head -c 1M /dev/pmem0.1s | cmp - /srv/sectors'
	other_files >$files
}

# log COMMAND...: with its output also in a file.
log() {
	{
		tap_status=0
		"$@" 2>&1 || tap_status=$?
		echo $tap_status >/run/status
	} | tee /run/last.log
	return "$(cat /run/status)"
}
apt_install() { log apt install "$@"; }
# said TEXT: the last of these has printed this.
said() { grep -F -e "$1" /run/last.log; }

add_repository() {
	sed 's,^URIs: .*,URIs: file:/rust_pmem/build/repo,' /rust_pmem/build/repo/rust-pmem.sources \
		>/etc/apt/sources.list.d/rust-pmem.sources
	apt-get --error-on=any update
}

# The two commands of the documentation.
step_install() {
	plan 8
	check "apt takes the signed repository" add_repository
	apt_install "$@"
	is "the packages are installed" "$?" 0
	check "there is a module for this kernel" module "$(uname -r)"
	is "the namespaces keep their driver" "$(driver pmem0) $(driver pmem0.1s)" "nd_pmem nd_pmem"
	check "the installation says so" said 'namespaces keep nd_pmem until the next boot, or until "pmemctl swap-driver --all"'
	check "the files are there" is_right
	is "the services run" "$(systemctl is-active pmemctl-save pmemctl-monitor pmemctl-metrics.timer | sort -u)" active
	check "pmemctl tells that the next boot changes the driver" sh -c 'pmemctl status | grep "module installed since the boot"'
}

# The packages once more with another version, while the namespaces are in use.
step_upgrade() {
	plan 6
	new=/var/tmp/upgrade
	for package in $(dpkg-query --show --showformat='${Package} ${Status}\n' 'rust-pmem*' pmemctl | sed -n 's/ .* installed$//p'); do
		rm -rf $new/tree
		mkdir -p $new/tree
		dpkg-deb --raw-extract /rust_pmem/build/repo/"$package"_*.deb $new/tree
		version=$(installed_version "$package")
		sed -i "/^\(Version\|Depends\): /s/\<$version\>/$version+upgrade/" $new/tree/DEBIAN/control
		if [ "$package" = rust-pmem-dkms ]; then
			mv $new/tree/usr/src/rust-pmem-"$version" $new/tree/usr/src/rust-pmem-"$version"+upgrade
			sed -i "/VERSION=/s/\<$version\>/$version+upgrade/" $new/tree/DEBIAN/prerm $new/tree/DEBIAN/postinst $new/tree/usr/src/*/dkms.conf
		fi
		dpkg-deb --build $new/tree $new/"$package".deb >/dev/null
	done
	rm -r $new/tree
	exec 7<>$data/etc/passwd
	apt_install $new/*.deb
	is "the packages are upgraded" "$?" 0
	is "to the other version" "$(installed_version rust-pmem) $(installed_version pmemctl)" "$version+upgrade $version+upgrade"
	check "the upgrade says that the module stays" said "namespaces keep the loaded rust_pmem until the next boot"
	is "the namespaces keep their driver" "$(driver pmem0) $(driver pmem0.1s)" "rust_pmem rust_pmem"
	check "the files are there" is_right
	is "the services run" "$(systemctl is-active pmemctl-save pmemctl-monitor pmemctl-metrics.timer | sort -u)" active
	rm -r $new
}

# left_files: those that are new, belong to no package, and need not go.
left_files() {
	comm -13 $files /var/tmp/files-after >/var/tmp/new
	comm -23 /var/tmp/new /var/tmp/owned >/var/tmp/unowned
	grep -v -e '^/var/lib/pmemctl\(/nfit-[^/]*\.json\)\?$' -e '^/var/lib/dkms' -e '^/boot/\(vmlinuz\|config\|initrd.img\)-' \
		-e '^/var/lib/initramfs-tools/' -e '^/\(vmlinuz\|initrd.img\)\.old$' -e '^/usr/lib/modules/[^/]*/modules\.' \
		/var/tmp/unowned || [ $? -eq 1 ]
}

# All packages are purged while the namespaces are in use. Nothing is left but saved lists, and DKMS's key.
step_purge() {
	plan 9
	# A saved list, files of a scrub, and a file that a crash has left.
	pmemctl errors save --all
	check "a disk is scrubbed" pmemctl scrub pmem0
	check "each month, too" systemctl --quiet enable --now pmemctl-scrub@pmem0.timer
	touch /var/lib/pmemctl/.new-crash
	ls -A /var/lib/pmemctl
	log apt purge rust-pmem 'rust-pmem-*' pmemctl
	is "the packages are purged" "$?" 0
	rm /etc/apt/sources.list.d/rust-pmem.sources
	check "the removal says that the module stays" said "namespaces keep the loaded rust_pmem until the next boot"
	is "the namespaces keep their driver" "$(driver pmem0) $(driver pmem0.1s)" "rust_pmem rust_pmem"
	check "the files are there" is_right
	is_empty "no scrub is waiting" systemctl list-units --plain --no-legend --state=active 'pmemctl-scrub@*'
	other_files >/var/tmp/files-after
	test -s $files || exit
	# Since then another kernel may have been installed: its package makes files in /boot, links and depmod's files.
	sort -u /var/lib/dpkg/info/*.list >/var/tmp/owned
	is_empty "nothing is left but saved lists" left_files
	is_empty "nothing else is gone" comm -23 $files /var/tmp/files-after
}

# The root file system is copied to a second NVDIMM, a page of which is bad: of a file that is there for that.
step_copy_root() {
	plan 4
	new=/mnt
	ndctl create-namespace --force --mode=fsdax --reconfig=namespace1.0 >/dev/null
	mkfs.ext4 -q -b 4096 /dev/pmem1
	mount /dev/pmem1 $new
	head -c 64K /dev/urandom >$new/bad
	sync
	block=$(filefrag -e $new/bad | awk '$1 == "0:" { print $4 + 0 }')
	echo "$((block * 8)) 8" >/sys/block/pmem1/badblocks
	pmemctl errors save --all
	cp -ax / $new
	sed -i 's,^/dev/vda ,/dev/pmem1 ,' $new/etc/fstab
	# The list at the time when the root file system is about to be mounted.
	install -D /dev/stdin $new/etc/initramfs-tools/scripts/local-premount/badblocks <<-END
		#!/bin/sh
		[ "\$1" = prereqs ] || cat /sys/block/pmem1/badblocks >/run/badblocks
	END
	# When its first program is about to be started.
	install -D /dev/stdin $new/etc/initramfs-tools/scripts/init-bottom/badblocks <<-END
		#!/bin/sh
		[ "\$1" = prereqs ] || cat /sys/block/pmem1/badblocks >/run/badblocks-at-init
	END
	for directory in dev proc sys; do
		mount --bind /$directory $new/$directory
	done
	check "its initramfs is made" chroot $new update-initramfs -u
	lsinitramfs $new/boot/initrd.img-"$(uname -r)" >/var/tmp/initramfs
	is "it has drivers, their rules, pmemctl and the list" \
		"$(grep -oE '/(rust_pmem|nd_pmem|nd_btt|nfit)\.ko|sbin/pmemctl|59-pmemctl.rules|rust_pmem.conf|pmemctl/nfit-8680-57341200-0.json' \
			/var/tmp/initramfs | sort -u)" "/nd_btt.ko
/nd_pmem.ko
/nfit.ko
/rust_pmem.ko
59-pmemctl.rules
pmemctl/nfit-8680-57341200-0.json
rust_pmem.conf
sbin/pmemctl"
	is "only root may read it" "$(stat -c %a $new/boot/initrd.img-"$(uname -r)")" 600
	lsinitramfs /boot/initrd.img-"$(uname -r)" >/var/tmp/other
	check "the other one has none of these" sh -c 'test -s /var/tmp/other && ! grep -e rust_pmem.ko -e pmemctl /var/tmp/other'
	cp $new/boot/initrd.img-"$(uname -r)" /boot
	umount --recursive $new
}

# check_root: 1 row: the root file system is on the second NVDIMM.
check_root() {
	is "the root file system is on the NVDIMM, with DAX" "$(findmnt --noheadings --output SOURCE,OPTIONS / | grep -o -e '^[^ ]*' -e dax=always)" \
		"/dev/pmem1
dax=always"
}

# The bad page is repaired in the end. The initramfs keeps the older list.
step_root_on_pmem() {
	plan 10
	check_driver rust_pmem
	check_root
	is "the error was listed before the mount" "$(cat /run/badblocks)" "$(cat /sys/block/pmem1/badblocks)"
	check_fails "the bad page is not read" dd if=/bad of=/dev/null bs=4096 count=1
	check "its neighbours are" dd if=/bad of=/dev/null bs=4096 skip=1
	cat /sys/block/pmem1/badblocks
	mkdir -p /home/data /var/lib/prometheus/node-exporter
	mount /dev/pmem0 /home/data
	systemctl start pmemctl-metrics
	is "the service's metrics have the system's mounts" \
		"$(sed -n 's/^pmem_mount_map_sync{.*directory="\([^"]*\)".*/\1/p' /var/lib/prometheus/node-exporter/pmem.prom | sort | xargs)" \
		"/ /home/data $data"
	echo 1 >/sys/block/pmem1/errors/overwrite_heals
	dd if=/dev/zero of=/bad bs=4096 count=1 conv=notrunc,fsync status=none
	pmemctl errors save --all
	is_empty "the page can be repaired" cat /sys/block/pmem1/badblocks
}

# pmemctl and the module are purged in the end.
step_root_repaired() {
	plan 10
	check_driver rust_pmem
	check_root
	check "the initramfs has listed the page" test -s /run/badblocks
	is_empty "no longer when the first program was started" cat /run/badblocks-at-init
	check "it is read" dd if=/bad of=/dev/null bs=4096 count=1
	log apt purge rust-pmem 'rust-pmem-*' pmemctl
	is "the packages are purged" "$?" 0
	lsinitramfs /boot/initrd.img-"$(uname -r)" >/var/tmp/initramfs
	is "the initramfs has the kernel's own drivers" "$(grep -oE '/((rust|nd)_pmem|nd_btt|nfit)\.ko|sbin/pmemctl|pmemctl/.*' /var/tmp/initramfs | sort -u)" \
		"/nd_btt.ko
/nd_pmem.ko
/nfit.ko"
	# Where the machine boots from.
	mount /dev/vda /mnt
	cp /boot/initrd.img-"$(uname -r)" /mnt/boot
	umount /mnt
}

step_root_removed() {
	plan 5
	check_driver nd_pmem
	check_root
}

# As documented.
step_sign() {
	plan 2
	check "the module is signed" /lib/modules/"$(uname -r)"/build/scripts/sign-file sha256 /var/lib/dkms/mok.key \
		/var/lib/dkms/mok.pub "$(module "$(uname -r)")"
	is "by DKMS's key" "$(modinfo -F signer rust_pmem)" "DKMS module signing key"
}

# The key is not enrolled.
step_secure_boot_refused() {
	plan 6
	is "the kernel is locked down" "$(cat /sys/kernel/security/lockdown)" "none [integrity] confidentiality"
	check_driver nd_pmem
	check "pmemctl says that the module is not loaded" sh -c "pmemctl status | grep 'module not loaded; \"modprobe rust_pmem\" says why'"
	# For the reader, as in the next step: which error it is.
	modprobe rust_pmem || :
}

step_secure_boot() {
	plan 6
	is "the kernel is locked down" "$(cat /sys/kernel/security/lockdown)" "none [integrity] confidentiality"
	check_driver rust_pmem
	umount $data
	modprobe --remove rust_pmem
	modprobe rust_pmem inject=1
	udevadm settle
	check_fails "errors can not be injected" pmemctl errors inject pmem0 0 4096
	pmemctl errors inject pmem0 0 4096 || :
}

# kernel DIRECTORY: another kernel is installed.
step_kernel() {
	plan 2
	apt_install /srv/kernels/"$1"/*.deb
	is "the kernel is installed" "$?" 0
	is_empty "all packages are configured" dpkg --audit
}

# no_module: a kernel for which there is no module.
step_no_module() {
	plan 5
	check_driver nd_pmem
	check "pmemctl tells why" sh -c "pmemctl status | grep 'module not built for $(uname -r)'"
}

# The power fails while DKMS builds.
step_interrupted() {
	add_repository
	apt install rust-pmem rust-pmem-dkms &
	until ls /var/cache/rust-pmem-dkms/*/build/scripts/basic/fixdep; do
		sleep 5
	done >/dev/null 2>&1
	$host powercut
}

# As dpkg recommends after it was interrupted. Then DKMS is cut off later, and an upgrade fails.
step_recovered() {
	plan 7
	log dpkg --configure --pending
	is "the packages are configured" "$? $(dpkg --audit)" "0 "
	check "there is a module for this kernel" module "$(uname -r)"
	is "the namespaces keep their driver" "$(driver pmem0) $(driver pmem0.1s)" "nd_pmem nd_pmem"
	check "the installation says so" said 'namespaces keep nd_pmem until the next boot, or until "pmemctl swap-driver --all"'
	# DKMS has copied the module, and not yet written that it has.
	rm /var/lib/dkms/rust-pmem/kernel-"$(uname -r)"-x86_64
	apt_install --reinstall rust-pmem-dkms
	is "a cut-off installation of DKMS is repaired" "$?" 0
	check "there is a module again" module "$(uname -r)"
	# As dpkg calls them if it can't unpack the new package.
	/var/lib/dpkg/info/rust-pmem-dkms.prerm upgrade 9
	/var/lib/dpkg/info/rust-pmem-dkms.postinst abort-upgrade 9
	check "also after an upgrade that fails" module "$(uname -r)"
}

# The disk is full for DKMS; rustc is not that of the kernel.
step_full() {
	plan 4
	add_repository
	# With the blocks that are kept for root.
	free=$(($(stat --file-system --format '%f * %S' /) >> 20))
	fallocate --length $((free - 200))M /srv/full
	apt_install rust-pmem rust-pmem-dkms
	is "on a full disk the packages are installed without a module" "$?" 0
	check "a sentence says why" \
		said "rust-pmem: no module for Linux $(uname -r), which will use nd_pmem: its build directory needs 500 MB in /var/cache/rust-pmem-dkms,"
	rm /srv/full
	# DKMS looks for programs of the distribution only.
	mv /usr/bin/rustc /usr/bin/rustc.kept
	printf '#!/bin/sh\necho "rustc 1.2.3"\n' >/usr/bin/rustc
	chmod +x /usr/bin/rustc
	apt_install --reinstall rust-pmem-dkms
	is "with another rustc as well" "$?" 0
	check "a sentence names that rustc" said "and 'rustc 1.2.3' is installed."
	mv /usr/bin/rustc.kept /usr/bin/rustc
}

step_driver() {
	plan 4
	check_driver "$1"
	! command -v pmemctl >/dev/null || pmemctl status || :
}

# A slow machine has not loaded all drivers when its boot has ended.
udevadm settle --timeout=300
tap_step=$1
shift
"step_$tap_step" "$@"
