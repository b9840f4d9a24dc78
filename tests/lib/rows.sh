# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Helpers for tests that record many values: each value is a row, and each row becomes a subtest at the end.
#
#	. "$(dirname "$0")/lib/test.sh"
#	. "$(dirname "$0")/lib/rows.sh"
#	add_tree_rows "raw" /sys/block/pmem0
#	add_write_rows "raw" /sys/block/pmem0 queue/iostats -- 1 garbage
#	report_rows


ROWS=/tmp/rows

# add_tree_rows NAME FOLDER [TEST OF find…]: adds a row for each file, folder and link below the folder, without
# following links: its permissions and contents, or the error of reading it. Masks the driver's name and all that
# changes from run to run: the numbers of regions and disks (buses register at the same time), device numbers, times,
# UUIDs. Fails if there are none, or if the name of a device is missing in the path.
add_tree_rows() {
	tree_name=$1
	case $2 in
	*/ | *//*) return 1 ;;
	esac
	# shellcheck disable=SC2164 # the test runs with set -e
	cd -P "$2"
	shift 2
	{
		find . -mindepth 1 "$@" -printf '%P\t%y%m\t%l\n'
		echo
		find . "$@" -type f -exec grep -a '' /dev/null {} + 2>&1 || :
	} | awk -F '\t' -v name="$tree_name" '
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
		}' | sort >$ROWS.added
	grep -q . $ROWS.added
	cat $ROWS.added >>$ROWS
	# shellcheck disable=SC2103,SC2164 # no subshell, so that set -e ends the test
	cd - >/dev/null
}

# add_row NAME VALUE: adds one row; with the message of a broken command one without a value, which fails.
add_row() {
	row_value=$2
	case $2 in
	*"
"*) row_value=$(printf '%s\n' "$2" | paste -sd ,) ;;
	esac
	! tap_says_broken "$2" || row_value=
	printf '%s\t%s\n' "$1" "$row_value" >>$ROWS
}

# add_rows NAME COMMAND…: adds a row for each line "NAME2: VALUE" that the command prints; fails if it does, or prints none.
add_rows() {
	rows_name=$1
	shift
	"$@" >$ROWS.added
	grep -q . $ROWS.added
	sed "s|^\\([^:]*\\): |$rows_name: \\1	|" $ROWS.added >>$ROWS
}

# add_result_row NAME COMMAND…: adds a row with the output of the command and `ok`, or the last line of its output and
# its status if it fails; without a value, which fails, if the command is broken.
add_result_row() {
	row_name=$1
	shift
	row_status=0
	row_output=$("$@" 2>&1) || row_status=$?
	if [ "$row_status" -eq 0 ]; then
		case $row_output in
		*"$TAP_NEWLINE"* | *"	"* | *"  "*) row_output=$(printf '%s' "$row_output, " | tr -s '\n \t' '   ') ;;
		?*) row_output="$row_output, " ;;
		esac
		add_row "$row_name" "${row_output}ok"
	elif tap_broken "$row_status" "$1"; then
		add_row "$row_name" ""
	else
		add_row "$row_name" "${row_output##*"$TAP_NEWLINE"} (status $row_status)"
	fi
}

# add_write_rows NAME FOLDER FILE… -- TEXT…: writes each text to each file, adds a row with the result and the contents
# after it, and restores the old contents. In a text, \n is a newline and TEXT*NUMBER repeats the text. The row name has
# the text as it was given.
add_write_rows() {
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
				# The selected word is in brackets.
				put($path, $before =~ /\[(.*)\]/ ? $1 : $before) unless $before eq "";
			}
		}' "$@" >>$ROWS
}

# mask_numbers: masks the numbers of regions and disks in standard input, like add_tree_rows.
mask_numbers() {
	sed 's/\(ndbus\|region\|namespace\|pfn\|btt\|dax\|nmem\|pmem\)[0-9][0-9]*/\1N/g; s/\(nd\|rust\)_pmem/DRIVER/g'
}

# report_rows: prints each row as a recorded subtest; before them the plan, unless the test has announced one that counts its other
# subtests as well. An empty row fails.
report_rows() {
	[ -n "$TAP_PLAN" ] || plan "$(wc -l <$ROWS)"
	awk -F '\t' -v before="$TAP_COUNT" '{ printf "%sok %d %s\n# seen: %s\n", $2 == "" ? "not " : "", before + NR, $1, $2 }' $ROWS
	TAP_COUNT=$((TAP_COUNT + $(wc -l <$ROWS)))
	TAP_FAILED=$((TAP_FAILED + $(grep -c '	$' $ROWS))) || :
}

rm -f $ROWS
