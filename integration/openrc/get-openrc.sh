#!/bin/sh
# Unpacks Debian's OpenRC below .cache/openrc at the repository's root, installs nothing, and prints the path.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
tree=$root/.cache/openrc
if [ ! -e "$tree/sbin/openrc-run" ]; then
	mkdir -p "$root/.cache"
	[ -e "$root/.cache/.gitignore" ] || echo '*' >"$root/.cache/.gitignore"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	get() { apt-get download -q -o APT::Sandbox::User=root openrc libeinfo1 librc1 insserv >&2; }
	get || { apt-get update >&2 && get; }
	for package in ./*.deb; do dpkg-deb -x "$package" tree; done
	rm -rf "$tree"
	mv tree "$tree"
fi
echo "$tree"
