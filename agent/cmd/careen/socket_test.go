package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSocketBeforeTheCommand(t *testing.T) {
	for _, c := range []struct {
		in, rest []string
		socket   string
	}{
		{[]string{"--socket", "/s", "run", "--rm", "image"}, []string{"run", "--rm", "image"}, "/s"},
		{[]string{"--socket=/s", "ps"}, []string{"ps"}, "/s"},
		{[]string{"run", "--socket", "/s"}, []string{"run", "--socket", "/s"}, "/before"},
		{[]string{"--socket"}, []string{"--socket"}, "/before"},
		{[]string{"--help"}, []string{"--help"}, "/before"},
		{nil, nil, "/before"},
	} {
		t.Setenv("CAREEN_SOCKET", "/before")
		assert.Equal(t, c.rest, socketFirst(c.in), "%q", c.in)
		assert.Equal(t, c.socket, os.Getenv("CAREEN_SOCKET"), "%q", c.in)
	}
}
