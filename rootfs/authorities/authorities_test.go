package authorities_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/careen-project/careen/rootfs/authorities"
)

// authority makes a certificate, in DER.
func authority(t testing.TB, name string) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	require.NoError(t, err)
	return der
}

func inPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestParse(t *testing.T) {
	a, b := authority(t, "a"), authority(t, "b")
	for name, c := range map[string]struct {
		data []byte
		want int
		err  string
	}{
		"PEM with words between": {append(append([]byte("first\n"), inPEM(a)...), append([]byte("second\n"), inPEM(b)...)...), 2, ""},
		"DER":                    {a, 1, ""},
		"DER behind DER":         {append(bytes.Clone(a), b...), 2, ""},
		"a key":                  {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), 0, "no certificate"},
		"nothing":                {nil, 0, "no certificate"},
		"text":                   {[]byte("not found"), 0, "neither PEM nor DER"},
		"one of two is broken":   {append(inPEM([]byte("junk")), inPEM(b)...), 1, "1 of 2 certificates cannot be read"},
	} {
		certs, err := authorities.Parse(c.data)
		require.Len(t, certs, c.want, name)
		if c.err == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, c.err, name)
		}
	}
}

func TestFromKernel(t *testing.T) {
	der := authority(t, "a")
	std := base64.StdEncoding.EncodeToString(der)
	url := base64.RawURLEncoding.EncodeToString(inPEM(der))
	got := authorities.FromKernel("ro careen.ca=/etc/ca.pem xcareen.ca=/no careen.ca=" + std + " \"careen.ca=/with blank\" careen.ca=" + url +
		" careen.ca=%% -- careen.ca=/not/ours\n")
	require.Len(t, got, 5)
	require.Equal(t, "/etc/ca.pem", got[0].Path)
	require.Equal(t, "/with blank", got[2].Path)
	bundle := authorities.New(func() []authorities.Source { return []authorities.Source{got[1], got[3], got[4]} }, nil).Bundle()
	require.Len(t, bundle.Certs, 2)
	require.Len(t, bundle.Faulty(), 1)
	require.Equal(t, "0 certificates in careen.ca= (kernel command line): neither the path of a file nor base64", bundle.Faulty()[0].String())
	require.Len(t, authorities.FromKernel(strings.Repeat("careen.ca=/x ", 100)), 16)
}

// TestStore: what changes is read again, what does not is not.
func TestStore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.pem")
	put := func(path string, data []byte) { require.NoError(t, os.WriteFile(path, data, 0o600)) }
	put(file, inPEM(authority(t, "a")))
	cas := filepath.Join(dir, "cas")
	require.NoError(t, os.Mkdir(cas, 0o700))
	sources, reads := []authorities.Source{{Path: file, From: "x"}, {Path: cas, From: "y"}, {Path: dir + "/none", From: "z"}}, 0
	s := authorities.New(func() []authorities.Source { return sources }, func(*authorities.Bundle) { reads++ })
	first := s.Bundle()
	require.Len(t, first.Certs, 1)
	require.Equal(t, "1 certificate in "+file+" (x), 0 certificates in "+cas+" (y): no *.crt and no *.pem in it, 0 certificates in "+dir+
		"/none (z): no such file or directory", first.String())
	require.Len(t, first.Faulty(), 2)
	require.Same(t, first, s.Bundle())
	require.Equal(t, 1, reads)

	put(cas+"/b.crt", inPEM(authority(t, "b")))
	put(cas+"/c.pem", authority(t, "c"))
	put(cas+"/d.key", []byte("-----BEGIN PRIVATE KEY-----"))
	require.Len(t, s.Bundle().Certs, 3)
	put(cas+"/c.pem", []byte("broken"))
	later := s.Bundle()
	require.Len(t, later.Certs, 2)
	require.ErrorContains(t, later.Findings[1].Err, "c.pem: no certificate")
	require.Equal(t, 3, reads)

	sources = sources[:1]
	put(file, make([]byte, 1<<20+1))
	require.ErrorContains(t, s.Bundle().Findings[0].Err, "larger than 1048576 bytes")
	require.NoError(t, os.Remove(file))
	require.NoError(t, unix.Mkfifo(file, 0o600))
	require.ErrorContains(t, s.Bundle().Findings[0].Err, "not a regular file")
	sources = nil
	require.Empty(t, s.Bundle().Certs)
	require.Empty(t, s.Bundle().String())
}

// FuzzParse: whatever a file holds, certificates come from it or an error.
func FuzzParse(f *testing.F) {
	der := authority(f, "seed")
	f.Add(der)
	f.Add(inPEM(der))
	f.Add(append(inPEM(der), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := authorities.Parse(data)
		if len(certs) == 0 && err == nil {
			t.Fatal("neither certificates nor an error")
		}
		for _, c := range certs {
			if c == nil || len(c.Raw) == 0 || len(c.Raw) > len(data) {
				t.Fatal("a certificate from nowhere")
			}
		}
	})
}

// FuzzFromKernel: no command line names more sources than it has options, and none of
// them is both a path and a certificate.
func FuzzFromKernel(f *testing.F) {
	f.Add("ro quiet careen.ca=/etc/ca.pem \"careen.ca=/a b\" -- careen.ca=/x")
	f.Add("careen.ca=TUlJ careen.ca= careen.ca=\"")
	f.Fuzz(func(t *testing.T, line string) {
		sources := authorities.FromKernel(line)
		if len(sources) > strings.Count(strings.ReplaceAll(line, `"`, ""), "careen.ca=") || len(sources) > 16 {
			t.Fatalf("%q: %d sources", line, len(sources))
		}
		for _, s := range sources {
			if s.Path != "" && (s.Data != nil || s.Path[0] != '/') || s.Name() == "" {
				t.Fatalf("%q: %+v", line, s)
			}
		}
	})
}
