package doctor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/rootfs"
	"github.com/careen-project/careen/rootfs/doctor"
)

func TestParseRequirements(t *testing.T) {
	for _, label := range []string{"", "  ", "dev-mem", " dev-mem , ipmi,modules ", "module=ipmi_devintf", "device=/dev/cpu/0/msr",
		"lockdown=none", "hugepages=64", "memory=2g", "kernel>=5.10", "kernel>=6.1.20", "file=/lib/firmware/a.bin"} {
		list, err := doctor.ParseRequirements(label)
		require.NoError(t, err, "%q", label)
		want := 0
		if strings.TrimSpace(label) != "" {
			want = strings.Count(label, ",") + 1
		}
		require.Len(t, list, want, "%q", label)
		for _, r := range list {
			require.NotEmpty(t, r.Meaning())
			require.NotContains(t, r.Meaning(), "VALUE")
		}
	}
	for label, why := range map[string]string{
		"gpu": `unknown requirement "gpu"`, "dev-mem,,ipmi": "empty entry", "ipmi,": "empty entry",
		"DEV-MEM": "unknown requirement", "dev-mem=yes": "like dev-mem", "module": "like module=NAME", "module=": "like module=NAME",
		"module=a.ko": "like module=NAME", "module=../x": "like module=NAME", "device=/etc/passwd": "like device=/dev/PATH",
		"device=/dev/../etc/passwd": "like device=/dev/PATH", "device=dev/x": "like device=/dev/PATH", "file=/a/../b": "like file=/PATH",
		"file=/": "like file=/PATH", "file=/a\x00b": "like file=/PATH", "file=/a\xff": "like file=/PATH", "file=relative": "like file=/PATH",
		"lockdown=integrity": "like lockdown=none", "lockdown": "like lockdown=none", "hugepages=0": "like hugepages=N",
		"hugepages=-1": "like hugepages=N", "hugepages=99999999999": "like hugepages=N", "memory=lots": "like memory=SIZE",
		"memory=-1g": "like memory=SIZE", "kernel=5.10": "like kernel>=X.Y", "kernel>5.10": "unknown requirement", "kernel<=5.10": "unknown requirement",
		"kernel>=5": "like kernel>=X.Y", "kernel>=5.10.1.2": "like kernel>=X.Y", "kernel>=x.y": "like kernel>=X.Y",
		"ipmi>=2": "like ipmi", "memory>=2g": "like memory=SIZE", "hugepages>=1": "like hugepages=N",
		strings.Repeat("ipmi,", 64) + "ipmi": "more than 64", "file=/" + strings.Repeat("x", 5000): "longer than",
	} {
		_, err := doctor.ParseRequirements(label)
		require.ErrorContains(t, err, why, "%q", label)
	}
}

func FuzzParseRequirements(f *testing.F) {
	f.Add("dev-mem, ipmi,module=msr,device=/dev/a,lockdown=none,hugepages=1,memory=1g,kernel>=5.10,file=/a,modules")
	f.Add("kernel>=999.9999.9999")
	f.Add("memory=1e99g")
	f.Fuzz(func(t *testing.T, label string) {
		list, err := doctor.ParseRequirements(label)
		if err != nil {
			require.Nil(t, list)
			return
		}
		texts := make([]string, len(list))
		for i, r := range list {
			texts[i] = r.Text
			require.NotContains(t, r.Meaning(), "\n")
		}
		again, err := doctor.ParseRequirements(strings.Join(texts, ","))
		require.NoError(t, err)
		require.Len(t, again, len(list))
	})
}

func TestRequire(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "modules", rootfs.KernelRelease())
	require.NoError(t, os.MkdirAll(base, 0o755))
	write := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write(filepath.Join(base, "modules.builtin"), "kernel/a/built-in-here.ko\n")
	write(filepath.Join(base, "modules.dep"), "kernel/careen_absent.ko:\n")
	firmware := filepath.Join(dir, "fw.bin")
	write(firmware, "")
	ask := func(label string, load bool) ([]string, error) {
		return doctor.Require(t.Context(), doctor.RequireOptions{
			Image: "registry.example/fw:1", Label: label, Load: load, ModulesDir: filepath.Join(dir, "modules"),
		})
	}
	for _, label := range []string{"", "kernel>=3.0", "memory=1m", "device=/dev/null", "file=" + firmware, "file=" + dir, "modules",
		"module=built_in_here", "kernel>=3.0,device=/dev/zero,memory=1k"} {
		loaded, err := ask(label, true)
		require.NoError(t, err, label)
		require.Empty(t, loaded, label)
	}
	for label, why := range map[string]string{
		"kernel>=99.0": "kernel>=99.0 (Linux " + rootfs.KernelRelease() + ")", "memory=100000g": "MiB are available)",
		"device=/dev/careen-none": "no such file", "device=/dev/shm": "it is not a device", "file=" + dir + "/none": "no such file",
		"hugepages=2000000": "hugepages=2000000 (", "module=nothing_like_it": "the running kernel has no such module",
		"module=careen_absent": "it is not loaded",
	} {
		loaded, err := ask(label, false)
		require.ErrorContains(t, err, why, label)
		require.Empty(t, loaded)
		require.Equal(t, fault.Requirement, fault.CodeOf(err))
		require.NotContains(t, fault.Line(err), "\n")
		require.NotEmpty(t, fault.RemedyOf(err))
	}

	_, err := ask("kernel>=99.0,device=/dev/null,file="+dir+"/none", true)
	require.EqualError(t, err, "cannot run registry.example/fw:1: the node lacks what the image requires: kernel>=99.0 (Linux "+
		rootfs.KernelRelease()+"), file="+dir+"/none (no such file or directory)")
	require.Equal(t, "Use a ramdisk with a newer kernel. Put the file into the ramdisk", fault.RemedyOf(err))
	_, err = ask("gpu=2", true)
	require.Equal(t, fault.Requirement, fault.CodeOf(err))
	require.ErrorContains(t, err, `its label io.careen.requires is invalid: unknown requirement "gpu=2"`)

	// Nothing is loaded while something else is in the way; else the module is tried.
	_, err = ask("module=careen_absent,kernel>=99.0", true)
	require.ErrorContains(t, err, "module=careen_absent (it is not loaded), kernel>=99.0")
	_, err = ask("module=careen_absent,device=/dev/careen-none", true)
	require.Equal(t, fault.Requirement, fault.CodeOf(err))
	require.ErrorContains(t, err, "it requires a module that cannot be loaded: cannot load the kernel module careen_absent:")
}
