"""What the small authority issues, judged by others: a verifier of certificates, and TLS itself."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from coherd.errors import CertificateRefused, InvalidRequest
from coherd.identity import Identity, Role
from coherd.net.certificates import read_holder
from coherd.pki import (
    SKEW,
    Pair,
    files,
    general_name,
    hosts_of,
    is_issued_by,
    issue,
    lifetime_of,
    make_root,
    trust_of,
)

NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
AGENT = Identity("example.org", "prod", Role.AGENT, "cache-1")
PEER = AGENT._replace(name="cache-2")
CLIENT = AGENT._replace(role=Role.CLIENT)
OPERATOR = AGENT._replace(role=Role.OPERATOR)
HOSTS = ("cache-1.internal", "10.0.0.11", "2001:db8::1")


@pytest.fixture(scope="module")
def root() -> Pair:
    return make_root("example.org", NOW)


def extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    return certificate.extensions.get_extension_for_class(kind)


def verify_server(leaf: Pair, name: str, at: datetime, *roots: Pair) -> None:
    store = Store([root.certificate for root in roots])
    verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(name))
    verifier.verify(leaf.certificate, [])


def verify_client(leaf: Pair, at: datetime, *roots: Pair) -> None:
    store = Store([root.certificate for root in roots])
    verifier = PolicyBuilder().store(store).time(at).build_client_verifier()
    verifier.verify(leaf.certificate, [])


# What is in a certificate.


def test_a_root_is_an_authority_for_leaves_alone_and_names_its_domain(root: Pair) -> None:
    certificate = root.certificate
    basic = extension(certificate, x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = extension(certificate, x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign) == (True, True)
    assert not usage.value.digital_signature
    assert "example.org" in certificate.subject.rfc4514_string()
    assert trust_of(certificate) == "example.org"
    assert certificate.not_valid_before_utc == NOW - SKEW
    assert certificate.not_valid_after_utc == NOW + timedelta(days=3650)
    assert root.key.curve.name == "secp256r1"
    with pytest.raises(CertificateRefused, match="authority"):
        read_holder(certificate)


def test_two_roots_of_a_domain_have_different_names() -> None:
    one, other = (make_root("example.org", NOW).certificate for _ in range(2))
    assert one.subject != other.subject


@pytest.mark.parametrize("trust", ["", "Example.org", "a/b", "x" * 256])
def test_what_is_no_trust_domain_is_refused(trust: str) -> None:
    with pytest.raises(InvalidRequest, match="no trust domain"):
        make_root(trust, NOW)


def test_a_long_domain_and_a_long_name_are_no_trouble() -> None:
    root = make_root("x" * 255, NOW)
    who = Identity("x" * 255, "c" * 128, Role.AGENT, "n" * 128)
    leaf = issue(root, who, NOW)
    verify_server(leaf, who.server_name, NOW, root)
    assert read_holder(leaf.certificate).identity == who


@pytest.mark.parametrize("who", [AGENT, CLIENT, OPERATOR], ids=lambda who: who.label)
def test_a_leaf_says_who_holds_it_and_what_for(root: Pair, who: Identity) -> None:
    leaf = issue(root, who, NOW)
    certificate = leaf.certificate
    assert read_holder(certificate).identity == who
    basic = extension(certificate, x509.BasicConstraints)
    assert (basic.critical, basic.value.ca) == (True, False)
    usage = extension(certificate, x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    is_agent = who.role is Role.AGENT
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * is_agent + [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == purposes
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(who)]
    own = [who.server_name, who.cluster_server_name] if is_agent else []
    assert names.get_values_for_type(x509.DNSName) == own
    assert len(names) == 1 + len(own)
    assert certificate.not_valid_before_utc == NOW - SKEW
    assert certificate.not_valid_after_utc == NOW + timedelta(hours=24)
    root_id = extension(root.certificate, x509.SubjectKeyIdentifier).value.digest
    assert extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier == root_id
    own_id = x509.SubjectKeyIdentifier.from_public_key(leaf.key.public_key())
    assert extension(certificate, x509.SubjectKeyIdentifier).value == own_id
    assert leaf.key.curve.name == "secp256r1"


def test_a_leaf_is_valid_from_a_little_earlier_and_ends_with_its_root() -> None:
    root = make_root("example.org", NOW, 10 * HOUR)
    leaf = issue(root, AGENT, NOW + HOUR, 5 * HOUR).certificate
    assert leaf.not_valid_before_utc == NOW + HOUR - SKEW
    assert leaf.not_valid_after_utc == NOW + 6 * HOUR
    assert lifetime_of(leaf, root.certificate) == 5 * HOUR
    leaf = issue(root, AGENT, NOW + 6 * HOUR, 5 * HOUR).certificate
    assert leaf.not_valid_after_utc == root.certificate.not_valid_after_utc
    assert lifetime_of(leaf, root.certificate) is None
    with pytest.raises(CertificateRefused, match="UTC: set the clock"):
        issue(root, AGENT, NOW - HOUR)
    with pytest.raises(CertificateRefused, match=r"the root expired .*--next"):
        issue(root, AGENT, NOW + 10 * HOUR)


def test_a_root_issues_to_its_own_domain_alone(root: Pair) -> None:
    with pytest.raises(InvalidRequest, match="another domain"):
        issue(root, AGENT._replace(trust="example.com"), NOW)


def test_hosts_are_named_and_found_again(root: Pair) -> None:
    leaf = issue(root, AGENT, NOW, hosts=[*HOSTS, "CACHE-1.internal", "[2001:db8::1]"])
    assert hosts_of(leaf.certificate, AGENT) == HOSTS
    verify_server(leaf, HOSTS[0], NOW, root)
    assert hosts_of(issue(root, AGENT, NOW).certificate, AGENT) == ()


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*.example.org",
        "a:4373",
        "10.0.0.256",
        "a..b",
        "x" * 254,
        "ä.example.org",
        f"{PEER.server_name}",
        f"{AGENT.cluster_server_name.upper()}",
    ],
)
def test_what_is_no_host_or_another_agents_own_name_is_refused(root: Pair, host: str) -> None:
    with pytest.raises(InvalidRequest):
        general_name(host)
    with pytest.raises(InvalidRequest):
        issue(root, AGENT, NOW, hosts=[host])


def test_only_agents_have_hosts(root: Pair) -> None:
    with pytest.raises(InvalidRequest, match="only agents"):
        issue(root, CLIENT, NOW, hosts=["a"])
    with pytest.raises(InvalidRequest, match="101 hosts"):
        issue(root, AGENT, NOW, hosts=[f"h{n}" for n in range(101)])


# What others' verifiers say.


def test_a_verifier_takes_a_leaf_for_what_it_is_for_and_nothing_else(root: Pair) -> None:
    leaf, client = issue(root, AGENT, NOW), issue(root, CLIENT, NOW)
    for name in (AGENT.server_name, AGENT.cluster_server_name):
        verify_server(leaf, name, NOW, root)
    verify_client(leaf, NOW, root)
    verify_client(client, NOW, root)
    with pytest.raises(VerificationError):
        verify_server(leaf, PEER.server_name, NOW, root)
    with pytest.raises(VerificationError):
        verify_server(client, AGENT.server_name, NOW, root)


def test_a_verifier_refuses_another_root_and_other_times(root: Pair) -> None:
    leaf, other = issue(root, AGENT, NOW), make_root("example.org", NOW)
    verify_client(leaf, NOW, root, other)
    for roots, at in (
        ((other,), NOW),
        ((root,), NOW + timedelta(hours=24, seconds=1)),
        ((root,), NOW - SKEW - timedelta(seconds=1)),
    ):
        with pytest.raises(VerificationError):
            verify_client(leaf, at, *roots)
    assert is_issued_by(leaf.certificate, root.certificate)
    assert not is_issued_by(leaf.certificate, other.certificate)


def context(side: int, directory: Path, own: Pair, *roots: Pair) -> ssl.SSLContext:
    directory.mkdir()
    files.write_pair(directory / "own.pem", own)
    made = ssl.SSLContext(side)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    made.load_cert_chain(directory / "own.pem", directory / "own.key")
    made.load_verify_locations(cadata=b"".join(root.pem for root in roots).decode())
    return made


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[str, ...]:
    """Let the two find out who the other is; gives the URIs, that of the server first."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(sides)
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    assert not waiting
    return tuple(uri(side.getpeercert()) for side in sides)


