#!/usr/bin/env bash
# Runs a "go test" command. It prints one line for each package, the reason of each skipped
# test, and the whole output of a package that fails.
#
# With RETRY=1 it runs each failed test a second time, alone, and names it in the last lines of
# the output. The names are also appended to .cache/second-try, which "make test" prints at its
# end. A panic or a time-out of the test binary names no failed test: it is never retried.
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# run_tests COMMAND... runs the command, keeps its output in $log and returns its exit code.
run_tests() {
	"$@" -v 2>&1 | tee "$log" | grep -E --line-buffered '^(ok|FAIL|panic:|--- FAIL|campaign:|soak:)'
	local code=${PIPESTATUS[0]}
	# The reason of a skip is logged before the line that names the test.
	awk '/^[[:space:]]*--- SKIP:/ { print "skipped: " $3; if (reason != "") print "    " reason }
	     /^[[:space:]]+[a-z0-9_]+\.go:[0-9]+: / { reason = $0; sub(/^[[:space:]]+/, "", reason) }
	     /^(=== RUN|[[:space:]]*--- (PASS|FAIL))/ { if ($0 !~ /SKIP/) reason = "" }' "$log"
	if [ "$code" -ne 0 ]; then
		echo "the output of the failed command:"
		grep -vE '^=== (RUN|PAUSE|CONT|NAME)|^[[:space:]]*--- PASS' "$log" | tail -n 3000
	fi
	return "$code"
}

run_tests "$@" && exit 0
code=$?
failed=$(sed -n 's/^--- FAIL: \([A-Za-z0-9_]*\) .*/\1/p' "$log" | sort -u)
if [ "${RETRY:-}" != 1 ] || [ -z "$failed" ] || grep -q '^panic:' "$log"; then
	exit "$code"
fi

names=$(tr '\n' ' ' <<<"$failed")
echo "second try of: $names"
run_tests "$@" -run "^($(paste -sd '|' <<<"$failed"))\$"
code=$?
result=passed
[ "$code" -eq 0 ] || result=failed
mkdir -p .cache
for name in $failed; do
	echo "SECOND TRY: $name failed once; its second try $result" | tee -a .cache/second-try
done
exit "$code"
