package vm_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/vm"
)

func TestRunInABareGuest(t *testing.T) {
	t.Parallel()
	guest := vm.Start(t, vm.Config{Memory: 256, Files: map[string][]byte{"/etc/greeting": []byte("hello\n")}})

	out, code := guest.Run("cat /etc/greeting; echo to stderr >&2; exit 3")
	require.Equal(t, "hello\nto stderr\n", out)
	require.Equal(t, 3, code)

	out, _ = guest.Run("ls /proc /sys 2>&1; ls /dev")
	require.NotContains(t, out, "zero", "the guest has to be bare: nothing mounted")

	content := bytes.Repeat([]byte{0, 1, '\n', 0xff}, 5000)
	guest.WriteFile("/blob", content)
	require.Equal(t, content, guest.ReadFile("/blob"))

	// Two commands at once: the first ends only after the second.
	slow := make(chan string)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), vm.Patience)
		defer cancel()
		text, _, err := guest.RunContext(ctx, "until [ -e /go ]; do usleep 10000; done; echo done")
		if err != nil {
			text = []byte(err.Error())
		}
		slow <- string(text)
	}()
	guest.MustRun("touch /go")
	require.Equal(t, "done\n", <-slow)
}
