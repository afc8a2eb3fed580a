#!/bin/sh
# Makes a virtual environment with the real ironic-python-agent and the tools of the tests, in .cache/ipa at the
# repository's root, and prints its path; .cache/ipa/current leads there too. Runs again only when this package's or
# IPA's version has changed. Needs from Debian: python3 (3.11 or newer), python3-venv, ca-certificates; no compiler.
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

mkdir -p "$cache/ipa"
# The cache keeps itself out of the repository, whatever the ignore file at its root says.
[ -e "$cache/.gitignore" ] || echo '*' >"$cache/.gitignore"

# Two tests may want it at once; the first one makes it, the others wait.
exec 9>"$cache/ipa/lock"
flock 9
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ]; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv" >&2
    # What is never imported need not be compiled; what is, is when it is imported.
    pip="$venv/bin/python -m pip --disable-pip-version-check -q install --no-compile"
    $pip "setuptools>=61" wheel "ironic-python-agent==$version" pytest==9.2.0 pytest-xdist==3.8.0 mypy==2.4.1 \
        ruff==0.17.6 oslotest testtools types-PyYAML >&2
    # For its diskimage-builder elements only.
    $pip --no-deps ironic-python-agent-builder==7.4.0 >&2
    # With the tools from above: pip would fetch them again for a build of its own.
    $pip --no-build-isolation --no-deps -e "$here" >&2
    echo "$want" >"$stamp"
fi
ln -sfn "$version" "$cache/ipa/current"
echo "$venv"
