# Makes a root with OpenRC, enters it and runs what comes on standard input there, as its first process. To be started
# in mount, pid, ipc and uts namespaces of its own.
#
#   root.sh OPENRC NEWROOT CAREEN SERVICE
set -eu
tree=$1 root=$2 careen=$3 service=$4
mount --make-rprivate /
mount -t tmpfs root "$root"
cd "$root"
mkdir -p usr proc sys dev run tmp var/lib etc/conf.d root old .upper/bin .upper/sbin .upper/lib
# OpenRC and careen over this machine's /usr: a shell, libraries and small tools.
for d in bin sbin lib; do [ ! -d "$tree/$d" ] || cp -a "$tree/$d/." ".upper/$d/"; done
cp "$careen" .upper/bin/careen
mount -t overlay -o "ro,lowerdir=$root/.upper:/usr" usr usr
for d in bin sbin lib lib64; do ln -s "usr/$d" "$d"; done
cp -a "$tree/etc/." etc/
# Debian's local services are not there, and only careen shall start.
find etc/runlevels -type l -delete
install -m 755 "$service" etc/init.d/careen
ln -s /etc/init.d/careen etc/runlevels/default/careen
printf 'root:x:0:0:root:/root:/bin/sh\n' >etc/passwd
printf 'root:x:0:\nuucp:x:10:\n' >etc/group
cp -r /etc/ld.so.conf /etc/ld.so.conf.d etc/
mount --rbind /sys sys
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs run run
mount -t tmpfs store var/lib
pivot_root . old
umount -l /old
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin IMAGE="$IMAGE" sh
