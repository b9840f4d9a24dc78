# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
# fio's dev-dax engine reads back what it wrote, with pages of each size.

for align in 4K 2M; do
	ndctl create-namespace -f -e "$(ndctl list -N | jq -r '.[0].dev')" -m devdax -a "$align"
	dax=/dev/$(ndctl list -X -m devdax | jq -r '.[].daxregion.devices[].chardev')
	for pattern in write randwrite randrw; do
		fio --name="$pattern" --rw="$pattern" --ioengine=dev-dax --filename="$dax" --size=128M --bs=2M,4M \
			--verify=crc32c --verify_fatal=1
	done
done
