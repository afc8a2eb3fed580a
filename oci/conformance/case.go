package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Case is one file of oci/testdata/conformance/cases: an option set and what the
// real podman 4.3.1 made of it. Its README says how it was taken and normalised.
type Case struct {
	Name       string              `json:"name"`
	RunOptions string              `json:"run_options"`
	Flags      []string            `json:"flags"`
	Command    []string            `json:"command"`
	Image      string              `json:"image"`
	Config     CaseImage           `json:"image_config"`
	HostEnv    map[string]string   `json:"host_env"`
	Devices    map[string]string   `json:"host_devices"`
	Mounts     map[string][]string `json:"host_mounts"`
	CgroupHost string              `json:"cgroup_host"`
	Expect     map[string]any      `json:"expect"`
	ExpectV2   map[string]any      `json:"expect_cgroup2"`
}

// CaseImage is the image of a case.
type CaseImage struct {
	Entrypoint []string          `json:"entrypoint"`
	Cmd        []string          `json:"cmd"`
	Env        []string          `json:"env"`
	WorkDir    string            `json:"workdir"`
	User       string            `json:"user"`
	StopSignal string            `json:"stop_signal"`
	Labels     map[string]string `json:"labels"`
	Volumes    []string          `json:"volumes"`
	Files      map[string]string `json:"files"`
	Dirs       []string          `json:"dirs"`
	Symlinks   map[string]string `json:"symlinks"`
}

// Load reads all cases of a directory that holds cases/ and fixtures/. fixtures and scratch
// replace the corpus's words for its directories.
func Load(dir, fixtures, scratch string) ([]Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, "cases", "*.json"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("there are no cases in %s: %w", dir, errors.Join(err, fs.ErrNotExist))
	}
	var cases []Case
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		text := strings.NewReplacer("@FIX@", fixtures, "@TMP@", scratch).Replace(string(content))
		var c Case
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// Wanted returns what podman made of the case with a cgroup version ("v1" or "v2"), nil
// where the corpus does not say. The result is the caller's.
func (c Case) Wanted(version string) map[string]any {
	want := any(c.Expect)
	switch {
	case version == c.CgroupHost:
	case version == "v2" && c.ExpectV2 != nil:
		want = MergePatch(want, c.ExpectV2)
	case version == "v1":
		return nil
	}
	content, _ := json.Marshal(want)
	var out map[string]any
	_ = json.Unmarshal(content, &out)
	return out
}

// Networks returns what to put before the options of a case that names no network,
// because careen's default is the node's network: a private namespace, which is what a
// podman bridge is to a container, and none.
func (c Case) Networks(bridge string) []string {
	dns := false
	for _, flag := range c.Flags {
		if strings.HasPrefix(flag, "--net") {
			return []string{""}
		}
		dns = dns || strings.HasPrefix(flag, "--dns")
	}
	if dns {
		return []string{"--network=ns:" + bridge}
	}
	return []string{"--network=ns:" + bridge, "--network=none"}
}

// Image returns the image as its registry would have it.
func (i CaseImage) Image() ocispec.Image {
	config := ocispec.ImageConfig{
		Entrypoint: i.Entrypoint, Cmd: i.Cmd, Env: i.Env, WorkingDir: i.WorkDir, User: i.User, Labels: i.Labels,
		StopSignal: i.StopSignal,
	}
	for _, volume := range i.Volumes {
		if config.Volumes == nil {
			config.Volumes = make(map[string]struct{})
		}
		config.Volumes[volume] = struct{}{}
	}
	return ocispec.Image{Config: config}
}
