package oci

import "github.com/opencontainers/runtime-spec/specs-go"

// namespaces lists the container's namespaces and names the host.
func (b *builder) namespaces() error {
	o := b.o
	b.addNamespace(specs.PIDNamespace, o.PID)
	if o.Network.Mode == NamespaceNone {
		b.addNamespace(specs.NetworkNamespace, Namespace{Mode: NamespacePrivate})
	} else {
		b.addNamespace(specs.NetworkNamespace, o.Network)
	}
	// "none" is a private IPC namespace without /dev/shm.
	ipc := o.IPC
	if ipc.Mode == NamespaceNone || ipc.Mode == NamespaceShareable {
		ipc = Namespace{Mode: NamespacePrivate}
	}
	b.addNamespace(specs.IPCNamespace, ipc)
	b.addNamespace(specs.UTSNamespace, o.UTS)
	b.addNamespace(specs.MountNamespace, Namespace{Mode: NamespacePrivate})
	cgroup := o.CgroupNS
	if cgroup.Mode == NamespaceDefault && !b.in.Node.CgroupV2 {
		cgroup.Mode = NamespaceHost
	}
	b.addNamespace(specs.CgroupNamespace, cgroup)
	b.nameHost()
	return nil
}

func (b *builder) addNamespace(kind specs.LinuxNamespaceType, ns Namespace) {
	if ns.Host() {
		return
	}
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: ns.Path})
}

func (b *builder) hasNamespace(kind specs.LinuxNamespaceType) bool {
	for _, ns := range b.spec.Linux.Namespaces {
		if ns.Type == kind {
			return true
		}
	}
	return false
}

// nameHost sets the host name: --hostname, else the node's with the node's network, else
// the short id. It is only in the spec when the UTS namespace is
// the container's own, or joined by its path while the network is the node's, which
// then gets the node's name.
func (b *builder) nameHost() {
	name := b.o.Hostname
	switch {
	case name != "":
	case b.o.Network.Host() || b.o.UTS.Host():
		name = b.in.Node.Hostname
	default:
		name = b.shortID()
	}
	b.hostname = name
	joined := b.o.UTS.Mode == NamespacePath
	if !b.o.UTS.Host() && (!joined || b.o.Network.Host()) {
		b.spec.Hostname = name
	}
	if joined {
		b.hostname = b.in.Node.Hostname
	}
}

// fileHostname is what /etc/hostname says: with a UTS namespace that is not the
// container's own, podman writes the id there.
func (b *builder) fileHostname() string {
	if b.spec.Hostname != "" {
		return b.spec.Hostname
	}
	return b.shortID()
}
