"""Tries to speak with an agent by certificates that are wrong in nine ways, and shows what comes of each.

wrong.py AUTHORITY HOST:PORT, where AUTHORITY is the directory of `coherd pki init`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import trio
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from coherd.config import TlsConfig
from coherd.config.address import dialled
from coherd.identity import Identity
from coherd.net.obstacles import why_refused
from coherd.pki import Pair, issue, make_root
from coherd.pki.authority import load
from coherd.v1.peer_service_pb2 import ExchangeRequest
from coherd.v1.peer_service_pb2_grpc import PeerServiceStub
from coherd.v1.types_pb2 import Origin

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
ME = Identity.parse("spiffe://example.org/cluster/example/agent/mallory")


def altered(root: Pair, *uris: str, name: str = "", ca: bool = False) -> Pair:
    """Issue a certificate with such URIs and such a common name, or that of an authority."""
    right = issue(root, ME, NOW)
    subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else []
    builder = (
        x509.CertificateBuilder()
        .issuer_name(root.certificate.subject)
        .subject_name(x509.Name(subject))
        .public_key(right.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    return Pair(builder.sign(root.key, SHA256()), right.key)


CASES: dict[str, Callable[[Pair], Pair]] = {
    "wrong CA": lambda _root: issue(make_root("example.org", NOW), ME, NOW),
    "expired": lambda root: dated(root, -2 * HOUR, -HOUR),
    "not yet valid": lambda root: dated(root, HOUR, 2 * HOUR),
    "wrong cluster": lambda root: issue(root, ME._replace(cluster="other"), NOW),
    "no SAN": altered,
    "two SANs": lambda root: altered(root, str(ME), str(ME._replace(name="cache-2"))),
    "CN only": lambda root: altered(root, name=str(ME)),
    "CA as leaf": lambda root: altered(root, str(ME), ca=True),
    "client's used as agent": lambda root: issue(
        root, Identity.parse("spiffe://example.org/cluster/example/client/shop-1"), NOW
    ),
}


def dated(root: Pair, begin: timedelta, end: timedelta) -> Pair:
    """Issue a certificate that is valid at another time."""
    right = issue(root, ME, NOW)
    names = right.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(root.certificate.subject)
        .subject_name(right.certificate.subject)
        .public_key(right.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + begin)
        .not_valid_after(NOW + end)
        .add_extension(names.value, critical=False)
    )
    return Pair(builder.sign(root.key, SHA256()), right.key)


def outcome(target: str, roots: Path, pair: Pair, folder: Path) -> str:
    """Say in one line why an agent refuses a certificate; empty when it does not."""
    credentials = grpc.ssl_channel_credentials(roots.read_bytes(), pair.key_pem, pair.pem)
    options = [("grpc.ssl_target_name_override", ME.cluster_server_name)]
    with grpc.secure_channel(target, credentials, options) as channel:
        request = ExchangeRequest(
            cluster=ME.cluster, sender=Origin(name=ME.name, epoch=1), address="127.0.0.1:1"
        )
        try:
            PeerServiceStub(channel).Exchange(request, timeout=5)
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call):
                raise
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                return error.details() or ""
        else:
            return ""
    cert, key = folder / "wrong.pem", folder / "wrong.key"
    cert.write_bytes(pair.pem)
    key.touch(mode=0o600)
    key.write_bytes(pair.key_pem)
    obstacle = trio.run(why_refused, dialled(target), TlsConfig(roots, cert, key), ME)
    return obstacle.text if obstacle else "refused without a reason"


def main() -> None:
    """Try all of them."""
    authority, target = load(Path(sys.argv[1])), sys.argv[2]
    roots = Path(sys.argv[1]) / "ca.pem"
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        for case, make in CASES.items():
            said = outcome(target, roots, make(authority.root), Path(folder))
            refused += bool(said)
            print(f"{case:24}{'refused: ' + said if said else 'LET IN'}")
    print(f"refused: {refused} of {len(CASES)}")
    sys.exit(refused != len(CASES))


if __name__ == "__main__":
    main()
