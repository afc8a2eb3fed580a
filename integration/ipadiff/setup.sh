#!/bin/sh
# Installs the real ironic-python-agent for the differential tests, where those of the plugin have it too, and prints
# its Python. See integration/ipa/setup.sh.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
echo "$("$root/integration/ipa/setup.sh")/bin/python"
