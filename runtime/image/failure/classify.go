package failure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/careen-project/careen/agent/fault"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
)

// Classify turns an error of a library into a *fault.Error that an operator can act on.
// A *fault.Error stays as it is. An error of an unknown kind becomes [fault.Internal].
func Classify(err error, op, subject string) error {
	if err == nil {
		return nil
	}
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	f := &fault.Error{Op: op, Subject: subject, Err: err}
	for _, look := range []func(error, *fault.Error) bool{
		classifyContext, classifyAuth, classifyStatus, classifyTLS, classifyStorage, classifyNetwork,
	} {
		if look(err, f) {
			return f
		}
	}
	f.Code = fault.Internal
	return f
}

func classifyContext(err error, f *fault.Error) bool {
	switch {
	case errors.Is(err, ErrStalled):
		f.Code, f.Remedy = fault.Stalled, "Check the network between the node and the registry"
	case errors.Is(err, ErrTotal):
		f.Code, f.Remedy = fault.Timeout, "Check the speed of the registry, or raise the limit"
	case errors.Is(err, context.Canceled):
		f.Code, f.Reason = fault.Aborted, "the pull was cancelled"
	case errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err):
		f.Code = fault.Timeout
	default:
		return false
	}
	return true
}

const authRemedy = "Check the image's name and the credentials: --creds, --authfile or auth.json"

func classifyAuth(err error, f *fault.Error) bool {
	var token remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.As(err, &token):
		byStatus(f, token.StatusCode)
		f.Reason = fmt.Sprintf("the token server answered %s", fault.OneLine(token.Status, 100))
	case errors.Is(err, docker.ErrInvalidAuthorization):
		f.Code, f.Remedy = fault.Auth, authRemedy
	default:
		return false
	}
	return true
}

func classifyStatus(err error, f *fault.Error) bool {
	var answer *StatusError
	if errors.As(err, &answer) {
		byStatus(f, answer.Status)
		return true
	}
	if errors.Is(err, ErrAnswerTooLarge) {
		f.Code, f.Remedy = fault.Registry, "Check that the reference's host is a registry"
		return true
	}
	return false
}

func byStatus(f *fault.Error, status int) {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		f.Code, f.Remedy = fault.Auth, authRemedy
	case status == http.StatusProxyAuthRequired:
		f.Code, f.Remedy = fault.Proxy, "Put the proxy's user and password into HTTPS_PROXY"
	case status == http.StatusNotFound:
		f.Code, f.Remedy = fault.ImageNotFound, "Check the image's name and tag; some registries answer so when credentials are missing"
	case status == http.StatusTooManyRequests:
		f.Code, f.Remedy = fault.RateLimited, "Wait, pull with credentials, or set up a mirror"
	case status >= 500, status == http.StatusRequestTimeout:
		f.Code, f.Remedy = fault.Registry, "Check the registry's health and log"
	default:
		f.Code, f.Remedy = fault.Registry, "Check that the reference's host is a registry"
	}
}

func classifyTLS(err error, f *fault.Error) bool {
	var (
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		roots    x509.SystemRootsError
		record   tls.RecordHeaderError
		alert    tls.AlertError
		verify   *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		f.Code = fault.Clock
		f.Reason = "the registry's certificate is not valid at the node's clock: " + fault.OneLine(invalid.Detail, 200)
		f.Remedy = "Set the node's clock (the BMC's may be wrong), or renew the certificate"
	case errors.As(err, &unknown), errors.As(err, &roots):
		f.Code = fault.TLSCA
		f.Remedy = "Put the CA's certificate into /etc/containers/certs.d/HOST:PORT/ca.crt, or use --cert-dir"
	case errors.As(err, &hostname):
		f.Code, f.Remedy = fault.TLS, "Use a name that the certificate has, or issue it for this name"
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/", plainHTTP(err):
		f.Code, f.Reason = fault.TLS, "the registry speaks plain HTTP, not HTTPS"
		f.Remedy = "Use --tls-verify=false if that is intended, or give the registry a certificate"
	case errors.As(err, &record), errors.As(err, &alert), errors.As(err, &invalid), errors.As(err, &verify),
		strings.Contains(err.Error(), "TLS handshake timeout"), strings.Contains(err.Error(), "tls: "):
		f.Code, f.Remedy = fault.TLS, "Check the registry's TLS settings and the client certificate it may want"
	default:
		return false
	}
	return true
}

// plainHTTP recognises net/http's own error for a server that answers TLS with
// HTTP, which has no type or value of its own that is exported in all versions.
func plainHTTP(err error) bool {
	return errors.Is(err, http.ErrSchemeMismatch)
}

func classifyStorage(err error, f *fault.Error) bool {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		f.Code, f.Reason = fault.Space, "the store is full"
		f.Remedy = "Use a smaller image or a larger store"
	case errors.Is(err, syscall.ENOMEM):
		f.Code, f.Reason, f.Remedy = fault.Memory, "the node is out of memory", "Use a smaller image"
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO):
		f.Code, f.Remedy = fault.Node, "Check the file system that holds the store"
	default:
		return false
	}
	return true
}

func classifyNetwork(err error, f *fault.Error) bool {
	var (
		dns  *net.DNSError
		op   *net.OpError
		nerr net.Error
	)
	switch {
	case errors.As(err, &op) && op.Op == "proxyconnect", strings.Contains(err.Error(), "proxyconnect"):
		f.Code, f.Remedy = fault.Proxy, "Check HTTPS_PROXY, or add the registry to NO_PROXY"
	case errors.As(err, &dns):
		f.Code = fault.DNS
		f.Reason = fmt.Sprintf("the name %s does not resolve: %s", fault.OneLine(dns.Name, 100), dns.Err)
		f.Remedy = "Check the name, and the node's /etc/resolv.conf"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		f.Code, f.Reason = fault.Network, "the connection was closed in the middle"
		f.Remedy = "Check the network between the node and the registry"
	case errors.As(err, &op), errors.As(err, &nerr), isErrno(err), strings.Contains(err.Error(), "malformed HTTP"),
		strings.Contains(err.Error(), "server closed idle connection"):
		f.Code, f.Remedy = fault.Network, "Check that the registry's address and port are reachable from the node"
	default:
		return false
	}
	return true
}

func isErrno(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EHOSTUNREACH,
		syscall.ENETUNREACH, syscall.ETIMEDOUT, syscall.ECONNABORTED} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
