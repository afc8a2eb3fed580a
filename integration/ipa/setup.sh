#!/bin/sh
# Makes a virtual environment with the real ironic-python-agent and the tools of the tests, in .cache/ipa at the
# repository's root, and prints its path. Runs again only when this package's or IPA's version has changed.
#
#   IPA_VERSION   the release of ironic-python-agent to test with
#   PYTHON        the interpreter, 3.11 or later for IPA 13
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache
version=${IPA_VERSION:-13.0.0}
venv=$cache/ipa/$version
stamp=$venv/.ready
want="$version $(cksum <"$here/pyproject.toml") $(cksum <"$0")"

mkdir -p "$cache"
# The cache keeps itself out of the repository, whatever the ignore file at its root says.
[ -e "$cache/.gitignore" ] || echo '*' >"$cache/.gitignore"

if [ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ]; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv" >&2
    pip="$venv/bin/python -m pip --disable-pip-version-check -q"
    # The tools first: pip builds this package below without a network of its own.
    $pip install "setuptools>=61" wheel >&2
    $pip install "ironic-python-agent==$version" pytest==9.2.0 mypy==2.4.1 ruff==0.17.6 oslotest testtools types-PyYAML >&2
    $pip install --no-build-isolation --no-deps -e "$here" >&2
    echo "$want" >"$stamp"
fi
echo "$venv"
