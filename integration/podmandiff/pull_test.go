package podmandiff

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/integration/harness"
	"github.com/careen-project/careen/integration/registry"
)

// pullSets are options and images of podman pull; @IMG@ is an image for three platforms at a
// registry without a log-in, @SEC@ the same at one that has one, @DIGEST@ its digest.
var pullSets = []string{
	"@IMG@:1", "-q @IMG@:1", "--quiet=false @IMG@:1", "--quiet=maybe @IMG@:1", "docker://@IMG@:1", "@IMG@@@DIGEST@", "@IMG@:1@@DIGEST@",
	"@IMG@:none", "@IMG@:1 @IMG@:none", "", "--arch=arm64 @IMG@:1", "--os=linux --arch amd64 @IMG@:1",
	"--os=plan9 @IMG@:1", "--platform=linux/arm64 @IMG@:1", "--platform linux/arm/v7 @IMG@:1", "--arch=arm --variant=v7 @IMG@:1",
	"--platform=linux/s390x @IMG@:1", "--platform=linux/arm64 --arch=amd64 @IMG@:1", "--platform=li{nux/arm64 @IMG@:1", "--disable-content-trust @IMG@:1",
	"--tls-verify=true @IMG@:1", "--tls-verify=perhaps @IMG@:1", "@SEC@:1", "--creds=op:s3cret @SEC@:1", "--creds op:wrong @SEC@:1", "--creds=:x @SEC@:1",
	"--authfile=@DIR@/login.json @SEC@:1", "--authfile @DIR@/auth.json @SEC@:1", "--authfile=@DIR@/none.json @SEC@:1", "--cert-dir=@DIR@/dir @IMG@:1",
	"--no-such @IMG@:1", "-z @IMG@:1", "-qa=false @IMG@:1", "--all-tags=false @IMG@:1", "UPPER/case:1", "@IMG@:-bad",
	"@IMG@:1 --quiet", "@IMG@:1 -q --arch=arm64", "@IMG@:1 --quiet=maybe", "-- @IMG@:1", "@IMG@:1 -- -q", "--cert-dir=@DIR@/none @IMG@:1",
	"--cert-dir=@DIR@/file.txt @IMG@:1", "--authfile=@DIR@/file.txt @IMG@:1", "--authfile=@DIR@/dir @IMG@:1", "--platform=linux/ @IMG@:1",
	"--platform=/amd64 @IMG@:1", "--platform=linux/amd64/ @IMG@:1", "--platform=// @IMG@:1", "--platform=linux/x86_64 @IMG@:1", "--arch= @IMG@:1",
}

// TestPullsSameAsPodman gives options of pull to podman and to the built binary: both have
// to fail, or to print the same image id.
func TestPullsSameAsPodman(t *testing.T) {
	p := newPodman(t)
	places := makePlaces(t)
	images := make(map[string]*registry.Image)
	for _, platform := range []string{"linux/amd64", "linux/arm64", "linux/arm/v7"} {
		parts := append(strings.Split(platform, "/"), "")
		layer := registry.NewLayer(t, registry.Tar(t, registry.File("for", platform)), registry.Gzip)
		images[platform] = registry.NewImage(t, []registry.Layer{layer}, registry.WithPlatform(parts[0], parts[1], parts[2]))
	}
	index := registry.NewIndex(t, images)
	open, closed := registry.Start(t), registry.Start(t, registry.WithBasicAuth("op", "s3cret"))
	_, digest := open.Push(t, "multi:1", index)
	closed.Push(t, "multi:1", index)
	dir := places.Replace(placeDir)
	login := base64.StdEncoding.EncodeToString([]byte("op:s3cret"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "login.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, closed.Host, login), 0o600))
	agent := harness.Start(t)
	replace := strings.NewReplacer("@IMG@", open.Host+"/multi", "@SEC@", closed.Host+"/multi", "@DIGEST@", digest.String(), placeDir, dir)
	pulled := 0
	for _, line := range pullSets {
		args := append([]string{"pull"}, strings.Fields(replace.Replace(line))...)
		if !strings.Contains(line, "tls-verify") {
			args = append([]string{"pull", "--tls-verify=false"}, args[1:]...)
		}
		got := agent.Careen(args...)
		id, code := "", -1
		for range attempts {
			if id, code = p.pull(args); code == got.Code && (code != 0 || id == strings.TrimSpace(got.Stdout)) {
				break
			}
		}
		require.Equal(t, code, got.Code, "podman pull %s: %s", line, got)
		if code == 0 {
			require.Equal(t, id, strings.TrimSpace(got.Stdout), "podman pull %s: %s", line, got)
			pulled++
		}
	}
	require.Greater(t, pulled, 12)
}

// pull runs podman and returns the last word that it prints, the id, and its exit code.
func (p *podman) pull(args []string) (id string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	command := p.command(ctx, false, args...)
	var stdout bytes.Buffer
	command.Stdout = &stdout
	_ = command.Run()
	if words := strings.Fields(stdout.String()); len(words) > 0 {
		id = words[len(words)-1]
	}
	return id, command.ProcessState.ExitCode()
}
