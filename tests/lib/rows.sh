# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For tests that see much: a row is noted for each thing, and all are shown at the end.
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/rows.sh"
#	walk "raw" /sys/block/pmem0
#	note_writes "raw" /sys/block/pmem0 queue/iostats -- 1 garbage
#	show_rows


ROWS=/tmp/rows

# walk NAME FOLDER [TEST OF find…]: notes each file, folder and link below it, without following links: its permissions and what it
# holds, or the error that reading it gives. Replaced are the driver's name and what changes from run to run: the numbers of regions
# and disks (buses register at the same time), device numbers, times, UUIDs.
walk() {
	walk_name=$1
	cd -P "$2"
	shift 2
	{
		find . -mindepth 1 "$@" -printf '%P\t%y%m\t%l\n'
		echo
		find . "$@" -type f -exec grep -a '' /dev/null {} + 2>&1 || :
	} | awk -F '\t' -v name="$walk_name" '
		BEGIN {
			numbered = split("ndbus region namespace pfn btt dax nmem pmem", words, " ")
		}
		function plain(text, i) {
			for (i = 1; i <= numbered; i++)
				gsub(words[i] "[0-9]+", words[i] "N", text)
			gsub(/[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+/, "UUID", text)
			gsub(/(nd|rust)_pmem/, "DRIVER", text)
			gsub(/259:[0-9]+/, "259:N", text)
			sub(/^(MINOR|DISKSEQ)=.*/, "&N", text)
			sub(/=[0-9]+N$/, "=N", text)
			return text
		}
		!listed && NF == 0 { listed = 1; next }
		!listed { shown[$1] = $2; order[++count] = $1; held[$1] = $3 == "" ? "" : " -> " plain($3); next }
		{
			if (sub(/^grep: /, "")) {
				at = index($0, ": ")
			} else {
				at = index($0, ":")
			}
			path = substr($0, 3, at - 3)
			value = plain(substr($0, at + 1))
			if (path ~ /(^|\/)diskseq$|power\/runtime_.*_time$|(^|\/)max_bytes$/)
				value = "N"
			sub(/^ +/, "", value)
			gsub(/ +/, " ", value)
			held[path] = held[path] (held[path] == "" ? " " : ", ") value
		}
		END {
			for (i = 1; i <= count; i++)
				print name ": " plain(order[i]) "\t" shown[order[i]] held[order[i]]
		}' | sort >>$ROWS
	cd - >/dev/null
}

# note NAME VALUE: notes what was seen.
note() {
	note_value=$2
	case $2 in
	*"
"*) note_value=$(printf '%s\n' "$2" | paste -sd ,) ;;
	esac
	printf '%s\t%s\n' "$1" "$note_value" >>$ROWS
}

# note_lines NAME: notes each line of standard input, NAME2: VALUE.
note_lines() {
	sed "s|^\\([^:]*\\): |$1: \\1	|" >>$ROWS
}

# note_answer NAME COMMAND…: notes what it prints and `ok`, or the last that it says of its failure.
note_answer() {
	note_name=$1
	shift
	note_status=0
	note_output=$("$@" 2>&1) || note_status=$?
	if [ "$note_status" -eq 0 ]; then
		note "$note_name" "$(printf '%s' "${note_output:+$note_output, }" | tr -s '\n \t' '   ')ok"
	else
		note "$note_name" "$(printf '%s' "$note_output" | tail -n 1) (status $note_status)"
	fi
}

# note_writes NAME FOLDER FILE… -- TEXT…: writes each text to each file, notes the answer and what the file holds then, and
# writes back what it held. Of the texts, \n is a newline and TEXT*NUMBER is the text so many times; the row names them as they
# are given.
note_writes() {
	# shellcheck disable=SC2016 # for perl
	perl -e '
		sub held {
			open(my $f, "<", $_[0]) or return "$!";
			my $text = "";
			my $got = sysread($f, $text, 65536);
			return "$!" unless defined($got);
			chomp $text;
			return $text;
		}
		sub shown {
			my $text = held($_[0]);
			$text =~ s/(nd|rust)_pmem/DRIVER/g;
			$text =~ s/^(MINOR|DISKSEQ)=\d+$/$1=N/gm;
			$text =~ s/pmem\d+/pmemN/g;
			$text =~ s/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/UUID/g;
			return $text eq "" ? "nothing" : join ", ", split /\n/, $text;
		}
		sub put {
			open(my $f, ">", $_[0]) or return "open: $!";
			my $done = syswrite($f, $_[1], length $_[1]);
			return "$!" unless defined($done);
			return $done == length $_[1] ? "ok" : "$done bytes";
		}
		my ($name, $folder, @files) = @ARGV;
		my @texts;
		while (@files && $files[-1] ne "--") {
			unshift @texts, pop @files;
		}
		pop @files;
		for my $file (@files) {
			my $path = "$folder/$file";
			my $before = held($path);
			for my $text (@texts) {
				my $bytes = $text =~ s/\\n/\n/gr;
				$bytes = $1 x $2 if $bytes =~ /^(.*)\*(\d+)$/s;
				my $answer = put($path, $bytes);
				printf "%s: %s: %s\t%s, then %s\n", $name, $file, $text eq "" ? "nothing" : "\"$text\"", $answer, shown($path);
				# What is chosen is in brackets.
				put($path, $before =~ /\[(.*)\]/ ? $1 : $before) unless $before eq "";
			}
		}' "$@" >>$ROWS
}

# same_numbers: standard input, with the numbers of regions and disks taken out, as walk does.
same_numbers() {
	sed 's/\(ndbus\|region\|namespace\|pfn\|btt\|dax\|nmem\|pmem\)[0-9][0-9]*/\1N/g; s/\(nd\|rust\)_pmem/DRIVER/g'
}

# show_rows: the plan, and each row as a subtest that was seen. Nothing seen is a failure.
show_rows() {
	plan "$(wc -l <$ROWS)"
	awk -F '\t' '{ printf "%sok %d %s\n# seen: %s\n", $2 == "" ? "not " : "", NR, $1, $2 }' $ROWS
	TAP_COUNT=$TAP_PLAN
	TAP_FAILED=$(grep -c '	$' $ROWS) || :
}

rm -f $ROWS
