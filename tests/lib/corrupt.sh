# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that corrupt the metadata of a namespace:
#
#	# vm: provider
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/corrupt.sh"
#	provide; make_fsdax "$NAMESPACE" dev >/dev/null; save_memory 64
#	try_corruptions "fsdax" 64 <<-END
#		another signature|block|0|4d
#	END

# shellcheck source=tests/lib/rows.sh
. "$TESTS/lib/rows.sh"
# shellcheck source=tests/lib/provider.sh
. "$TESTS/lib/provider.sh"

# save_memory MIB: saves the contents of the provider's memory, and unloads the provider.
save_memory() {
	provider_cleanup
	dd if=/dev/mem of=/tmp/memory bs=1M skip=512 count="$1" status=none
}

# try_corruptions NAME MIB [SECOND]: reads lines TEXT|WHAT|OFFSET|HEX from standard input. For each, writes the saved
# memory with these bytes changed, loads the provider, and records which devices result and whether the info block is
# left unchanged.
#
# WHAT is `block` for the info block at 4K and, if SECOND is given, its copy there (a BTT; the data of the disk is
# checked as well); `first` for the info block at 4K alone; `memory` for any place. The checksum of the info block is
# updated unless the bytes are in it. PARAMETERS in the environment are further parameters of the provider.
try_corruptions() {
	load_driver
	# shellcheck disable=SC2016 # for perl
	perl -e '
		use strict;
		my ($name, $size, $second, $provider, $devices) = @ARGV;
		my $start = 512 << 20;
		sub slurp { open(my $f, "<", $_[0]) or return ""; local $/; my $text = <$f>; return $text // "" }
		sub sealed {
			my $block = shift;
			substr($block, 4088, 8) = "\0" x 8;
			my ($low, $high) = (0, 0);
			for (unpack("V*", $block)) { $low = ($low + $_) & 0xffffffff; $high = ($high + $low) & 0xffffffff }
			substr($block, 4088, 8) = pack("VV", $low, $high);
			return $block;
		}
		my $kept = slurp("/tmp/memory");
		for my $line (<STDIN>) {
			chomp $line;
			$line =~ s/^\s+//;
			my ($text, $what, $offset, $hex) = split /\|/, $line;
			my $memory = $kept;
			if ($what eq "memory") {
				substr($memory, $offset, length($hex) / 2) = pack("H*", $hex);
			} else {
				my $block = substr($memory, 4096, 4096);
				substr($block, $offset, length($hex) / 2) = pack("H*", $hex);
				$block = sealed($block) if $offset < 4088;
				substr($memory, 4096, 4096) = $block;
				substr($memory, $second, 4096) = $block if $second && $what eq "block";
			}
			open(my $mem, "+<", "/dev/mem") or die "/dev/mem: $!";
			sysseek($mem, $start, 0);
			# The driver makes the struct pages anew, so only the metadata is restored.
			my $length = $second ? length $memory : 16384;
			for (my $at = 0; $at < $length; $at += 1 << 20) {
				my $piece = substr($memory, $at, $length - $at < 1 << 20 ? $length - $at : 1 << 20);
				syswrite($mem, $piece) == length $piece or die "write: $!";
			}
			system("dmesg -C; insmod $provider keep=1 size=" . ($size << 20) . " " . ($ENV{PARAMETERS} // "")) == 0 or die "insmod";
			slurp($_) for glob "$devices/ndbus*/wait_probe";
			my @state;
			for (map { m,([^/]*)/driver$, ? $1 : () } glob "$devices/*/driver") {
				push @state, $_ if /^(namespace|pfn|btt|dax)/;
			}
			for my $disk (map { m,([^/]*)$, } glob "/sys/block/pmem*") {
				push @state, "$disk of " . (slurp("/sys/block/$disk/size") =~ s/\n//r);
				next unless $second;
				my $read = `pmem-io verify --direct --length 64K /dev/$disk 2>&1`;
				push @state, $read eq "" ? "data there" : $read =~ /^byte/ ? "data differs" : $read;
				# In sector mode each CPU has a free block of its own, which may be inside of the memory or not.
				push @state, "write: " . `taskset -c 0 pmem-io pwrite --direct --offset 1M --length 4096 /dev/$disk 2>&1`;
			}
			my %messages;
			for (split /\n/, `dmesg -t`) {
				$messages{"failed with $1"} = 1 if /probe with driver .* failed with error (-\d+)/;
				# Skip stack traces and messages that the kernel limits by rate.
				next if /Buffer I\/O error|\+0x[0-9a-f]+\/0x|probe with driver|unable to guarantee|loading out|taint|rust_pmem-vm/ || !/(namespace|pfn|dax|btt)0|pmem\d/;
				s/0x[0-9a-f]+|[0-9a-f]{12,}/X/g;
				$messages{$_} = 1;
			}
			push @state, sort keys %messages;
			# The numbers of two devices that are made at the same time vary from run to run.
			my $state = join ", ", map { s/\n//gr =~ s/(nd|rust)_pmem/DRIVER/gr =~ s/pmem\d+/pmemN/gr =~ s/((pfn|btt|dax)0\.)\d+/$1N/gr } @state;
			printf "%s: %s\t%s\n", $name, $text, $state eq "" ? "nothing" : $state;
			system("rmmod pmem_provider") == 0 or die "rmmod";
			sysseek($mem, $start + 4096, 0);
			sysread($mem, my $block, 4096);
			printf "%s: %s: the block\tchanged\n", $name, $text if $block ne substr($memory, 4096, 4096);
		}' "$1" "$2" "${3:-0}" "$PROVIDER" "$ND" >>$ROWS
}

cleanup() {
	provider_cleanup
	rm -f /tmp/memory
}
