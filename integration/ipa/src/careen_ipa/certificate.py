"""The TLS certificate of this boot, for an IPA that was restarted.

With automatic TLS each start of IPA makes a new self-signed certificate. Ironic compares it with the one of the
first heartbeat and answers 400 "Detected change in ramdisk provided agent_verify_ca" until its time-out, so that a
restarted IPA cannot report the end of its step. IPA gets the certificate from its hardware managers; this manager
returns the certificate in ``/run``, which is empty after a reboot.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from ironic_python_agent import tls_utils
from oslo_log import log

LOG = log.getLogger(__name__)

#: Where IPA's ``tls_utils.generate_tls_certificate`` writes the certificate and its key.
DIRECTORY = Path("/run/ironic-python-agent")


def existing(ip_address: str) -> tls_utils.TlsCertificate | None:
    """Return the certificate in :data:`DIRECTORY`, or None unless it can be used for ip_address now."""
    path, key_path = DIRECTORY / "agent.crt", DIRECTORY / "agent.key"
    try:
        text = path.read_text()
        certificate = x509.load_pem_x509_certificate(text.encode())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        reason = _unusable(certificate, ip_address)
        if certificate.public_key() != key.public_key():
            reason = "its key is another one"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound) as exc:
        reason = str(exc)
    if reason:
        LOG.warning("Cannot use the TLS certificate %s again: %s", path, reason)
        return None
    LOG.info("Using the TLS certificate %s again, which this boot's first start of IPA made", path)
    return tls_utils.TlsCertificate(text, str(path), str(key_path))


def _unusable(certificate: x509.Certificate, ip_address: str) -> str:
    """Return the reason why the certificate cannot be used, or ""."""
    now = datetime.now(timezone.utc)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        return f"it is valid from {certificate.not_valid_before_utc} to {certificate.not_valid_after_utc}"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if ipaddress.ip_address(ip_address) not in names.get_values_for_type(x509.IPAddress):
        return f"it is not for {ip_address}"
    return ""
