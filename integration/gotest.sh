#!/usr/bin/env bash
# Runs a go test command with one line a package, names every skipped test with its
# reason, and shows the whole output where something failed.
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" -v 2>&1 | tee "$log" | grep -E --line-buffered '^(ok|FAIL|panic:|--- FAIL|campaign:|soak:)'
code=${PIPESTATUS[0]}
# The reason of a skip is logged before the line that names the test.
awk '/^[[:space:]]*--- SKIP:/ { print "skipped: " $3; if (reason != "") print "    " reason }
     /^[[:space:]]+[a-z0-9_]+\.go:[0-9]+: / { reason = $0; sub(/^[[:space:]]+/, "", reason) }
     /^(=== RUN|[[:space:]]*--- (PASS|FAIL))/ { if ($0 !~ /SKIP/) reason = "" }' "$log"
if [ "$code" -ne 0 ]; then
	echo "the output of the failed command:"
	grep -vE '^=== (RUN|PAUSE|CONT|NAME)|^[[:space:]]*--- PASS' "$log" | tail -n 3000
fi
exit "$code"
