package node

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPathsBecomeAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	o := Options{Root: "root", RunDir: "run", State: "", Socket: "/s", Marker: "file:marker"}
	require.NoError(t, o.Absolute())
	assert.Equal(t, Options{Root: dir + "/root", RunDir: dir + "/run", Socket: "/s", Marker: "file:" + dir + "/marker"}, o)
	o = Options{Marker: "efivar"}
	require.NoError(t, o.Absolute())
	assert.Equal(t, "efivar", o.Marker)
}
