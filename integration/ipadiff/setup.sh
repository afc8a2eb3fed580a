#!/bin/sh
# Installs the real ironic-python-agent for the differential tests, once, into a
# virtual environment below .cache/ of the repository. Prints its Python.
#
# Needs from Debian: python3 (3.11 or newer), python3-venv, ca-certificates.
# No compiler: everything comes as wheels. Nothing of it needs root.
#
#   IPA_VERSION   what to install (13.0.0)
#   IPA_VENV      where (.cache/ipa/venv)
set -eu

version=${IPA_VERSION:-13.0.0}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
venv=${IPA_VENV:-$root/.cache/ipa/venv}
stamp=$venv/.ironic-python-agent-$version

if [ ! -e "$stamp" ]; then
	# Two tests may want it at once; the first one makes it, the others wait.
	mkdir -p "$(dirname -- "$venv")"
	exec 9>"$venv.lock"
	flock 9
	if [ ! -e "$stamp" ]; then
		python3 -m venv --clear "$venv"
		"$venv/bin/pip" install --quiet --disable-pip-version-check \
			--only-binary :all: "ironic-python-agent==$version" >&2
		: >"$stamp"
	fi
fi
echo "$venv/bin/python"
