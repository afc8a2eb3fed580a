package httpd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/careen-project/careen/agent/api"
	"github.com/careen-project/careen/agent/fault"
)

// decodeBody reads a JSON body into into. It refuses unknown and repeated members, another
// case, wrong types, trailing data and more than 1 MiB. An empty body is an empty object.
func decodeBody(w http.ResponseWriter, r *http.Request, into any) error {
	data, err := readBody(w, r)
	if err != nil {
		return err
	}
	return Decode(data, into)
}

// readBody reads a body that has to be JSON of at most 1 MiB.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
			abandonBody(w, r)
			return nil, statusError(http.StatusUnsupportedMediaType, "Content-Type",
				fmt.Sprintf("the body has to be application/json, not %q: send it with \"Content-Type: application/json\"", fault.OneLine(ct, 100)))
		}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		abandonBody(w, r)
		return nil, statusError(http.StatusRequestEntityTooLarge, "body", "it is larger than 1 MiB")
	case err != nil:
		abandonBody(w, r)
		return nil, fault.BadField("body", "it was not received: "+err.Error())
	}
	// The deadline was for the body. Later it would cancel the request's context.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return data, nil
}

// Decode reads JSON into a pointer, as strictly as the API reads bodies. The error is a
// [fault.BadRequest] with the member that is wrong in [fault.AttrField].
func Decode(data []byte, into any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	if !utf8.Valid(data) {
		return fault.BadField("body", "it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := walk(dec, "", reflect.TypeOf(into).Elem(), 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fault.BadField("body", "there is data after the JSON")
	}
	err := decodeNumbers(data, into)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		field := wrong.Field
		if field == "" {
			field = "body"
		}
		return fault.BadField(field, fmt.Sprintf("it is %s and has to be %s", article(wrong.Value), typeWords(wrong.Type)))
	}
	if err != nil {
		return fault.BadField("body", err.Error())
	}
	return nil
}

// article puts "a" or "an" before the name of a JSON type.
func article(kind string) string {
	if strings.HasPrefix(kind, "a") || strings.HasPrefix(kind, "o") {
		return "an " + kind
	}
	return "a " + kind
}

// decodeNumbers is json.Unmarshal that keeps numbers in untyped values as they are written:
// ironic-python-agent makes different words of 1.0 and 1.
func decodeNumbers(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return dec.Decode(into)
}

// walk reads one JSON value and refuses unknown and repeated members, and null where t is a
// type. t is nil for any value.
func walk(dec *json.Decoder, path string, t reflect.Type, depth int) error {
	if depth > api.MaxDepth {
		return fault.BadField(orBody(path), fmt.Sprintf("it nests deeper than %d levels", api.MaxDepth))
	}
	tok, err := dec.Token()
	if err != nil {
		return badJSON(path, err)
	}
	switch tok {
	case json.Delim('{'):
		return walkObject(dec, path, t, depth)
	case json.Delim('['):
		elem := elemType(t)
		for i := 0; dec.More(); i++ {
			if err := walk(dec, fmt.Sprintf("%s[%d]", path, i), elem, depth+1); err != nil {
				return err
			}
		}
		_, err := dec.Token()
		return badJSON(path, err)
	default:
		if depth == 0 {
			return fault.BadField("body", "it has to be a JSON object")
		}
		if tok == nil && t != nil && t.Kind() != reflect.Interface {
			return fault.BadField(orBody(path), "it is null and has to be "+typeWords(t))
		}
		return nil
	}
}

func walkObject(dec *json.Decoder, path string, t reflect.Type, depth int) error {
	fields, closed := fieldsOf(t)
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return badJSON(path, err)
		}
		name, _ := tok.(string)
		at := join(path, name)
		if seen[name] {
			return fault.BadField(orBody(at), "it is given twice")
		}
		seen[name] = true
		ft, known := fields[name]
		if closed && !known {
			return fault.BadField(orBody(at), "unknown member")
		}
		if !closed {
			ft = elemType(t)
		}
		if err := walk(dec, at, ft, depth+1); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return badJSON(path, err)
}

// fieldsOf returns the members of a struct type. closed is false for a type with any
// members.
func fieldsOf(t reflect.Type) (fields map[string]reflect.Type, closed bool) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil, false
	}
	fields = map[string]reflect.Type{}
	for f := range structFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = f.Type
	}
	return fields, true
}

func structFields(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// elemType returns the type of the elements of a list or map, nil if there is none.
func elemType(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil {
		return nil
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		return t.Elem()
	default:
		return nil
	}
}

// badJSON explains an error of the JSON decoder, nil included.
func badJSON(path string, err error) error {
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.BadField(orBody(path), "the JSON is cut short")
	case errors.As(err, &syntax):
		return fault.BadField(orBody(path), fmt.Sprintf("it is not JSON at byte %d: %v", syntax.Offset, err))
	default:
		return fault.BadField(orBody(path), err.Error())
	}
}

func orBody(path string) string {
	if path == "" {
		return "body"
	}
	return fault.OneLine(path, 200)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// typeWords returns JSON's name of a Go type.
func typeWords(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "a boolean"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	default:
		return "a number in range (" + t.Kind().String() + ")"
	}
}

func statusError(status int, field, reason string) error {
	return &fault.Error{Code: fault.BadRequest, Op: "read", Subject: field, Reason: reason,
		Attrs: map[string]any{fault.AttrField: field, fault.AttrStatus: status}}
}
