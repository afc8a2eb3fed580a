package procfs

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMemInfo(t *testing.T) {
	m, err := MemInfo()
	require.NoError(t, err)
	require.Positive(t, m.Total)
	require.Positive(t, m.Available)
	require.LessOrEqual(t, m.Available, m.Total)

	// The kernel's other interface has the same total.
	other, err := sysinfo()
	require.NoError(t, err)
	require.InEpsilon(t, m.Total, other.Total, 0.01)
	require.Equal(t, m.SwapTotal, other.SwapTotal)
}

func TestParseMemInfo(t *testing.T) {
	const text = "MemTotal:       16303452 kB\nMemFree:          100 kB\nMemAvailable:    8000000 kB\nSwapTotal:             0 kB\nHugePages_Total:       0\n"
	m, err := parseMemInfo([]byte(text))
	require.NoError(t, err)
	require.Equal(t, Memory{Total: 16303452 << 10, Available: 8000000 << 10}, m)

	for name, bad := range map[string]string{
		"empty":         "",
		"no MemTotal":   strings.Replace(text, "MemTotal", "Other", 1),
		"old kernel":    strings.Replace(text, "MemAvailable", "Other", 1),
		"not a number":  strings.Replace(text, "16303452", "x", 1),
		"missing value": "MemTotal:\nMemAvailable: 1 kB\n",
		"no colon":      "MemTotal",
	} {
		_, err := parseMemInfo([]byte(bad))
		require.ErrorContains(t, err, MemInfoPath, name)
	}
}

func TestHasFilesystem(t *testing.T) {
	require.True(t, HasFilesystem("proc"))
	require.False(t, HasFilesystem("nodev"))
	require.False(t, HasFilesystem("pro"))
}

func TestSelf(t *testing.T) {
	// 32 MiB of anonymous memory that is really there.
	data, err := unix.Mmap(-1, 0, 32<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	require.NoError(t, err)
	with, err := Self()
	require.NoError(t, err)
	require.NoError(t, unix.Munmap(data))
	require.Greater(t, with.Anonymous, int64(24<<20))
	require.Positive(t, with.File, "the pages of the test binary")
	require.Equal(t, with.Resident, with.Anonymous+with.File)
}

func TestParseStatm(t *testing.T) {
	page := int64(os.Getpagesize())
	p, err := parseStatm([]byte("1000 300 200 50 0 400 0\n"))
	require.NoError(t, err)
	require.Equal(t, Process{Resident: 300 * page, Anonymous: 100 * page, File: 200 * page}, p)
	p, err = parseStatm([]byte("1000 100 101 50 0 400 0\n"))
	require.NoError(t, err)
	require.Zero(t, p.Anonymous, "the counters are not read at one moment")
	for _, bad := range []string{"", "1 2", "1 x 3", "1 2 x"} {
		_, err := parseStatm([]byte(bad))
		require.ErrorContains(t, err, statmPath)
	}
}

func TestBoot(t *testing.T) {
	before := BootClock()
	require.Positive(t, before)
	require.GreaterOrEqual(t, BootClock(), before)

	id, err := BootID()
	require.NoError(t, err)
	require.Len(t, id, 36)
	again, err := BootID()
	require.NoError(t, err)
	require.Equal(t, id, again)
}
