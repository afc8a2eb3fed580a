#!/bin/sh
# Checks and tests the plugin against the real ironic-python-agent: ruff, mypy --strict, pytest. Further arguments go
# to pytest; without any, four tests run at a time, for IPA sleeps most of its time.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$("$here/setup.sh")
cd "$here"

# Once for all of pytest's processes.
if command -v go >/dev/null; then
    programs=$(mktemp -d)
    trap 'rm -rf "$programs"' EXIT
    (cd "$root" && go build -tags 'seccomp netgo osusergo' -o "$programs/" ./integration/ipa/realagent ./integration/ipa/imageserver)
    export CAREEN_IPA_PROGRAMS="$programs"
fi

"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
[ $# -gt 0 ] || set -- -n 4 --dist worksteal
"$venv/bin/python" -m pytest -rs "$@"
