#!/bin/sh
# Unpacks the kernel and its modules below DIR without installing them, which
# spares the machine an initramfs of its own. Tests find it by CAREEN_VM_ROOT=DIR.
set -eu
dir=${1:?usage: get-kernel.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
package=$(apt-cache depends --important linux-image-cloud-amd64 |
	sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
[ -n "$package" ] || { echo "get-kernel.sh: linux-image-cloud-amd64 is unknown; run apt-get update" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$package" >&2 && dpkg-deb -x ./*.deb "$dir")
# Kernel packages ship no modules.dep; installing them makes it.
for modules in "$dir"/lib/modules/*; do
	depmod -b "$dir" "$(basename "$modules")"
done
echo "$dir"
