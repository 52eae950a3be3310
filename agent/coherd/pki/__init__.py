"""Certificates that a small authority issues (floor 2): for those who have none.

Functions that take the time, and touch no file: a root that names a trust domain, and what it issues to
agents, clients and operators. In which files it is kept, and how a root is replaced, is in `pki.authority`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coherd.errors import CertificateRefused, InvalidRequest
from coherd.identity import TRUST_PATTERN, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from coherd.identity import Identity

SKEW = timedelta(minutes=1)
"""How far the clock of whoever looks may be behind: a certificate is valid from so long before it is made."""
ROOT_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(hours=24)
HOSTS_MAX = 100
"""Names and addresses in one certificate."""
OWN_DOMAIN = ".coherd"
"""Under it are the names by which TLS finds out who answers (`identity`): nobody gets one but its holder."""

_DNS_NAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
_NAME_CHARACTERS_MAX = 64
"""Of a part of a subject, which is for people alone."""


class Pair(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate as a file has it."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as a file has it: without a password, for nobody is there to type one."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_root(trust: str, now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> Pair:
    """Make a root of the domain `trust`. Raises InvalidRequest."""
    if not TRUST_PATTERN.fullmatch(trust):
        raise InvalidRequest(
            f"{trust[:80]!r} is no trust domain: a-z 0-9 . _ - are due, such as example.org"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _name(trust, f"coherd root {own.digest.hex()[:8]}")  # two roots never have one name
    unsigned = (
        _begun(name, name, key, (now - SKEW, now + lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .add_extension(own, critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust}")]),
            critical=False,
        )
    )
    return Pair(unsigned.sign(key, SHA256()), key)


def issue(
    root: Pair,
    identity: Identity,
    now: datetime,
    lifetime: timedelta = LEAF_LIFETIME,
    hosts: Iterable[str] = (),
) -> Pair:
    """Issue a certificate with a new key; it ends with the root at the latest.

    `hosts`: names and addresses under which an agent is reached by programs that do not know its identity.
    Raises InvalidRequest, and CertificateRefused when the root has expired.
    """
    _check_root(root.certificate, identity, now)
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
    extra = list(dict.fromkeys(map(general_name, hosts)))
    if identity.role is Role.AGENT:
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        names += map(x509.DNSName, own_names(identity))
    elif extra:
        raise InvalidRequest(f"{identity.label}: only agents are reached at hosts; leave them out")
    if len(extra) > HOSTS_MAX:
        raise InvalidRequest(f"{len(extra)} hosts: at most {HOSTS_MAX} go into a certificate")
    begin = max(now - SKEW, root.certificate.not_valid_before_utc)
    end = min(now + lifetime, root.certificate.not_valid_after_utc)
    subject = _name(identity.trust, identity.label)
    public = key.public_key()
    unsigned = (
        _begun(root.certificate.subject, subject, key, (begin, end))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([*names, *extra]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_key_of(root.certificate), critical=False)
    )
    return Pair(unsigned.sign(root.key, SHA256()), key)


def general_name(host: str) -> x509.GeneralName:
    """Read a host as a certificate names it. Raises InvalidRequest."""
    try:
        return x509.IPAddress(ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    name = host.lower()
    if not _DNS_NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise InvalidRequest(
            f"{host[:80]!r} is no host: a DNS name or an IP address is due, without port and wildcard"
        )
    if name.endswith(OWN_DOMAIN):
        raise InvalidRequest(f"{host[:80]!r}: names that end in {OWN_DOMAIN} are coherd's own")
    return x509.DNSName(name)


def hosts_of(certificate: x509.Certificate, identity: Identity) -> tuple[str, ...]:
    """Give the hosts with which a certificate was issued to `identity`."""
    names = _alternative_names(certificate)
    if names is None:
        return ()
    own = own_names(identity)
    addresses: list[IPv4Address | IPv6Address] = [
        address
        for address in names.get_values_for_type(x509.IPAddress)
        if isinstance(address, IPv4Address | IPv6Address)
    ]
    dns = (name for name in dns_names_of(certificate) if name not in own)
    return (*dns, *map(str, addresses))


def lifetime_of(certificate: x509.Certificate, root: x509.Certificate) -> timedelta | None:
    """Give the lifetime that was asked for when `root` issued a certificate; None where the root cut it."""
    end = certificate.not_valid_after_utc
    if end >= root.not_valid_after_utc:
        return None
    return end - certificate.not_valid_before_utc - SKEW


def is_issued_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    """Tell whether the key of `root` has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def trust_of(root: x509.Certificate) -> str:
    """Give the trust domain of a root; empty where it names none."""
    uris = uris_of(root)
    trust = uris[0].removeprefix("spiffe://") if len(uris) == 1 else ""
    return trust if TRUST_PATTERN.fullmatch(trust) else ""


def uris_of(certificate: x509.Certificate) -> Sequence[str]:
    """Give the URIs among the alternative names."""
    names = _alternative_names(certificate)
    return [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)


def dns_names_of(certificate: x509.Certificate) -> Sequence[str]:
    """Give the DNS names among the alternative names."""
    names = _alternative_names(certificate)
    return [] if names is None else names.get_values_for_type(x509.DNSName)


def own_names(identity: Identity) -> tuple[str, str]:
    """Give the DNS names that the certificate of an agent needs: TLS knows of no URIs."""
    return identity.server_name, identity.cluster_server_name


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _check_root(root: x509.Certificate, identity: Identity, now: datetime) -> None:
    if (trust := trust_of(root)) != identity.trust:
        raise InvalidRequest(
            f"{identity} is of another domain than the authority, whose is {trust or 'none'}"
        )
    if now < root.not_valid_before_utc:
        raise CertificateRefused(
            f"the root is not valid before {root.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC: set the clock"
        )
    if now >= root.not_valid_after_utc:
        raise CertificateRefused(
            f"the root expired at {root.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC: replace it, "
            "`coherd pki init DIR --next` is the first step"
        )


def _begun(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    valid: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    begin, end = (moment.replace(microsecond=0) for moment in valid)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _name(trust: str, label: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, trust), (NameOID.COMMON_NAME, label))
    return x509.Name([x509.NameAttribute(o, text[:_NAME_CHARACTERS_MAX]) for o, text in parts])


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_of(root: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Say which of several roots with one name it is."""
    try:
        own = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        own = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
