package oci_test

import (
	"strings"
	"testing"
	"time"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/oci"
	"github.com/careen-project/careen/oci/conformance"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"
)

// buildHost is a node with what the options of these tests name.
func buildHost() *conformance.Host {
	h := conformance.NewHost()
	h.Dir("/data/sub")
	h.File("/data/hosts", "192.0.2.7 from-file\n")
	h.File("/etc/localtime", "zone")
	h.Users["svc"] = "svc:x:1234:1235:Service,Room 1:/home/svc:/bin/sh"
	h.Dir("/dev")
	h.Node("/dev/sda", "b", 8, 0)
	h.Link("/dev/disk/by-id/wwn-1", "../../sda")
	h.Node("/dev/sg/a/0", "c", 21, 0)
	h.Node("/dev/sg/1", "c", 21, 1)
	h.File("/run/netns/blue", "")
	h.File("/etc/netns/blue/resolv.conf", "search blue.example\nnameserver 10.1.1.1\nnameserver 127.0.0.1\n")
	return h
}

// build runs one option line with a plain image; change may alter the input.
func build(t *testing.T, line string, change func(*oci.BuildInput)) (*oci.Plan, error) {
	t.Helper()
	words := conformance.Words(line)
	host := buildHost()
	run, err := oci.ParseRun(append(words, "image"), oci.Caller{Host: host, WorkDir: "/data"})
	if err != nil {
		return nil, err
	}
	root := conformance.NewHost()
	root.File("/etc/passwd", "root:x:0:0::/root:/bin/sh\nsvc2:x:77:78::/home/svc2:/bin/sh\n")
	root.File("/etc/hosts", "192.0.2.9 image\n")
	in := oci.BuildInput{
		ID: containerID, Host: host, Node: conformance.Node(true), Dir: "/d", VolumeDir: "/store", ControlDir: "/d/control",
		InitPath: "/usr/bin/careen", RootFS: "rootfs", Image: oci.Image{Reference: "image", Files: conformance.Files{Host: root}},
	}
	in.Image.Config.Config.Cmd = []string{"/bin/true"}
	if change != nil {
		change(&in)
	}
	return run.Build(in)
}

func mustBuild(t *testing.T, line string) *oci.Plan {
	t.Helper()
	plan, err := build(t, line, nil)
	require.NoError(t, err, line)
	return plan
}

func mountAt(plan *oci.Plan, destination string) specs.Mount {
	for _, m := range plan.Spec.Mounts {
		if m.Destination == destination {
			return m
		}
	}
	return specs.Mount{}
}

func fileNamed(plan *oci.Plan, name string) string {
	for _, file := range plan.Files {
		if strings.HasSuffix(file.Path, "/"+name) {
			return string(file.Content)
		}
	}
	return "absent"
}

func TestDefaultNetworkIsTheNodes(t *testing.T) {
	plan := mustBuild(t, "--rm")
	for _, ns := range plan.Spec.Linux.Namespaces {
		require.NotEqual(t, specs.NetworkNamespace, ns.Type)
	}
	require.Equal(t, conformance.Hostname, plan.Spec.Hostname)
	require.Empty(t, plan.Spec.Linux.Sysctl)
	require.Contains(t, plan.Spec.Process.Env, "container=careen")
	require.Equal(t, 10*time.Second, plan.StopTimeout)
	require.Equal(t, 15, plan.StopSignal)
	require.Equal(t, "/d/control", mountAt(plan, "/run/careen").Source)

	plan, err := build(t, "--rm", func(in *oci.BuildInput) { in.Previous = "/d/previous.json" })
	require.NoError(t, err)
	previous := mountAt(plan, "/run/careen/previous.json")
	require.Equal(t, "/d/previous.json", previous.Source)
	require.Contains(t, previous.Options, "ro")
	last := plan.Spec.Mounts[len(plan.Spec.Mounts)-1]
	require.Equal(t, previous.Destination, last.Destination, "it lies in another mount")
	plan, err = build(t, "-v /data:/run/careen", func(in *oci.BuildInput) { in.Previous = "/d/previous.json" })
	require.NoError(t, err)
	require.Empty(t, mountAt(plan, "/run/careen/previous.json").Source, "the operator's own directory is left alone")
}

