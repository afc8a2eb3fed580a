package trust

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/opencontainers/go-digest"
)

// payloadType is what cosign and podman call what they sign.
const payloadType = "cosign container image signature"

// payload is what a signature says: this manifest is this image.
type payload struct {
	digest   digest.Digest
	identity string
}

// parsePayload reads it as strictly as podman does: a payload that another reader could
// take for something else is not accepted, even with a good signature.
func parsePayload(data []byte) (*payload, error) {
	var critical, optional, image, identity json.RawMessage
	if err := members(data, map[string]any{"critical": &critical, "optional": &optional}); err != nil {
		return nil, err
	}
	if err := checkOptional(optional); err != nil {
		return nil, fmt.Errorf(`"optional": %w`, err)
	}
	var kind, sum string
	err := members(critical, map[string]any{"type": &kind, "image": &image, "identity": &identity})
	if err != nil {
		return nil, fmt.Errorf(`"critical": %w`, err)
	}
	if kind != payloadType {
		return nil, fmt.Errorf("it has the type %q", kind)
	}
	p := &payload{}
	if err := members(image, map[string]any{"docker-manifest-digest": &sum}); err != nil {
		return nil, fmt.Errorf(`"image": %w`, err)
	}
	if p.digest, err = digest.Parse(sum); err != nil {
		return nil, fmt.Errorf("its digest %q: %w", sum, err)
	}
	if err := members(identity, map[string]any{"docker-reference": &p.identity}); err != nil {
		return nil, fmt.Errorf(`"identity": %w`, err)
	}
	return p, nil
}

// checkOptional takes anything but a creator or time that are none. cosign writes null
// where there is nothing to say.
func checkOptional(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	var creator string
	var timestamp float64
	err := object(data, func(name string) any {
		switch name {
		case "creator":
			return &creator
		case "timestamp":
			return &timestamp
		default:
			return new(json.RawMessage)
		}
	})
	if err == nil && (timestamp != math.Trunc(timestamp) || math.Abs(timestamp) >= 1<<63) {
		err = fmt.Errorf("the timestamp %v is no whole number of seconds", timestamp)
	}
	return err
}
