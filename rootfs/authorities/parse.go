package authorities

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Parse reads certificates: any number in PEM, with any text between them, or in DER,
// one after the other. It returns the readable ones together with an error for the
// others. No certificate at all is an error. Errors have no fault code.
func Parse(data []byte) ([]*x509.Certificate, error) {
	if !strings.Contains(string(data), "-----BEGIN ") {
		certs, err := x509.ParseCertificates(data)
		if err != nil || len(certs) == 0 {
			return nil, errors.New("no certificate in it, neither PEM nor DER")
		}
		return certs, nil
	}
	var (
		certs []*x509.Certificate
		bad   int
		first error
	)
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			bad++
			first = errors.Join(first, err)
			continue
		}
		certs = append(certs, cert)
	}
	switch {
	case bad > 0:
		if u, ok := first.(interface{ Unwrap() []error }); ok {
			first = u.Unwrap()[0]
		}
		return certs, fmt.Errorf("%d of %d certificates cannot be read: %w", bad, bad+len(certs), first)
	case len(certs) == 0:
		return nil, errors.New("no certificate in it")
	}
	return certs, nil
}

const (
	// kernelOption names a source on the kernel's command line: the path of a file or
	// directory, or a certificate in base64. It may occur up to maxKernel times.
	kernelOption = "careen.ca="
	maxKernel    = 16
)

// FromKernel returns the sources that a kernel's command line names.
func FromKernel(cmdline string) []Source {
	var sources []Source
	for _, word := range kernelWords(cmdline) {
		value, ok := strings.CutPrefix(word, kernelOption)
		if !ok || len(sources) == maxKernel {
			continue
		}
		s := Source{From: "kernel command line"}
		switch {
		case strings.HasPrefix(value, "/"): // a certificate in base64 never starts with a slash
			s.Path = value
		default:
			s.Data, s.err = decode(value)
		}
		sources = append(sources, s)
	}
	return sources
}

// kernelWords splits a command line as the kernel does: blanks separate words except
// between double quotes, and the words after "--" are for the first process only.
func kernelWords(cmdline string) []string {
	var words []string
	var word strings.Builder
	quoted, started := false, false
	end := func() bool {
		if !started {
			return true
		}
		words = append(words, word.String())
		word.Reset()
		started = false
		return words[len(words)-1] != "--"
	}
	for _, r := range cmdline {
		switch {
		case r == '"':
			quoted, started = !quoted, true
		case !quoted && (r == ' ' || r == '\t' || r == '\n'):
			if !end() {
				return words[:len(words)-1]
			}
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if !end() {
		return words[:len(words)-1]
	}
	return words
}

// decode reads base64 in the standard or the URL alphabet, with or without padding: some
// boot loaders do not accept all characters.
func decode(value string) ([]byte, error) {
	value = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(value, "="))
	data, err := base64.RawStdEncoding.DecodeString(value)
	if err != nil || len(data) == 0 {
		return nil, errors.New("neither the path of a file nor base64")
	}
	return data, nil
}
