# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# KTAP output: a plan, subtests and their results.

TAP_COUNT=0
TAP_FAILED=0
TAP_PLAN=
TAP_NEWLINE='
'

# plan N: announces N subtests.
plan() {
	TAP_PLAN=$1
	printf 'KTAP version 1\n1..%d\n' "$1"
}

ok() {
	TAP_COUNT=$((TAP_COUNT + 1))
	printf 'ok %d %s\n' "$TAP_COUNT" "$*"
}

not_ok() {
	TAP_COUNT=$((TAP_COUNT + 1))
	TAP_FAILED=$((TAP_FAILED + 1))
	printf 'not ok %d %s\n' "$TAP_COUNT" "$*"
}

# tap_lines PREFIX TEXT: prints each line of the text with the prefix, by a process only if it is long: starting one takes long in a
# guest.
tap_lines() {
	tap_rest=$2
	[ ${#tap_rest} -lt 4096 ] || {
		printf '%s\n' "$tap_rest" | sed "s/^/$1/"
		return
	}
	while :; do
		case $tap_rest in
		*"$TAP_NEWLINE"*) ;;
		*) break ;;
		esac
		printf '%s%s\n' "$1" "${tap_rest%%"$TAP_NEWLINE"*}"
		tap_rest=${tap_rest#*"$TAP_NEWLINE"}
	done
	printf '%s%s\n' "$1" "$tap_rest"
}

# tap_run COMMAND…: sets tap_status and tap_output.
tap_run() {
	# Not in a condition: bash would ignore -e in it, and look at the last command of a function only.
	set +e
	tap_output=$(set -e; "$@" 2>&1)
	tap_status=$?
	set -e
}

# tap_diagnose TEXT: prints it and the output of the command, as the diagnosis.
tap_diagnose() {
	printf '# %s\n' "$1"
	[ -z "$tap_output" ] || tap_lines '# ' "$tap_output"
}

# check NAME COMMAND…: passes if the command succeeds. Its output becomes the diagnosis.
check() {
	tap_name=$1
	shift
	tap_run "$@"
	if [ "$tap_status" -eq 0 ]; then
		ok "$tap_name"
	else
		not_ok "$tap_name"
		tap_diagnose "status $tap_status of: $*"
	fi
}

# tap_broken STATUS COMMAND: succeeds if it is the status of a command that does not exist, panics (Rust's 101), or ends by
# timeout(1) or a signal, or of a tool of the tests with an invalid command line. ndctl exits with 256 minus an errno, and with 129
# where it prints its usage.
tap_broken() {
	case $2:$1 in
	*:101 | *:12[4678] | *:1[345]? | pmem-io:2 | pmem-fuzz:2) ;;
	*) return 1 ;;
	esac
}

# check_fails NAME COMMAND…: passes if the command fails, unless it is broken (tap_broken) or a grep that can't read its file.
check_fails() {
	tap_name=$1
	shift
	tap_run "$@"
	tap_bad=
	case $1:$tap_status in
	grep:1) ;;
	*:0 | grep:* | *:129 | *:1[6-9]? | *:2??) tap_bad=1 ;;
	esac
	if [ -n "$tap_bad" ] || tap_broken "$tap_status" "$1"; then
		not_ok "$tap_name"
		tap_diagnose "status $tap_status, should fail: $*"
	else
		ok "$tap_name"
	fi
}

# is NAME GOT WANTED: passes if both texts are equal. WANTED has to say something: nothing is also what `$(…)` is when its command
# fails; see prints and is_empty.
is() {
	if [ "$2" = "$3" ] && [ -n "$3" ]; then
		ok "$1"
	else
		not_ok "$1"
		[ -n "$3" ] || printf '# nothing is wanted: use prints or is_empty\n'
		printf 'got:    %s\nwanted: %s\n' "$2" "$3" | sed 's/^/# /'
	fi
}

# prints NAME WANTED COMMAND…: passes if the command succeeds and prints this text, which may be empty.
prints() {
	tap_name=$1
	tap_wanted=$2
	shift 2
	set +e
	tap_output=$(set -e; "$@")
	tap_status=$?
	set -e
	is "$tap_name" "$tap_output${tap_output:+ }(status $tap_status)" "$tap_wanted${tap_wanted:+ }(status 0)"
}

# is_empty NAME COMMAND…: passes if the command succeeds and prints nothing.
is_empty() {
	tap_empty=$1
	shift
	prints "$tap_empty" '' "$@"
}

# becomes NAME WANTED COMMAND…: the same as prints, after up to 10 seconds: for what the kernel does in the background.
becomes() {
	tap_name=$1
	tap_soon=$2
	shift 2
	wait_for 30 tap_is_printed "$@" 2>/dev/null || :
	prints "$tap_name" "$tap_soon" "$@"
}