func TestVolumes(t *testing.T) {
	plan := mustBuild(t, "-v cache:/cache:U,noexec -v /scratch -v name:/plain:nocopy -u svc2")
	require.Equal(t, []oci.PlanVolume{
		{Path: "/store/cache", Name: "cache", CopyFrom: "/cache", UID: 77, GID: 78},
		{Path: "/d/volumes/1", CopyFrom: "/scratch", UID: 77, GID: 78},
		{Path: "/store/name", Name: "name", UID: 77, GID: 78},
	}, plan.Volumes)
	require.Equal(t, []oci.PlanChown{{Path: "/store/cache", UID: 77, GID: 78}}, plan.Chowns)
	require.ElementsMatch(t, []string{"noexec", "rw", "rprivate", "nosuid", "nodev", "rbind"}, mountAt(plan, "/cache").Options)
}

func TestOverlayVolume(t *testing.T) {
	plan := mustBuild(t, "-v ./sub:/a:O -v /data:/b:O,upperdir=/u,workdir=/w -v cache:/c:O")
	require.ElementsMatch(t, []oci.PlanOverlay{
		{Lower: "/data/sub", Upper: "/d/overlay/0/upper", Work: "/d/overlay/0/work"},
		{Lower: "/data", Upper: "/u", Work: "/w"},
		{Lower: "/store/cache", Upper: "/d/overlay/2/upper", Work: "/d/overlay/2/work"},
	}, plan.Overlays)
	require.Equal(t, []string{"lowerdir=/data,upperdir=/u,workdir=/w,private"}, []string{strings.Join(mountAt(plan, "/b").Options, ",")})
}

func TestIDMap(t *testing.T) {
	plan := mustBuild(t, "-v '/data:/a:idmap=uids=0-1000-1#5-6-7;gids=@0-1000-1'")
	m := mountAt(plan, "/a")
	require.Contains(t, m.Options, "idmap")
	require.Equal(t, []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 5, HostID: 6, Size: 7}}, m.UIDMappings)
	require.Equal(t, []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}, m.GIDMappings)
	_, err := build(t, "-v '/data:/a:idmap=uids=0-1-1'", nil)
	require.Error(t, err)
	plan = mustBuild(t, "-v /data:/a:idmap")
	require.NotContains(t, mountAt(plan, "/a").Options, "idmap")
	require.Contains(t, strings.Join(plan.Warnings, "\n"), "idmap")
}

func TestNewerPodmansOptions(t *testing.T) {
	plan := mustBuild(t, "--mount type=ramfs,dst=/r,ramfs-mode=700 --hosts-file=hosts --no-hostname --systemd=always --shm-size-systemd=1m"+
		" --user 4242 --group-entry 'g:x:$GID:$USERLIST' --tz=local")
	require.Equal(t, "ramfs", mountAt(plan, "/r").Type)
	require.Contains(t, mountAt(plan, "/r").Options, "mode=700")
	require.Equal(t, "192.0.2.7\tfrom-file\n127.0.0.1\tlocalhost\n::1\tlocalhost\n", fileNamed(plan, "hosts"))
	require.Empty(t, mountAt(plan, "/etc/hostname").Source)
	require.Contains(t, mountAt(plan, "/run/lock").Options, "size=1048576")
	require.Equal(t, 37, plan.StopSignal)
	require.Contains(t, plan.RootAppends, oci.PlanAppend{Path: "/etc/group", Content: []byte("g:x:4242:4242\n")})
	require.Equal(t, "zone", fileNamed(plan, "localtime"))
	require.Equal(t, "192.0.2.9\timage\n127.0.0.1\tlocalhost\n::1\tlocalhost\n", fileNamed(mustBuild(t, "--hosts-file=image"), "hosts"))
	require.Equal(t, "127.0.0.1\tlocalhost\n::1\tlocalhost\n", fileNamed(mustBuild(t, "--hosts-file=none"), "hosts"))
}

func TestNetworkNamespaceByPath(t *testing.T) {
	plan := mustBuild(t, "--network=ns:/run/netns/blue --dns-search=a.example")
	require.Equal(t, "search a.example blue.example\nnameserver 10.1.1.1\n", fileNamed(plan, "resolv.conf"))
	_, err := build(t, "--network=ns:/run/netns/red", nil)
	require.Error(t, err)
	plan, err = build(t, "--network=ns:/run/netns/blue", func(in *oci.BuildInput) {
		in.Host.(*conformance.Host).File("/etc/netns/blue/resolv.conf", "nameserver 127.0.0.53\n")
	})
	require.NoError(t, err)
	require.Empty(t, fileNamed(plan, "resolv.conf"))
	require.Contains(t, strings.Join(plan.Warnings, "\n"), "no name server")
}

