package doctor

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNameServers(t *testing.T) {
	require.Equal(t, []string{"192.0.2.1", "2001:db8::1"},
		nameServers([]byte("# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n\tnameserver  2001:db8::1 # two\nnameserver\n")))
}

func TestCheckProxy(t *testing.T) {
	for _, tt := range []struct{ value, shown, wrong string }{
		{"http://proxy.example:3128", "http://proxy.example:3128", ""},
		{"proxy.example:3128", "http://proxy.example:3128", ""},
		{"http://me:secret@proxy.example", "http://me:xxxxx@proxy.example", ""},
		{"ftp://proxy.example", "", "scheme"},
		{"http://", "", "no host"},
		{"http://me:secret@proxy.example:port", "", "not a URL"},
	} {
		shown, err := checkProxy(tt.value)
		if tt.wrong == "" {
			require.NoError(t, err, tt.value)
			require.Equal(t, tt.shown, shown)
			continue
		}
		require.ErrorContains(t, err, tt.wrong)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestCheckNoProxy(t *testing.T) {
	for entry, wrong := range map[string]string{
		"": "", "*": "", "localhost": "", ".example.org": "", "*.example.org": "", "10.0.0.0/8": "", "[::1]:80": "", "192.0.2.1:5000": "",
		"http://example.org": "not a URL", "a b": "commas", "10.0.0.0/99": "not a network", "a*b": "star",
	} {
		err := checkNoProxy(entry)
		if wrong == "" {
			require.NoError(t, err, entry)
		} else {
			require.ErrorContains(t, err, wrong)
		}
	}
}
