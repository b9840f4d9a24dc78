# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that compare a disk with bad blocks to a model (pmem-io model):
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/model.sh"
#	make_model_file "$NAMESPACE" "$DISK"
#	check "as the model says" run_model "$NAMESPACE" "$DISK" --clears command
#
# MODEL_CASES in the environment sets the number of steps, MODEL_SEED the random seed.

# make_model_file DEVICE DISK: makes a DAX file of 4 MiB that covers the disk from MODEL_AT on. The device of the nd bus is
# the disk's: a namespace in raw mode, or the device of an fsdax namespace.
make_model_file() {
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

# run_model DEVICE DISK ARGUMENTS OF pmem-io model…: runs the model, and the command MODEL_AFTER_BIND after each
# bind.
run_model() {
	model_device=$1
	model_disk=$2
	shift 2
	model_bind="cd /sys/bus/nd/drivers/$DRIVER && echo $model_device >unbind && echo $model_device >bind && ${MODEL_AFTER_BIND-true}"
	if [ -n "${MODEL_AT-}" ]; then
		model_bind="umount $MNT && $model_bind && mount -o dax=always /dev/$model_disk $MNT"
		set -- "$@" --at "$MODEL_AT" --file "$MNT/file"
	fi
	if [ "$DRIVER" = nd_pmem ]; then
		set -- "$@" --c
	else
		set -- "$@" --list "$ND/$model_device/errors/list"
	fi
	pmem-io model "/dev/$model_disk" --rebind "$model_bind" --cases "${MODEL_CASES:-12}" --seed "${MODEL_SEED:-1}" "$@"
}
