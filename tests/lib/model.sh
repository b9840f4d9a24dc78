# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For tests that hold a disk with errors against a model (pmem-io model):
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/model.sh"
#	model_file "$NAMESPACE" "$DISK"
#	check "as the model says" model "$NAMESPACE" "$DISK" --clears command
#
# MODEL_CASES and MODEL_SEED in the environment make it longer, and another one.

# model_file NAMESPACE DISK: 4 MiB of the disk, from MODEL_AT on, are those of a DAX file, too. The namespace is a raw one.
model_file() {
	make_fs ext4 "$2"
	mount_dax "$2"
	truncate -s 4M "$MNT/file"
	pmem-io fill "$MNT/file"
	model_first=$(($(pmem-io phys "$MNT/file")))
	MODEL_AT=$((model_first - $(cat "$ND/$1/resource")))
	[ $(($(pmem-io phys "$MNT/file" --offset 4092K) - model_first)) -eq $((4092 << 10)) ] || {
		echo "# the file is in pieces"
		exit 1
	}
}

# model NAMESPACE DISK ARGUMENTS OF pmem-io model…: MODEL_BOUND is done whenever it has been bound.
model() {
	model_namespace=$1
	model_disk=$2
	shift 2
	model_bind="cd /sys/bus/nd/drivers/$DRIVER && echo $model_namespace >unbind && echo $model_namespace >bind && ${MODEL_BOUND-true}"
	if [ -n "${MODEL_AT-}" ]; then
		model_bind="umount $MNT && $model_bind && mount -o dax=always /dev/$model_disk $MNT"
		set -- "$@" --at "$MODEL_AT" --file "$MNT/file"
	fi
	if [ "$DRIVER" = nd_pmem ]; then
		set -- "$@" --c
	else
		set -- "$@" --list "$ND/$model_namespace/errors/list"
	fi
	pmem-io model "/dev/$model_disk" --rebind "$model_bind" --cases "${MODEL_CASES:-12}" --seed "${MODEL_SEED:-1}" "$@"
}
