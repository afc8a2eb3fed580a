package runtime

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOnlyCleanPagesOfTheFileAreGivenBack(t *testing.T) {
	const smaps = `00400000-00401000 r--p 00000000 08:01 42 /opt/the agent
Size:                  4 kB
Anonymous:             0 kB
00401000-00f00000 r-xp 00001000 08:01 42 /opt/the agent
Rss:                8192 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00f00000-00f05000 r--p 00b00000 08:01 42 /opt/the agent
Anonymous:             8 kB
00f05000-00f10000 rw-p 00b05000 08:01 42 /opt/the agent
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 08:01 43 /opt/another
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
`
	got := clean(bufio.NewScanner(strings.NewReader(smaps)), "/opt/the agent")
	assert.Equal(t, []mapping{{0x400000, 0x401000}, {0x401000, 0xf00000}}, got)
}

// The test's own text is given back, and goes on.
func TestRest(t *testing.T) {
	self, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	smaps, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer smaps.Close()
	assert.NotEmpty(t, clean(bufio.NewScanner(smaps), self))
	for range 3 {
		letGo()
		assert.Positive(t, resident())
		rest()
	}
}