def uri(certificate: Any) -> str:
    (found,) = (text for kind, text in certificate["subjectAltName"] if kind == "URI")
    return str(found)


def test_two_agents_know_each_other_in_tls_whoever_dials(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    root = make_root("example.org", now)
    leaves = {who: issue(root, who, now) for who in (AGENT, PEER)}
    for number, (called, calling) in enumerate(((AGENT, PEER), (PEER, AGENT))):
        server = context(ssl.PROTOCOL_TLS_SERVER, tmp_path / f"s{number}", leaves[called], root)
        client = context(ssl.PROTOCOL_TLS_CLIENT, tmp_path / f"c{number}", leaves[calling], root)
        for name in (called.server_name, called.cluster_server_name):
            assert handshake(server, client, name) == (str(called), str(calling))
        with pytest.raises(ssl.SSLCertVerificationError, match="ostname mismatch"):
            handshake(server, client, calling.server_name)


def test_tls_refuses_what_another_root_issued_what_expired_and_a_client_that_serves(
    tmp_path: Path,
) -> None:
    now = datetime.now(UTC)
    root, other = make_root("example.org", now - 48 * HOUR), make_root("example.org", now)
    good = issue(root, AGENT, now)
    wrong = {
        "unable to get local issuer": issue(other, PEER, now),
        "expired": issue(root, PEER, now - 25 * HOUR),
        "not yet valid": issue(root, PEER, now + HOUR),
    }
    sides = (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
    good_server, good_client = (context(side, tmp_path / side.name, good, root) for side in sides)
    for text, bad in wrong.items():
        server, client = (context(s, tmp_path / f"{text}{s.name}", bad, root) for s in sides)
        for one, two, name in (
            (server, good_client, PEER.server_name),
            (good_server, client, AGENT.server_name),
        ):
            with pytest.raises(ssl.SSLCertVerificationError, match=text):
                handshake(one, two, name)
    serving = issue(root, CLIENT, now)
    server = context(ssl.PROTOCOL_TLS_SERVER, tmp_path / "client", serving, root)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(server, good_client, AGENT.server_name)


def test_while_a_root_is_replaced_both_are_believed(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old, new = (make_root("example.org", now) for _ in range(2))
    one, two = issue(old, AGENT, now), issue(new, PEER, now)
    server = context(ssl.PROTOCOL_TLS_SERVER, tmp_path / "s", one, old, new)
    client = context(ssl.PROTOCOL_TLS_CLIENT, tmp_path / "c", two, old, new)
    assert handshake(server, client, AGENT.server_name) == (str(AGENT), str(PEER))


def test_grpc_takes_what_is_issued_and_refuses_what_another_root_issued() -> None:
    now = datetime.now(UTC)
    root, other = (make_root("example.org", now) for _ in range(2))
    own, client, stranger = (
        issue(root, AGENT, now),
        issue(root, CLIENT, now),
        issue(other, PEER, now),
    )
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials([(own.key_pem, own.pem)], root.pem, require_client_auth=True),
    )
    server.start()

    def status(shown: Pair, roots: bytes, name: str) -> grpc.StatusCode:
        """Call what does not exist: only who gets through is told so."""
        credentials = grpc.ssl_channel_credentials(roots, shown.key_pem, shown.pem)
        options = [("grpc.ssl_target_name_override", name)]
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/a/b")(b"", timeout=30)
            code = caught.value.code()  # type: ignore[attr-defined]
        assert isinstance(code, grpc.StatusCode)
        return code

    through, refused = grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE
    names = (AGENT.server_name, AGENT.cluster_server_name)
    try:
        assert [status(client, other.pem + root.pem, name) for name in names] == [through] * 2
        assert status(client, root.pem, PEER.server_name) is refused
        assert status(stranger, root.pem, names[0]) is refused
        assert status(client, other.pem, names[0]) is refused
    finally:
        server.stop(None).wait(5)
