"""Certificates for tests: an authority, and leaves that may be wrong in every way."""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coherd.config import TlsConfig
from coherd.identity import Identity

TRUST = "example.org"
HOUR = timedelta(hours=1)
CURVE, UNKNOWN_CURVE = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030104")
"""The one of all keys here, secp256r1, and one that no library takes, prime239v1."""
Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Files(NamedTuple):
    """Where what somebody shows and believes is written."""

    ca: Path
    cert: Path
    key: Path

    @property
    def tls(self) -> TlsConfig:
        """Give them as a configuration has them."""
        return TlsConfig(self.ca, self.cert, self.key)

    @property
    def toml(self) -> str:
        """Give them as a configuration writes them."""
        return f'[tls]\nca = "{self.ca}"\ncert = "{self.cert}"\nkey = "{self.key}"\n'


def identity(label: str, cluster: str = "test", trust: str = TRUST) -> Identity:
    """Give who is called ``agent/a`` in a cluster."""
    return Identity.parse(f"spiffe://{trust}/cluster/{cluster}/{label}")


@dataclass
class Authority:
    """Issues what it is told to, right or wrong."""

    folder: Path
    name: str = "root"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        name = _name(self.name)
        self.certificate = (
            x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - HOUR)
            .not_valid_after(now + 24 * HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, SHA256())
        )
        self.path = self.folder / f"{self.name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        who: Identity,
        *,
        file: str = "",
        uris: list[str] | None = None,
        starts: timedelta = -HOUR,
        ends: timedelta = HOUR,
        is_authority: bool = False,
        for_servers: bool = True,
        common_name: str = "somebody",
        ca: Path | None = None,
        key: Key | None = None,
    ) -> Files:
        """Write a certificate and its key; `uris` None: the one that is due; `key` None: a new one."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(uri) for uri in ([str(who)] if uris is None else uris)
        ]
        names += [x509.DNSName(who.server_name), x509.DNSName(who.cluster_server_name)]
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if for_servers:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            x509.CertificateBuilder(
                self.certificate.subject,
                _name(common_name),
                key.public_key(),
                x509.random_serial_number(),
            )
            .not_valid_before(now + starts)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .sign(self.key, SHA256())
        )
        stem = file or who.label.replace("/", "-")
        cert_path, key_path = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert_path.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_path.touch(mode=0o600)
        key_path.write_bytes(pem_of(key))
        return Files(ca or self.path, cert_path, key_path)

    def odd(self, who: Identity) -> bytes:
        """Give a certificate in PEM that has one extension twice, which libraries notice late."""
        builder = x509.CertificateBuilder(
            self.certificate.subject,
            _name("odd"),
            self.key.public_key(),
            x509.random_serial_number(),
        )
        now = datetime.now(UTC)
        builder = builder.not_valid_before(now - HOUR).not_valid_after(now + HOUR)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(who))])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.18"), b"\x30\x00"),
            critical=False,
        )
        der = builder.sign(self.key, SHA256()).public_bytes(Encoding.DER)
        # The second is turned into another of the first kind; nobody has verified the signature by then.
        twice = der.replace(bytes.fromhex("0603551d12"), bytes.fromhex("0603551d11"))
        return ssl.DER_cert_to_PEM_cert(twice).encode()


def change(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes of a certificate or key that is in a file; whoever signed it did not see them so."""
    label = path.read_text().splitlines()[0].strip("-").removeprefix("BEGIN ")
    der = base64.b64decode("".join(path.read_text().splitlines()[1:-1]))
    assert old in der
    assert len(old) == len(new)
    body = base64.encodebytes(der.replace(old, new)).decode()
    path.write_text(f"-----BEGIN {label}-----\n{body}-----END {label}-----\n")


def pem_of(key: Key) -> bytes:
    """Write a key as a file has it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
