#!/usr/bin/env bash
# schemathesis.sh [ARGUMENT...]: compare openapi.yaml with the agent for about a minute
# (TestSchemathesis). It installs schemathesis into .cache first, where it is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$PWD/.cache/schemathesis
if [ ! -x "$venv/bin/st" ]; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet schemathesis==4.32.5
fi
SCHEMATHESIS=$venv/bin/st SCHEMATHESIS_ARGS=$* exec "${GO:-go}" test -count=1 -run '^TestSchemathesis$' ./agent/httpd
