package steps_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/agent/fault"
	"github.com/careen-project/careen/steps"
)

var (
	digestA = "sha256:" + strings.Repeat("a", 64)
	digestB = "sha256:" + strings.Repeat("b", 64)
)

func generic(image string, run any) steps.Request {
	args := map[string]any{"container_url": image}
	if run != nil {
		args["run_options"] = run
	}
	return steps.Request{Step: steps.GenericStep, Phase: "clean", Args: args}
}

func TestRulesMatchImages(t *testing.T) {
	for name, tc := range map[string]struct {
		rule     string
		yes, not []string
	}{
		"digest": {"digest = '" + digestA + "'",
			[]string{"r.example/x@" + digestA, "docker://r.example/x:1@" + digestA},
			[]string{"r.example/x@" + digestB, "r.example/x", digestA, "x@" + digestA + "@" + digestA, "x@" + strings.ToUpper(digestA)}},
		"repository": {"repository = 'r.example:5000/fw/x'",
			[]string{"r.example:5000/fw/x", "r.example:5000/fw/x:1", "oci://r.example:5000/fw/x@" + digestB},
			[]string{"r.example:5000/fw/xx", "r.example:5000/fw/x/y", "r.example/fw/x", "r.example:5000/fw/x:", "r.example:5000/fw/x:1:2",
				"containers-storage:r.example:5000/fw/x", "http://r.example:5000/fw/x", "r.example:5000/fw/x:1\n", "r.example:5000/fw/x:1 --privileged"}},
		"glob": {"glob = 'r.example/fw/*'",
			[]string{"r.example/fw/a", "r.example/fw/a:1", "r.example/fw/a@" + digestA},
			[]string{"r.example/fw/a/b", "r.example/fw", "r.example/fw/", "r.example/other/a", "evil.example/r.example/fw/a", "r.example/fw/../a"}},
		"deep glob":     {"glob = 'r.example/**'", []string{"r.example/a", "r.example/a/b:1"}, []string{"r.example", "rr.example/a"}},
		"literal glob":  {"glob = 'r.example/a:1.0'", []string{"r.example/a:1.0"}, []string{"r.example/a:1x0"}},
		"and":           {"repository = 'r.example/x'\ndigest = '" + digestA + "'", []string{"r.example/x@" + digestA}, []string{"r.example/y@" + digestA, "r.example/x:1"}},
		"image":         {"image = 'docker://x:1'", []string{"x:1", "oci://x:1"}, []string{"x", "x:2"}},
		"no transports": {"glob = '**'", []string{"x"}, []string{"dir:x", "dir:5000/x", "oci-archive:5000/x", "docker-daemon:x", "docker:5000/x", "ostree:x", "", "x@y"}},
		"phase":         {"image = 'x'\nphases = ['deploy', 'clean']", []string{"x"}, nil},
		"other phase":   {"image = 'x'\nphases = ['deploy']", nil, []string{"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := mustLoad(t, "", "[[allow]]\nname = 'n'\n"+tc.rule+"\n")
			for _, image := range tc.yes {
				d := one(t, cfg, nil, generic(image, "--privileged"))
				assert.Contains(t, d.Entry, "careen.toml:1 n")
				assert.Equal(t, []string{"--rm", "--network=host"}, d.RunOptions, "a rule without options locks them")
				assert.Len(t, d.Warnings, 1)
			}
			for _, image := range tc.not {
				_, err := cfg.Resolve(nil, generic(image, nil))
				require.Error(t, err, image)
			}
		})
	}
}