# tap_is_printed COMMAND…: whether it prints what becomes waits for.
tap_is_printed() {
	[ "$("$@")" = "$tap_soon" ]
}

# tap_says_broken TEXT: succeeds if this is what a command prints that does not exist, panics or has an invalid command line. Both
# drivers would have the same.
tap_says_broken() {
	case $1 in
	*": not found"* | *"panicked at"* | *"try '--help'"*) ;;
	*) return 1 ;;
	esac
}

# record NAME VALUE: a subtest that passes if both drivers record the same value: `make parity` compares them, and
# tests/differences.toml lists the accepted differences. An empty value fails, and the message of a broken command.
record() {
	if [ -n "$2" ] && ! tap_says_broken "$2"; then
		ok "$1"
		tap_lines '# seen: ' "$2"
	else
		not_ok "$1"
		printf '%s\n' "${2:-nothing seen}" | sed 's/^/# /'
	fi
}

# record_result NAME COMMAND…: records the output of the command and `ok`, or the last line of its output and its status
# if it fails. Fails if the command is broken.
record_result() {
	tap_name=$1
	shift
	tap_run "$@"
	if [ "$tap_status" -eq 0 ]; then
		record "$tap_name" "${tap_output:+$tap_output
}ok"
	elif tap_broken "$tap_status" "$1"; then
		not_ok "$tap_name"
		tap_diagnose "status $tap_status of: $*"
	else
		record "$tap_name" "${tap_output##*"$TAP_NEWLINE"} (status $tap_status)"
	fi
}

# errno_of COMMAND…: ok if the command succeeds, otherwise the text of its error; nothing if it is broken.
errno_of() {
	errno_status=0
	errno_text=$("$@" 2>&1 >/dev/null) || errno_status=$?
	if [ "$errno_status" -eq 0 ]; then
		echo ok
	elif ! tap_broken "$errno_status" "$1"; then
		errno_text=${errno_text##*"$TAP_NEWLINE"}
		errno_text=${errno_text##*: }
		printf '%s\n' "${errno_text%%" (os error"*}"
	fi
}

# skip NAME REASON: skips one subtest.
skip() {
	TAP_COUNT=$((TAP_COUNT + 1))
	printf 'ok %d %s # SKIP %s\n' "$TAP_COUNT" "$1" "$2"
}

# skip_all REASON: skips the test. Call it before plan.
skip_all() {
	printf 'KTAP version 1\n1..0 # SKIP %s\n' "$*"
	TAP_PLAN=0
	exit 4
}

# need PROGRAM…: fails the test at once if a program is missing, because a missing program must not look like a test
# result.
need() {
	for tap_tool in "$@"; do
		command -v "$tap_tool" >/dev/null || {
			printf '# the guest has no %s\n' "$tap_tool"
			exit 1
		}
	done
}

cleanup() {
	:
}

# tap_leaves_nothing: fails, and says why, if cleanup has left something that the next test would meet; see driver.sh.
tap_leaves_nothing() {
	:
}

tap_end() {
	tap_status=$?
	trap - EXIT
	# It also runs if the test did not get far enough to set all variables.
	set +eu
	cleanup
	# A script without a plan may leave it for others. udev may look at a disk for a moment.
	if [ "$tap_status" -eq 0 ] && [ "${TAP_PLAN:-0}" -gt 0 ] && ! wait_for 60 tap_leaves_nothing >/dev/null; then
		printf '# after the test, the driver is still in use:\n'
		tap_leaves_nothing | sed 's/^/# /'
		tap_status=1
	fi
	# 4 is that of skip_all; a command that ends with it, as e2fsck may, has failed.
	[ "$tap_status" -ne 4 ] || [ "$TAP_PLAN" = 0 ] || tap_status=1
	[ "$tap_status" -eq 0 ] || exit "$tap_status"
	if [ "$TAP_FAILED" -ne 0 ]; then
		exit 1
	fi
	if [ "$TAP_COUNT" -ne "${TAP_PLAN:-0}" ]; then
		printf '# %d subtests planned, %d run\n' "${TAP_PLAN:-0}" "$TAP_COUNT"
		exit 1
	fi
	exit 0
}
trap tap_end EXIT
trap 'exit 1' INT TERM

# wait_for SECONDS COMMAND…: runs the command until it succeeds; fails after that time.
wait_for() {
	wait_tries=$(($1 * 10))
	shift
	until "$@"; do
		[ $((wait_tries -= 1)) -gt 0 ] || return
		sleep 0.1
	done
}
