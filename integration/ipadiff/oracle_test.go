package ipadiff

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// oracle is the Python process that runs the real IPA.
type oracle struct {
	python string
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
	cmd    *exec.Cmd
	// stepsFile is where the process keeps the steps file of a request.
	stepsFile string
}

// question is one line to the oracle; see oracle.py.
type question struct {
	Op       string            `json:"op"`
	File     *string           `json:"file"`
	Env      map[string]string `json:"env,omitempty"`
	Override json.RawMessage   `json:"override,omitempty"`
	YAML     *string           `json:"yaml,omitempty"`
	Phase    string            `json:"phase,omitempty"`
	Step     string            `json:"step,omitempty"`
	Args     json.RawMessage   `json:"args,omitempty"`
	URL      json.RawMessage   `json:"url,omitempty"`
	Pull     json.RawMessage   `json:"pull,omitempty"`
	Run      json.RawMessage   `json:"run,omitempty"`
	Trusted  bool              `json:"trusted"`
	Value    json.RawMessage   `json:"value,omitempty"`
}

// answer is what IPA does.
type answer struct {
	OK    json.RawMessage `json:"ok"`
	Error string          `json:"error"`
	Text  string          `json:"text"`
	// Stage is start, lookup or step.
	Stage string `json:"stage"`
}

func (a *answer) refused() bool { return a.Error != "" }

// newOracle returns an oracle of the test's own, for two tests may run at a time. Where IPA
// is not installed the test is skipped, unless CAREEN_IPADIFF=required, as CI sets it.
func newOracle(t *testing.T) *oracle {
	t.Helper()
	o, err := startOracle()
	if err == nil {
		t.Cleanup(o.close)
		return o
	}
	if os.Getenv("CAREEN_IPADIFF") == "required" {
		t.Fatalf("the real ironic-python-agent is not there: %v", err)
	}
	t.Skipf("the real ironic-python-agent is not there, run integration/ipadiff/setup.sh: %v", err)
	return nil
}

func python() (string, error) {
	if path := os.Getenv("CAREEN_IPA_PYTHON"); path != "" {
		return path, nil
	}
	path, err := filepath.Abs("../../.cache/ipa/current/bin/python")
	if err != nil {
		return "", err
	}
	_, err = os.Stat(path)
	return path, err
}

func startOracle() (*oracle, error) {
	path, err := python()
	if err != nil {
		return nil, err
	}
	o := &oracle{python: path, cmd: exec.Command(path, "oracle.py")}
	o.cmd.Stderr = &o.stderr
	// Nothing of the caller's environment may change what IPA reads.
	o.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LANG=C.UTF-8"}
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	o.out = bufio.NewReaderSize(out, 1<<20)
	if err := o.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := o.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, o.stderr.String())
	}
	var hello struct {
		StepsFile string `json:"steps_file"`
	}
	err = json.Unmarshal(line, &hello)
	o.stepsFile = hello.StepsFile
	return o, err
}

// ask sends one question. A process that dies is a failure of the test.
func (o *oracle) ask(t require.TestingT, q question) *answer {
	line, err := json.Marshal(q)
	require.NoError(t, err)
	_, err = o.in.Write(append(line, '\n'))
	require.NoError(t, err, o.stderr.String())
	line, err = o.out.ReadBytes('\n')
	require.NoError(t, err, o.stderr.String())
	a := &answer{}
	require.NoError(t, json.Unmarshal(line, a))
	return a
}

func (o *oracle) close() {
	_ = o.in.Close() // ends the process, which removes its directory
	_ = o.cmd.Wait() // its exit code says nothing
}

var seed = flag.Uint64("ipadiff.seed", 0, "seed of the generated inputs; 0 takes the time")

func TestMain(m *testing.M) {
	flag.Parse()
	s := *seed
	if env, err := strconv.ParseUint(os.Getenv("CAREEN_IPADIFF_SEED"), 10, 64); err == nil && s == 0 {
		s = env
	}
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	*seed = s
	fmt.Printf("ipadiff: seed %d (repeat with -ipadiff.seed=%d)\n", s, s)
	set("rapid.seed", strconv.FormatUint(s, 10))
	set("rapid.nofailfile", "true")
	os.Exit(m.Run())
}

func set(name, value string) {
	if err := flag.Set(name, value); err != nil {
		panic(err)
	}
}

// settings is held from setting rapid's flags, which are the whole process's, to the
// first input, before which rapid reads them.
var settings sync.Mutex

// check holds prop for n generated inputs. CAREEN_IPADIFF_SCALE multiplies n: 0.05
// for a quick look, 20 to soak.
func check(t *testing.T, n int, prop func(*rapid.T)) {
	t.Helper()
	if scale, err := strconv.ParseFloat(os.Getenv("CAREEN_IPADIFF_SCALE"), 64); err == nil && scale > 0 {
		n = max(1, int(float64(n)*scale))
	}
	t.Logf("%d generated inputs, seed %d", n, *seed)
	settings.Lock()
	release := sync.OnceFunc(settings.Unlock)
	defer release()
	set("rapid.checks", strconv.Itoa(n))
	rapid.Check(t, func(t *rapid.T) {
		release()
		prop(t)
	})
}

// raw turns a value into JSON once, so that both sides read the same text.
func raw(t require.TestingT, v any) json.RawMessage {
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return data
}

// decode reads JSON as careen's agent does, with numbers kept as they stand.
func decode(t require.TestingT, data json.RawMessage) any {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	var v any
	require.NoError(t, d.Decode(&v))
	return v
}
