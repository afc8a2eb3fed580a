#!/usr/bin/env bash
# Builds a Debian 12 ramdisk with the real ironic-python-agent in .cache/ipavm at the repository's root and prints the
# path of the initramfs. There is no careen in it and no podman: `careen ramdisk append` adds the one, the other stays
# out. Built again only when this file or the plugin has changed. Needs root, debootstrap, cpio and python3-venv.
#
#   IPA_VERSION   the release of ironic-python-agent
#
# Packages come from where this machine's apt and pip get theirs. IPA lies in /opt/ipa and the plugin in
# /opt/careen-ipa, so that PYTHONPATH says whether an IPA has the plugin.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=$root/.cache/ipavm
version=${IPA_VERSION:-13.0.0}
plugin=$root/integration/ipa
suite=bookworm
# udev and kmod for IPA's wait for disks; lshw and lscpu (of util-linux), without which it does not start.
packages=python3,lshw,iproute2,udev,kmod,ca-certificates,procps,pciutils

fail() {
	echo "cannot build the ramdisk: $1" >&2
	exit 1
}

# sum prints a short name for what it reads.
sum() { sha256sum | cut -c1-12; }

# debian makes the base: the slow part, kept by itself so that a change of the plugin does not make it again.
debian() {
	local mirror tree
	mirror=$(apt-get indextargets --format '$(URI)' 'Created-By: Packages' | sed -n "s,/dists/$suite/.*,,p" | head -n 1)
	[ -n "$mirror" ] || fail "this machine's apt knows no mirror of $suite"
	tree=$work/base
	debootstrap --variant=minbase --include="$packages" "$suite" "$tree" "$mirror" >"$work/log" 2>&1 ||
		fail "debootstrap: $(tail -n 3 "$work/log")"
	rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,man,locale,info}
	tar -C "$tree" -cf "$work/base.tar" .
	mv "$work/base.tar" "$1"
}

# ramdisk makes the initramfs $2 from the base $1.
ramdisk() {
	local tree=$work/tree
	mkdir "$tree" # its mode becomes that of the root directory
	tar -C "$tree" -xf "$1" --no-overwrite-dir
	local pip="$cache/venv/bin/python -m pip --disable-pip-version-check -q install"
	[ -x "$cache/venv/bin/python" ] || python3 -m venv "$cache/venv" >&2
	$pip "setuptools>=61" wheel >&2
	$pip --target "$tree/opt/ipa" "ironic-python-agent==$version" >&2
	$pip --target "$tree/opt/careen-ipa" --no-deps --no-build-isolation "$plugin" >&2
	# Tests of libraries are a third of the files.
	find "$tree/opt" -type d -name tests -prune -exec rm -rf {} +
	install -m 755 "$here/guest/init" "$tree/init"
	mkdir -p "$tree/etc/ironic-python-agent.d"
	(cd "$tree" && find . -print0 | LC_ALL=C sort -z | cpio --null --quiet -o -H newc -R 0:0) | gzip -1 >"$work/initramfs"
	mv "$work/initramfs" "$2"
}

[ "$(id -u)" -eq 0 ] || fail "debootstrap needs root"
mkdir -p "$cache"
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
[ -e "$root/.cache/.gitignore" ] || echo '*' >"$root/.cache/.gitignore"
base=$cache/$suite-$(echo "$packages" "$(declare -f debian)" | sum).tar
image=$cache/ipa-$({
	echo "$base $version"
	cat "$0" "$here/guest/init" "$plugin/pyproject.toml"
	find "$plugin/src/careen_ipa" -name '*.py' -print0 | LC_ALL=C sort -z | xargs -0 cat
} | sum).initramfs
[ -e "$base" ] || debian "$base"
[ -e "$image" ] || ramdisk "$base" "$image"
echo "$image"
