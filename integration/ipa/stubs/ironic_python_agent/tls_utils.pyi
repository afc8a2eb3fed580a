from typing import NamedTuple

class TlsCertificate(NamedTuple):
    text: str
    path: str
    private_key_path: str

def _generate_tls_certificate(
    output: str, private_key_output: str, common_name: str, ip_address: str, valid_for_days: int = ...
) -> str: ...
