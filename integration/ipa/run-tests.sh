#!/bin/sh
# Checks and tests the plugin against the real ironic-python-agent: ruff, mypy --strict, pytest. Further arguments go
# to pytest.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
venv=$("$here/setup.sh")
cd "$here"

"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
exec "$venv/bin/python" -m pytest -rs "$@"
