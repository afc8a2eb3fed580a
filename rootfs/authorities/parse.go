package authorities

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Parse reads certificates: any number in PEM, with anything between them, or in DER,
// one behind another. Those that can be read are returned beside the error; none at all
// is an error.
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
	// kernelOption is what the kernel's command line may have any number of times, up
	// to maxKernel: the path of a file or directory, or a certificate in base64.
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
		case strings.HasPrefix(value, "/"): // no certificate starts so, in base64
			s.Path = value
		default:
			s.Data, s.err = decode(value)
		}
		sources = append(sources, s)
	}
	return sources
}

// kernelWords takes a command line apart as the kernel does: blanks separate, unless
// between double quotes, and "--" ends what is not for the first process alone.
func kernelWords(cmdline string) []string {
	var words []string
	var word strings.Builder
	quoted, any := false, false
	end := func() bool {
		if !any {
			return true
		}
		words = append(words, word.String())
		word.Reset()
		any = false
		return words[len(words)-1] != "--"
	}
	for _, r := range cmdline {
		switch {
		case r == '"':
			quoted, any = !quoted, true
		case !quoted && (r == ' ' || r == '\t' || r == '\n'):
			if !end() {
				return words[:len(words)-1]
			}
		default:
			word.WriteRune(r)
			any = true
		}
	}
	if !end() {
		return words[:len(words)-1]
	}
	return words
}

// decode reads base64 of either alphabet, with or without padding: a boot loader's
// configuration may not take all characters.
func decode(value string) ([]byte, error) {
	value = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(value, "="))
	data, err := base64.RawStdEncoding.DecodeString(value)
	if err != nil || len(data) == 0 {
		return nil, errors.New("neither the path of a file nor base64")
	}
	return data, nil
}
