"""A restarted IPA keeps the certificate that Ironic knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from ironic_python_agent import errors, tls_utils

from careen_ipa import certificate
from careen_ipa.manager import CareenHardwareManager


@pytest.fixture
def directory(tmp_path: Path, conf: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(certificate, "DIRECTORY", tmp_path)
    return tmp_path


def make(directory: Path, address: str, days: int = 30) -> str:
    return tls_utils._generate_tls_certificate(
        str(directory / "agent.crt"), str(directory / "agent.key"), "node", address, days
    )


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_a_valid_certificate_is_used_again(directory: Path, address: str) -> None:
    text = make(directory, address)
    found = CareenHardwareManager().generate_tls_certificate(address)
    assert found == (text, str(directory / "agent.crt"), str(directory / "agent.key"))


def refused(address: str = "192.0.2.1") -> None:
    """IPA asks the next manager, which makes a new certificate."""
    with pytest.raises(errors.IncompatibleHardwareMethodError):
        CareenHardwareManager().generate_tls_certificate(address)


def test_the_first_start_has_none(directory: Path) -> None:
    refused()


def test_another_address(directory: Path) -> None:
    make(directory, "192.0.2.2")
    refused()


def test_an_expired_certificate(directory: Path) -> None:
    make(directory, "192.0.2.1", days=0)
    refused()


def test_the_key_of_another_certificate(directory: Path) -> None:
    make(directory, "192.0.2.1")
    key = (directory / "agent.key").read_bytes()
    make(directory, "192.0.2.1")
    (directory / "agent.key").write_bytes(key)
    refused()


@pytest.mark.parametrize("name", ["agent.crt", "agent.key"])
def test_a_broken_or_absent_file(directory: Path, name: str) -> None:
    make(directory, "192.0.2.1")
    (directory / name).write_text("-----BEGIN")
    refused()
    (directory / name).unlink()
    refused()
