package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// object reads a JSON object in the only way that two readers cannot take differently:
// names in their exact case, each once, and none that field has no place for. field
// returns where a member's value goes, or nil for a name that must not be there.
func object(data []byte, field func(name string) any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if token, err := dec.Token(); err != nil {
		return err
	} else if token != json.Delim('{') {
		return fmt.Errorf("an object is wanted in place of %v", token)
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if seen[name] {
			return fmt.Errorf("%q is there twice", name)
		}
		seen[name] = true
		place := field(name)
		if place == nil {
			return fmt.Errorf("unknown field %q", name)
		}
		if err := dec.Decode(place); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

// members reads an object that has all of these members and no others.
func members(data []byte, places map[string]any) error {
	missing := make(map[string]bool, len(places))
	for name := range places {
		missing[name] = true
	}
	err := object(data, func(name string) any {
		delete(missing, name)
		return places[name]
	})
	if err != nil {
		return err
	}
	for name := range missing {
		return fmt.Errorf("%q is missing", name)
	}
	return nil
}

// table is an object of any names, each of which may be there once.
type table[T any] map[string]T

// UnmarshalJSON refuses a name that is there twice: of two rules one would be lost.
func (t *table[T]) UnmarshalJSON(data []byte) error {
	places := map[string]*T{}
	err := object(data, func(name string) any {
		places[name] = new(T)
		return places[name]
	})
	*t = make(table[T], len(places))
	for name, place := range places {
		(*t)[name] = *place
	}
	return err
}
