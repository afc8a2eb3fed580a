#!/usr/bin/env bash
# Builds the same commit in another directory, with another cache, and compares.
set -euo pipefail

first=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
git clone -q . "$tmp/elsewhere"
GOCACHE="$tmp/cache" make -s -C "$tmp/elsewhere" build VERSION="$(git describe --tags --always --dirty)" >/dev/null
cmp "$first" "$tmp/elsewhere/bin/careen"
echo "two builds are the same file: $(sha256sum <"$first" | cut -c1-64)"
