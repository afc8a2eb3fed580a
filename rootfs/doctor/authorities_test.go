package doctor_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/careen-project/careen/rootfs/authorities"
	"github.com/careen-project/careen/rootfs/doctor"
)

// TestDoctorTrustsWhatItIsTold: an authority that careen.toml names counts for a
// registry, and one that cannot be read is a finding.
func TestDoctorTrustsWhatItIsTold(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	cert, text := certificate(t, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	file := filepath.Join(t.TempDir(), "ca.pem")
	opts := doctor.Options{
		Registries: []string{host}, Getenv: func(string) string { return "" }, BuildTime: time.Now().AddDate(1, 0, 0),
		Authorities: []authorities.Source{{Path: file, From: "careen.toml:4"}}, ClockRepair: true,
	}
	checks := doctor.Run(t.Context(), opts)
	require.Contains(t, check(t, checks, "registry "+host).Detail, "does not know")
	ca := check(t, checks, "ca")
	require.Equal(t, doctor.StatusWarning, ca.Status)
	require.Contains(t, ca.Detail, file+" (careen.toml:4): no such file or directory")
	require.Contains(t, check(t, checks, "clock").Remedy, "careen sets it from the registry's clock")

	require.NoError(t, os.WriteFile(file, text, 0o600))
	opts.ClockRepair = false
	checks = doctor.Run(t.Context(), opts)
	require.Equal(t, doctor.StatusOK, check(t, checks, "registry "+host).Status)
	require.Contains(t, check(t, checks, "ca").Detail, "1 certificate in "+file+" (careen.toml:4)")
	require.Contains(t, check(t, checks, "clock").Remedy, "[clock] repair = true")
}