func TestRefusedNetworks(t *testing.T) {
	for _, network := range []string{"bridge", "private", "default", "slirp4netns", "slirp4netns:mtu=1", "pasta", "container:x", "pod", "podman", "a,b"} {
		_, err := build(t, "--network="+network, nil)
		require.Error(t, err, network)
		require.Equal(t, fault.Unsupported, fault.CodeOf(err), network)
		require.Contains(t, fault.RemedyOf(err), "--network=host", network)
	}
	require.Equal(t, mustBuild(t, "--rm").Spec, mustBuild(t, "--network=").Spec, "an empty one is the default")
}

func TestDevices(t *testing.T) {
	plan := mustBuild(t, "--device /dev/disk/by-id/wwn-1 --device /dev/sg:/dev/scsi:r")
	paths := []string{}
	for _, device := range plan.Spec.Linux.Devices {
		paths = append(paths, device.Path)
	}
	require.Equal(t, []string{"/dev/sda", "/dev/scsi/1", "/dev/scsi/a/0"}, paths)
	require.Equal(t, "r", plan.Spec.Linux.Resources.Devices[2].Access)
	for _, value := range []string{"/dev", "/data", "/dev/none", "vendor.example/class=all", "/dev/sda::rw", "", "/dev/sda:x"} {
		_, err := build(t, "--device='"+value+"'", nil)
		if value != "/dev" && value != "" {
			require.Error(t, err, value)
		}
	}
}

func TestHostUserHasDecimalIDs(t *testing.T) {
	plan := mustBuild(t, "--hostuser=svc --user=svc --network=none")
	require.Equal(t, uint32(1234), plan.Spec.Process.User.UID)
	require.Equal(t, uint32(1235), plan.Spec.Process.User.GID)
	require.Equal(t, "svc:*:1234:1235:Service:/:/bin/sh\n", string(plan.RootAppends[0].Content))
	require.Contains(t, plan.Spec.Process.Env, "HOME=/")
}

// TestGroupAddTwice has the rule of podman 4.3.1: a name is refused whose group has
// been added already, a number is not.
func TestGroupAddTwice(t *testing.T) {
	groups := func(in *oci.BuildInput) {
		root := conformance.NewHost()
		root.File("/etc/group", "root:x:0:\ndisk:x:6:\nsix:x:6:\nvideo:x:44:\ntwo:x:7:\ntwo:x:8:\nbig:x:4294967296:\n")
		in.Image.Files = conformance.Files{Host: root}
	}
	for line, want := range map[string][]uint32{
		"--group-add disk,video":              {6, 44},
		"--group-add disk --group-add 6":      {6},
		"--group-add 6,6,06":                  {6},
		"--group-add two --group-add two":     {7, 8},
		"--group-add 7,two":                   {7, 8},
		"--group-add 4711,4711 --user 0:disk": {6, 4711},
		"--group-add disk --user 0:disk":      {6},
	} {
		plan, err := build(t, line, groups)
		require.NoError(t, err, line)
		require.ElementsMatch(t, want, plan.Spec.Process.User.AdditionalGids, line)
	}
	for _, line := range []string{
		"--group-add disk,video,disk", "--group-add 6 --group-add disk", "--group-add disk,six", "--group-add two,two,two",
		"--group-add none", "--group-add -1", "--group-add 2147483648", "--group-add big",
	} {
		_, err := build(t, line, groups)
		require.Error(t, err, line)
		require.Equal(t, oci.ExitDenied, oci.ExitCode(err), line)
		require.Contains(t, err.Error(), "--group-add", line)
	}
}

func TestImageOwnWorkDirIsMade(t *testing.T) {
	plan, err := build(t, "", func(in *oci.BuildInput) { in.Image.Config.Config.WorkingDir = "work" })
	require.NoError(t, err)
	require.Equal(t, []string{"/work"}, plan.RootDirs)
	require.Equal(t, "/work", plan.Spec.Process.Cwd)
	_, err = build(t, "-w /work", nil)
	require.Equal(t, oci.ExitDenied, oci.ExitCode(err))
	_, err = build(t, "-w /etc/passwd", nil)
	require.Equal(t, oci.ExitDenied, oci.ExitCode(err))
}