func TestRulesPermitOptions(t *testing.T) {
	cfg := mustLoad(t, "[container]\nallowed_containers = listed\n", `
[[allow]]
image = 'tool'
run_options = ['--privileged', '-v /dev:/dev', '-e FW=*', '--env=URL=**', '--volume=/srv/*:/srv:ro']
timeout = '5m'

[[allow]]
image = 'tool'
run_options = ['--memory=1g']

[[allow]]
image = 'listed'
run_options = ['--privileged']

[[allow]]
image = 'none'
run_options = []
`)
	for options, ok := range map[string]bool{
		"--privileged":                               true,
		"--privileged=true -v=/dev:/dev":             true,
		"--volume /dev:/dev --rm --network=host":     true, // the usual ones are no harm
		"-e FW=1.2":                                  true,
		"-e FW=a,b":                                  false, // * stops at separators
		"-e URL=http://x/y,z":                        true,
		"-v /srv/a:/srv:ro":                          true,
		"-v /srv/a/b:/srv:ro":                        false,
		"-v /srv/a:/etc:rw,x:/srv:ro":                false,
		"--memory=1g":                                true,
		"--memory=1g --privileged":                   false, // no rule has both
		"--memory=2g":                                false,
		"-v /:/host":                                 false,
		"--privileged -v /dev:/dev --entrypoint=/sh": false,
		"--network=none":                             false,
		"--privileged evil":                          false,
		"--what":                                     false,
		"--":                                         false,
	} {
		ds, err := cfg.Resolve(nil, generic("tool", options))
		if !ok {
			requireFault(t, err, fault.Policy)
			continue
		}
		require.NoError(t, err, options)
		assert.Equal(t, strings.Fields(options), ds[0].RunOptions)
	}
	assert.Equal(t, 5*time.Minute, one(t, cfg, nil, generic("tool", nil)).Timeout)
	assert.Equal(t, []string{"--rm", "--network=host"}, one(t, cfg, nil, generic("tool", nil)).RunOptions)

	// IPA would drop the options of a listed image; where a rule says which ones
	// may be given, others are refused instead of dropped.
	assert.Equal(t, []string{"--privileged"}, one(t, cfg, nil, generic("listed", "--privileged")).RunOptions)
	_, err := cfg.Resolve(nil, generic("listed", "--privileged -v /:/h"))
	requireFault(t, err, fault.Policy, "--volume=/:/h")
	_, err = cfg.Resolve(nil, generic("none", "--privileged"))
	requireFault(t, err, fault.Policy)
	one(t, cfg, nil, generic("none", "--rm"))

	// Values that may be secrets stay out of the message.
	_, err = cfg.Resolve(nil, generic("listed", "-e TOKEN=hunter2"))
	requireFault(t, err, fault.Policy, "--env=TOKEN=***")
	assert.NotContains(t, err.Error(), "hunter2")

	// Pull options are locked where a rule lists run options only.
	d := one(t, cfg, nil, steps.Request{Step: steps.GenericStep, Args: map[string]any{
		"container_url": "tool", "run_options": "--privileged", "pull_options": "--tls-verify=false",
	}})
	assert.Empty(t, d.PullOptions)
	assert.Len(t, d.Warnings, 1)
}

// A pattern is about the file that it seems to be about: what stands for * cannot
// lead out of its directory.
func TestRulesAreNotLedAstray(t *testing.T) {
	cfg := mustLoad(t, "", `
[[allow]]
image = 'tool'
run_options = ['-v /srv/*:/data', '-v /opt/**:/opt', '-v /var/../etc:/etc', '--device=/dev/*', '-e REL=*', '-e URL=**']
`)
	for options, ok := range map[string]bool{
		"-v /srv/a:/data":             true,
		"-v /srv/..a:/data":           true,
		"-v /srv/a..b:/data":          true,
		"-v /srv/..:/data":            false, // all of the node
		"-v /srv/.:/data":             false,
		"-v /srv/:/data":              false,
		"-v /opt/a/b:/opt":            true,
		"-v /opt/a/../../etc:/opt":    false,
		"-v /opt/..:/opt":             false,
		"-v /opt/:/opt":               false,
		"-v /opt//:/opt":              false,
		"-v /opt/.:/opt":              false,
		"--device=/dev/sda":           true,
		"--device=/dev/..":            false,
		"--device /dev/../proc/kcore": false,
		"-v /var/../etc:/etc":         true, // written out
		"-e REL=1..2":                 true,
		"-e URL=http://x/a":           true,
		"-e URL=http://x/a/../b":      false, // rather too few than too many
		"-e REL=":                     true,
	} {
		_, err := cfg.Resolve(nil, generic("tool", options))
		if ok {
			require.NoError(t, err, options)
		} else {
			requireFault(t, err, fault.Policy, "is not permitted by")
		}
	}
}

func TestRulesAndCommands(t *testing.T) {
	cfg := mustLoad(t, "", "local_policy = 'enforce'\n[[allow]]\nimage = 'a'\n[[allow]]\nimage = 'b'\ncommand = true\n")
	req := steps.Request{Image: "a", Command: []string{"sh"}, Local: true}
	_, err := cfg.Resolve(nil, req)
	requireFault(t, err, fault.Policy, "does not permit another command")
	req.Image = "b"
	assert.Equal(t, []string{"sh"}, one(t, cfg, nil, req).Command)
}

func TestRulesAreShown(t *testing.T) {
	cfg := mustLoad(t, "", "\n[[allow]]\nname = 'fw'\nglob = 'r/*'\nphases = ['clean']\nrun_options = ['--rm']\ncommand = true\n")
	all := cfg.InForce()
	last := all[len(all)-1]
	assert.Equal(t, "allow", last.Key)
	assert.Equal(t, `name="fw" glob="r/*" phases="clean" run_options="--rm" command=true`, last.Value)
	assert.Contains(t, last.From, "careen.toml:2")
}
