"""A place on this machine where the real ironic-python-agent may run as a process.

IPA inventories and cleans any machine that it runs on. Here it gets a private network with only loopback and one
interface that looks like hardware, a /dev without disks, and a PATH with a few harmless programs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

#: The programs on IPA's PATH: they list devices and routes, and change nothing.
PROGRAMS = ("cat", "df", "dmesg", "ip", "lsblk", "lscpu", "mount", "ps", "sh", "udevadm")

_SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
_UNSHARE = "/usr/bin/unshare"

_SETUP = r"""
set -eu
mount --make-rprivate /
ip link set lo up
# A vendor's address: IPA passes over interfaces with some of the local ones, and takes the kernel's random choice.
ip link add ipa0 address 00:16:3e:00:00:01 type veth peer name ipa1
ip link set ipa0 up
# IPA takes an interface for hardware that has a device in sysfs; it waits a minute for one.
mount -t tmpfs tmpfs /sys/class/net
mkdir -p /sys/class/net/ipa0 /sys/class/net/.pci/0000:00:03.0
ln -s ../.pci/0000:00:03.0 /sys/class/net/ipa0/device
ln -s driver-of-test /sys/class/net/ipa0/device/driver
mkdir -p "$1/dev"
mount -t tmpfs tmpfs "$1/dev"
for name in null zero random urandom; do
    : >"$1/dev/$name"
    mount --bind "/dev/$name" "$1/dev/$name"
done
mkdir "$1/dev/shm"
mount --rbind "$1/dev" /dev
# For IPA's TLS certificate: each test is a boot of its own.
mkdir -p /run/ironic-python-agent
mount -t tmpfs tmpfs /run/ironic-python-agent
echo ready
read -r _ || true
"""


_CONTAINER = r"""
set -eu
root=$1; shift
mount -t tmpfs root "$root"
cd "$root"
mkdir -p usr proc sys dev run tmp var/log etc old
mount --bind /usr usr
# Without it Python finds no libraries.
cp /etc/ld.so.cache etc/
for name in bin sbin lib lib64; do ln -s "usr/$name" "$name"; done
# Up to a dash: what is there under its own name or, after a colon, under another one.
while [ "$1" != - ]; do
    mkdir -p "./${1#*:}"
    mount --bind "${1%%:*}" "./${1#*:}"
    shift
done
shift
mount --rbind /sys sys
mount --rbind /dev dev
mount -t proc proc proc
pivot_root . old
umount -l /old
cd /
exec "$@"
"""


class Namespace:
    """The namespace. Its processes end with close()."""

    def __init__(self, directory: Path) -> None:
        """Make it, with files in directory."""
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        programs = directory / "bin"
        programs.mkdir()
        for name in PROGRAMS:
            found = shutil.which(name, path=_SYSTEM)
            if found:
                (programs / name).symlink_to(found)
        # IPA does not start without lshw. A stub replaces it, so that it does not inspect this machine.
        (programs / "lshw").write_text("#!/bin/sh\necho '{}'\n")
        (programs / "lshw").chmod(0o755)
        self.environment = {"PATH": str(programs), "HOME": str(directory), "LC_ALL": "C.UTF-8"}
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", _SETUP, "sh", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": _SYSTEM},
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline().strip() != b"ready":
            raise RuntimeError("the namespace could not be made")

    def start(
        self,
        *command: str,
        output: Path,
        environment: dict[str, str] | None = None,
        interrupt: str = "default",
    ) -> subprocess.Popen[bytes]:
        """Start command there, with its output and errors in a file.

        SIGINT is "default" or "ignore". It is not inherited from the caller of the tests, because a shell's background
        commands ignore it.
        """
        enter = [
            "/usr/bin/env",
            f"--{interrupt}-signal=INT",
            "/usr/bin/nsenter",
            f"--target={self._holder.pid}",
            "--net",
            "--mount",
            f"--wd={self.directory}",
            "--",
        ]
        with output.open("ab") as log:
            process = subprocess.Popen(
                [*enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, **(environment or {})},
                cwd=self.directory,
            )
        self._processes.append(process)
        return process

    def start_in_container(
        self, *command: str, output: Path, mounts: list[str], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start command there in a separate root, with a separate process list.

        The root has this machine's /usr as its operating system, and otherwise only the directories in mounts, as
        in PATH or PATH:OTHER.
        """
        root = self.directory / "root"
        root.mkdir(exist_ok=True)
        enter = [_UNSHARE, "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", _CONTAINER, "sh"]
        # The shell that makes the root needs more programs than IPA gets.
        inner = ["/usr/bin/env", f"PATH={self.environment['PATH']}", *command]
        return self.start(
            *enter,
            str(root),
            *mounts,
            str(self.directory / "bin"),
            "-",
            *inner,
            output=output,
            environment={"PATH": _SYSTEM, **(environment or {})},
        )

    def close(self) -> None:
        """End what is still running."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait()

    @staticmethod
    def missing() -> str:
        """Return the reason why it cannot be made here, or ""."""
        if os.geteuid() != 0:
            return "a network namespace needs root"
        absent = [
            name for name in ("unshare", "nsenter", "ip", "lsblk") if shutil.which(name, path=_SYSTEM) is None
        ]
        return f"{', '.join(absent)} not installed" if absent else ""