func TestNodeDecides(t *testing.T) {
	run := func(line string) *oci.Run {
		words := conformance.Words(line)
		run, err := oci.ParseRun(append(words, "x"), oci.Caller{})
		require.NoError(t, err)
		return run
	}
	v1, v2 := conformance.Node(false), conformance.Node(true)
	for _, line := range []string{
		"--cgroup-conf=memory.high=1", "--memory=1g --memory-swap=512m", "--memory-swap=1g", "--memory-swappiness=101",
		"--memory=1g --memory-reservation=2g", "--cpu-period=500", "--cpu-quota=10", "--cpus=0.001", "--cpuset-cpus=4",
		"--cpuset-cpus=x", "--cpuset-mems=1", "--blkio-weight=5",
	} {
		err := run(line).Check(v1)
		require.Error(t, err, line)
		require.NotEmpty(t, fault.RemedyOf(err), line)
		require.NoError(t, run(line).Check(v2), line)
	}
	require.Error(t, run("--security-opt=apparmor=mine").Check(v1))
	require.Error(t, run("--security-opt=label=type:x").Check(oci.Node{SELinux: true}))
	noSwap := v1
	noSwap.NoSwapLimit, noSwap.NoBlkioWeight, noSwap.Seccomp = true, true, false
	plan, err := build(t, "--memory=1g --blkio-weight=500 --security-opt=seccomp=unconfined", func(in *oci.BuildInput) { in.Node = noSwap })
	require.NoError(t, err)
	require.Nil(t, plan.Spec.Linux.Resources.Memory.Swap)
	require.Nil(t, plan.Spec.Linux.Resources.BlockIO.Weight)
	require.Len(t, plan.Warnings, 3)
	_, err = build(t, "", func(in *oci.BuildInput) { in.Node = noSwap })
	require.Equal(t, fault.Node, fault.CodeOf(err))
}

func TestIsolationWarnings(t *testing.T) {
	for line, want := range map[string]string{
		"--privileged":                          "--privileged",
		"--pid=host":                            "--pid=host",
		"-v /:/host":                            "whole file system is readable and writable",
		"-v /:/host:ro":                         "whole file system is readable",
		"-v /run/docker.sock:/s":                "socket",
		"--security-opt=seccomp=unconfined":     "every system call",
		"--cap-add=sys_admin":                   "CAP_SYS_ADMIN",
		"--security-opt=systempaths=unconfined": "unmask=ALL",
		"-v /dev:/dev":                          "writable",
		"--ipc=host":                            "shared memory",
		"--device-cgroup-rule='a *:* rwm'":      "every device",
	} {
		words := conformance.Words(line)
		run, err := oci.ParseRun(append(words, "x"), oci.Caller{})
		require.NoError(t, err)
		require.Len(t, run.Isolation(), 1, line)
		require.Contains(t, run.Isolation()[0], want)
	}
	run, err := oci.ParseRun([]string{"--network=host", "--read-only", "-v", "/lib/modules:/lib/modules:ro", "x"}, oci.Caller{})
	require.NoError(t, err)
	require.Empty(t, run.Isolation())
}

// TestImageWorkDirStaysAsWritten: podman cleans neither a slash at its end nor dots.
func TestImageWorkDirStaysAsWritten(t *testing.T) {
	for written, want := range map[string]string{"/srv/": "/srv/", "/a/../srv": "/a/../srv", "srv/x": "/srv/x", "": "/"} {
		plan, err := build(t, "--rm", func(in *oci.BuildInput) { in.Image.Config.Config.WorkingDir = written })
		require.NoError(t, err)
		require.Equal(t, want, plan.Spec.Process.Cwd)
	}
}

func TestBuildIsDeterministic(t *testing.T) {
	line := "-e A=1 -e B=2 --label x=y -v a:/a -v b:/b --tmpfs /t --annotation k=v --sysctl kernel.sem=1 --cap-add SYS_ADMIN --privileged"
	first := mustBuild(t, line)
	for range 10 {
		require.Equal(t, first, mustBuild(t, line))
	}
}
