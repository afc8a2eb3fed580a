package httpd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/careen-project/careen/agent"
	"github.com/careen-project/careen/agent/agenttest"
	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/httpd"
)

// document is openapi.yaml as maps.
type document struct {
	root map[string]any
}

func loadDocument(t *testing.T) document {
	data, err := os.ReadFile("openapi.yaml")
	require.NoError(t, err)
	var root map[string]any
	require.NoError(t, yaml.Unmarshal(data, &root))
	// JSON's types throughout, so that examples compare with answers.
	text, err := json.Marshal(root)
	require.NoError(t, err)
	root = nil
	require.NoError(t, json.Unmarshal(text, &root))
	return document{root}
}

// at follows a path of member names; absent is nil.
func at(v any, names ...string) any {
	for _, name := range names {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func object(v any, names ...string) map[string]any {
	m, _ := at(v, names...).(map[string]any)
	return m
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// deref follows $ref.
func (d document) deref(v any) map[string]any {
	m, _ := v.(map[string]any)
	for {
		ref, ok := m["$ref"].(string)
		if !ok {
			return m
		}
		m = object(d.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
}

// check says what in v is not as schema has it.
func (d document) check(schema any, v any, path string) []string {
	s := d.deref(schema)
	var bad []string
	if one := list(s["oneOf"]); len(one) > 0 && !slices.ContainsFunc(one, func(alternative any) bool {
		return len(d.check(alternative, v, path)) == 0
	}) {
		bad = append(bad, path+" is none of the alternatives")
	}
	for _, part := range list(s["allOf"]) {
		bad = append(bad, d.check(part, v, path)...)
	}
	text, _ := v.(string)
	if least, ok := s["minLength"].(float64); ok && len(text) < int(least) {
		bad = append(bad, path+" is too short")
	}
	if most, ok := s["maxLength"].(float64); ok && len(text) > int(most) {
		bad = append(bad, path+" is too long")
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		bad = append(bad, fmt.Sprintf("%s is %v", path, v))
	}
	if pattern, ok := s["pattern"].(string); ok {
		if !regexp.MustCompile(pattern).MatchString(text) {
			bad = append(bad, fmt.Sprintf("%s is %q", path, v))
		}
	}
	m, isObject := v.(map[string]any)
	if isObject {
		bad = append(bad, d.checkObject(s, m, path)...)
	}
	switch s["type"] {
	case "object":
		if !isObject {
			return append(bad, fmt.Sprintf("%s is no object: %v", path, v))
		}
	case "array":
		if _, ok := v.([]any); !ok {
			return append(bad, fmt.Sprintf("%s is no list: %v", path, v))
		}
		for i, item := range list(v) {
			bad = append(bad, d.check(s["items"], item, fmt.Sprintf("%s[%d]", path, i))...)
		}
	case "string", "boolean", "integer", "null":
		kinds := map[any]string{"string": "string", "boolean": "bool", "integer": "float64", "null": "<nil>"}
		if got := fmt.Sprintf("%T", v); got != kinds[s["type"]] {
			bad = append(bad, fmt.Sprintf("%s is a %s, not a %s", path, got, s["type"]))
		}
	}
	return bad
}

func (d document) checkObject(s, m map[string]any, path string) (bad []string) {
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := m[name.(string)]; !ok {
			bad = append(bad, fmt.Sprintf("%s lacks %v", path, name))
		}
	}
	props := object(s, "properties")
	for name, value := range m {
		prop, known := props[name]
		switch extra := s["additionalProperties"].(type) {
		case bool:
			if !known && !extra {
				bad = append(bad, fmt.Sprintf("%s has %s, which is not described", path, name))
			}
		case map[string]any:
			if !known {
				prop, known = extra, true
			}
		}
		if known {
			bad = append(bad, d.check(prop, value, path+"."+name)...)
		}
	}
	return bad
}

func TestOpenAPIDescribesEveryRoute(t *testing.T) {
	d := loadDocument(t)
	described := map[string]bool{}
	for path, item := range object(d.root, "paths") {
		for method := range object(item) {
			if method != "parameters" {
				described[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	for _, rt := range httpd.Routes() {
		path := strings.Replace(rt.Path, "...}", "}", 1)
		key := rt.Method + " " + path
		require.True(t, described[key], "%s is not described", key)
		delete(described, key)
		op := object(d.root, "paths", path, strings.ToLower(rt.Method))
		require.NotEmpty(t, op["operationId"], key)
		require.NotEmpty(t, op["summary"], key)
		var query []string
		params, _ := op["parameters"].([]any)
		for _, p := range params {
			if p := d.deref(p); p["in"] == "query" {
				query = append(query, p["name"].(string))
			}
		}
		require.ElementsMatch(t, rt.Query, query, "the parameters of %s", key)
	}
	require.Empty(t, described, "described, but not there")
}

func TestOpenAPIDescribesEveryType(t *testing.T) {
	d := loadDocument(t)
	schemas := object(d.root, "components", "schemas")
	for _, v := range []any{
		api.RunRequest{}, api.TerminalSize{}, api.Run{}, api.Outcome{}, api.PullProgress{}, api.LayerProgress{},
		api.Event{}, api.LogLine{}, api.AbortRequest{}, api.PullRequest{}, api.Pull{}, api.Image{}, api.Config{},
		api.Setting{}, api.Step{}, api.Arg{}, api.Version{}, api.Health{}, api.Check{}, api.AuditRecord{},
		api.AuditContainer{}, api.Problem{},
	} {
		rt := reflect.TypeOf(v)
		schema := object(schemas, rt.Name())
		require.NotNil(t, schema, rt.Name())
		props := maps.Clone(object(schema, "properties"))
		required, _ := schema["required"].([]any)
		for i := range rt.NumField() {
			name, opts, _ := strings.Cut(rt.Field(i).Tag.Get("json"), ",")
			prop := object(props, name)
			require.NotNil(t, prop, "%s.%s is not described", rt.Name(), name)
			require.NotEmpty(t, prop["description"], "%s.%s has no description", rt.Name(), name)
			if rt.Name() != "AuditContainer" && rt.Name() != "TerminalSize" && !strings.HasSuffix(rt.Name(), "Request") {
				require.Equal(t, opts == "", slices.Contains(required, any(name)), "whether %s.%s is required", rt.Name(), name)
			}
			delete(props, name)
		}
		require.Empty(t, props, "%s has no such members", rt.Name())
	}
}

// replayer sends what the document says and compares what comes back.
type replayer struct {
	document
	*rig
	examples int
}

// TestOpenAPIExamples sends every example of the document, and for operations
// without a body the request that its parameters' examples make.
func TestOpenAPIExamples(t *testing.T) {
	rg := exampleRig(t, newConfig(t))
	r := &replayer{document: loadDocument(t), rig: rg}
	paths := object(r.root, "paths")
	// What ends or removes things comes last.
	last := map[string]bool{"abortRun": true, "deleteRun": true, "removeImage": true, "cancelPull": true}
	for _, late := range []bool{false, true} {
		for _, path := range slices.Sorted(maps.Keys(paths)) {
			for method, op := range object(paths, path) {
				if method != "parameters" && last[object(op)["operationId"].(string)] == late {
					r.operation(t, strings.ToUpper(method), path, object(op))
				}
			}
		}
	}
	require.GreaterOrEqual(t, r.examples, 29)
}

// exampleRig has what the examples speak of.
func exampleRig(t *testing.T, cfg agent.Config) *rig {
	cfg.Version = api.Version{Version: "1", APIVersion: "1", Containerd: "c", Libcontainer: "l", Spec: "s", Go: "g", Platform: "p"}
	rg := start(t, cfg)
	rg.runner.Script = func(image string) (agenttest.Script, error) {
		switch image {
		case "registry.example/firmware:7":
			image = "out=checksum mismatch/run=0s/exit=3"
		case "registry.example/tool:1":
			image = "run=forever"
		}
		return agenttest.ParseScript(image)
	}
	rg.runner.AddImage(api.Image{Name: "registry.example/old:1", Digest: "sha256:feed", ID: "sha256:beef", Platform: "linux/amd64"})
	rg.submit(t, api.RunRequest{ID: "flash-7", Image: "registry.example/firmware:7"}, api.Failed)
	rg.submit(t, api.RunRequest{ID: "running", Image: "registry.example/tool:1", Stdin: true}, api.Running)
	return rg
}

func (r *replayer) operation(t *testing.T, method, path string, op map[string]any) {
	params, _ := op["parameters"].([]any)
	shared, _ := at(r.root, "paths", path, "parameters").([]any)
	target, header := r.target(t, path, append(shared, params...), op["operationId"].(string))
	bodies := object(op, "requestBody", "content", "application/json", "examples")
	if bodies == nil {
		r.send(t, method, path, target, header, nil, "", op)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(bodies)) {
		body, err := json.Marshal(at(bodies, name, "value"))
		require.NoError(t, err)
		if !slices.Contains([]string{"unknown", "both"}, name) {
			schema := at(op, "requestBody", "content", "application/json", "schema")
			require.Empty(t, r.check(schema, at(bodies, name, "value"), name), "%s %s", method, path)
		}
		r.send(t, method, path, target, header, body, name, op)
	}
}

// target fills in parameters with their examples.
func (r *replayer) target(t *testing.T, path string, params []any, id string) (string, http.Header) {
	header := http.Header{}
	var query []string
	for _, p := range params {
		p := r.deref(p)
		example, ok := p["example"]
		if !ok {
			continue
		}
		text := fmt.Sprint(example)
		switch p["in"] {
		case "path":
			switch id {
			case "abortRun", "writeStdin", "resizeTerminal":
				text = "running"
			case "getPull", "cancelPull":
				pull, err := r.StartPull(t.Context(), &api.PullRequest{Image: "pull=1h"}, root)
				require.NoError(t, err)
				text = pull.ID
			}
			path = strings.Replace(path, "{"+p["name"].(string)+"}", text, 1)
		case "query":
			if len(list(example)) > 0 { // style form, not exploded
				text = strings.Join(strings.Fields(strings.Trim(text, "[]")), ",")
			}
			query = append(query, p["name"].(string)+"="+text)
		case "header":
			header.Set(p["name"].(string), text)
		}
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	return path, header
}

func (r *replayer) send(t *testing.T, method, path, target string, header http.Header, body []byte, name string, op map[string]any) {
	r.examples++
	w := httptest.NewRecorder()
	req := httptest.NewRequest(method, target, bytes.NewReader(body))
	req.Header = header
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	r.Handler().ServeHTTP(w, req.WithContext(httpd.WithPeer(t.Context(), root)))
	what := fmt.Sprintf("%s %s %s: %d %s", method, target, name, w.Code, w.Body)
	resp := r.deref(object(op, "responses")[strconv.Itoa(w.Code)])
	require.NotNil(t, resp, "not a described answer: %s", what)
	content := object(resp, "content")
	if content == nil {
		require.Empty(t, w.Body.String(), what)
		return
	}
	media, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
	require.Contains(t, content, media, what)
	if !strings.HasSuffix(media, "json") || strings.Contains(media, "ndjson") {
		require.Less(t, w.Code, 300, what)
		return
	}
	var got any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got), what)
	require.Empty(t, r.check(at(content, media, "schema"), got, "answer"), what)
	examples := object(content, media, "examples")
	if name != "" {
		require.Contains(t, examples, name, "no example of the answer to %s", what)
	} else {
		require.Less(t, w.Code, 300, what)
	}
	for n, example := range examples {
		if value := at(example, "value"); name == "" || n == name {
			require.Empty(t, r.check(at(content, media, "schema"), value, n), what)
			requireLike(t, value, got, n)
		}
	}
}

// requireLike compares the members of an example that are the same each time.
func requireLike(t *testing.T, example, got any, what string) {
	t.Helper()
	for _, name := range []string{"code", "status", "field", "detail", "holder", "ready", "step", "phase", "image", "abortable", "exit_code", "log_tail"} {
		if want, ok := object(example)[name]; ok {
			require.Equal(t, want, object(got)[name], "%s: %s", what, name)
		}
	}
	if want := object(example, "outcome"); want != nil {
		require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(object(got, "outcome"))), what)
		for _, name := range []string{"code", "exit_code", "log_tail", "remedy"} {
			require.Equal(t, want[name], object(got, "outcome")[name], what)
		}
	}
}
