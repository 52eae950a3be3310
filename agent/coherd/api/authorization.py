"""Who may call what: one table of all RPCs, and the gates that keep it. What is not in it nobody may call.

A certificate that is of another cluster, that has expired or that names its holder wrongly is refused before
a request is read. Then the table says which roles may call at all, what verb that is, on which namespaces,
and by which name the caller speaks in the message: that must be the certificate's.

At doors where nobody is asked (the unix socket, loopback) everything is allowed to whoever can open them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from coherd.api.services import ADMIN, CACHE, PEER
from coherd.api.token import HEADER
from coherd.errors import CertificateRefused, RpcFailed
from coherd.grants import Verb, decide
from coherd.identity import Role
from coherd.model import EVERY_NAMESPACE
from coherd.net.certificates import holder_of
from coherd.net.credentials import TLS_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from coherd.api.auditing import Records
    from coherd.api.token import Token
    from coherd.grants import Grant
    from coherd.identity import Identity
    from coherd.net.bridge import Call
    from coherd.net.bridge_call import OnEnd
    from coherd.net.certificates import Holder


class Rule(NamedTuple):
    """What must hold for a call of one RPC."""

    roles: Collection[Role]
    """Who may call at all."""
    verb: Verb | None = None
    """What the caller must be allowed; None: nothing beyond its role."""
    namespaces: Callable[[Any], Collection[str]] = lambda _request: (EVERY_NAMESPACE,)
    """With which namespaces, all of them."""
    speaker: Callable[[Any], str] | None = None
    """In whose name the message speaks."""


NAMESPACES_MAX = 1000
"""Different namespaces of one request that are looked up: what it names is not checked before."""
AGENTS = (Role.AGENT,)
PEOPLE = (Role.CLIENT, Role.OPERATOR)
ANYBODY = tuple(Role)


def _agents(speaker: Callable[[Any], str]) -> Rule:
    return Rule(AGENTS, speaker=speaker)


def _sender(request: Any) -> str:
    return str(request.sender.name)


RULES: dict[str, Rule] = {
    f"/{service}/{name}": rule
    for service, rules in {
        PEER.full_name: {
            "Exchange": _agents(_sender),
            "Link": _agents(lambda request: str(request.open.me.name)),
            "Have": _agents(_sender),
            "Compare": _agents(_sender),
            "Fetch": _agents(_sender),
            "Applied": _agents(_sender),
            "Trace": _agents(_sender),
        },
        CACHE.full_name: {
            "Invalidate": Rule(PEOPLE, Verb.INVALIDATE, lambda r: (r.namespace,)),
            "InvalidateProgress": Rule(
                PEOPLE, Verb.INVALIDATE, lambda r: (r.invalidate.namespace,)
            ),
            "GetReceipt": Rule(PEOPLE, Verb.READ, lambda r: {dots.namespace for dots in r.dots}),
            "Watch": Rule(PEOPLE, Verb.WATCH, lambda r: tuple(r.open.namespaces)),
        },
        ADMIN.full_name: {
            "ListMembers": Rule(PEOPLE, Verb.READ),
            "GetStatus": Rule(PEOPLE, Verb.READ),
            "Diagnose": Rule(PEOPLE, Verb.READ),
            "TraceKey": Rule(PEOPLE, Verb.READ, lambda r: (r.namespace,)),
            "Join": Rule(PEOPLE, Verb.ADMIN),
            "Forget": Rule(PEOPLE, Verb.ADMIN),
            "Leave": Rule(PEOPLE, Verb.ADMIN),
        },
        "grpc.health.v1.Health": {
            "Check": Rule(ANYBODY),
            "Watch": Rule(ANYBODY),
        },
    }.items()
    for name, rule in rules.items()
}
"""By path."""
TOLD = Rule(PEOPLE, Verb.READ)
"""Of what is told over HTTP: figures of all namespaces, and how the agent is."""


class LocalGate:
    """The gate of doors where no certificate is asked for: it lets everybody through to what has a rule.

    With a token everybody who does not come over a unix socket has to carry it.
    """

    def __init__(self, token: Token | None, records: Records) -> None:
        self.asks = token is not None
        self._token = token
        self._records = records

    def identify(self, context: Any) -> None:
        """See `Gate`."""
        if self._token is None or context.peer().startswith("unix"):
            return
        metadata = dict(context.invocation_metadata() or ())
        if not self._token.is_in(metadata.get(HEADER)):
            why = (
                f"the secret of this agent's token_file is due in the header {HEADER}: the command line "
                "finds it by COHERD_TOKEN_FILE"
            )
            self._records.refused(_local(context.peer()), "", why)
            raise RpcFailed("UNAUTHENTICATED", why)

    def check(self, call: Call, request: object) -> OnEnd | None:
        """See `Gate`."""
        return self._records.let_through(_local(call.peer), _rule(call).verb, call, request)


def _local(peer: str) -> str:
    """Name somebody who has shown no certificate: by the way it came."""
    return f"local {peer}"


class Certified:
    """Whose certificates count at this agent, and what their holders may do."""

    def __init__(
        self,
        me: Callable[[], Identity],
        grants: Callable[[], Sequence[Grant]],
        wall: Callable[[], float],
    ) -> None:
        """`me()`: who this agent is; `wall()`: seconds since 1970."""
        self._me = me
        self._grants = grants
        self._wall = wall

    def holder(self, pem: bytes) -> Holder:
        """Find out who has shown a certificate. Raises CertificateRefused."""
        holder = holder_of(pem)
        holder.check(self._wall())
        me, identity = self._me(), holder.identity
        if (identity.trust, identity.cluster) != (me.trust, me.cluster):
            raise CertificateRefused(
                f"{identity} is of another cluster than this agent, {me}: ask an agent of your own"
            )
        return holder

    def why_not(self, identity: Identity, rule: Rule, request: Any = None) -> str:
        """Say why somebody may not make a request; empty when it may."""
        if identity.role not in rule.roles:
            return f"{identity} may not do what is for {' or '.join(rule.roles)} alone"
        if rule.speaker is not None and (name := rule.speaker(request)) != identity.name:
            return f"{identity} speaks in the name of {name[:80]!r}"
        if rule.verb is not None:
            namespaces = set(rule.namespaces(request)) or {EVERY_NAMESPACE}
            if len(namespaces) > NAMESPACES_MAX:
                return f"more than {NAMESPACES_MAX} namespaces in one request"
            grants = [each for each in self._grants() if each.is_for(identity, rule.verb)]
            for namespace in sorted(namespaces):
                decision = decide(grants, identity, rule.verb, namespace)
                if not decision.allowed:
                    return decision.why
        return ""


class CertificateGate:
    """The gate of doors where a certificate says who calls."""

    asks = True

    def __init__(self, certified: Certified, records: Records) -> None:
        self._certified = certified
        self._records = records

    def identify(self, context: Any) -> Holder:
        """Find out who calls. Raises RpcFailed."""
        try:
            return self._holder(context.auth_context())
        except CertificateRefused as error:
            self._records.refused(context.peer(), "", str(error))
            raise RpcFailed("UNAUTHENTICATED", str(error)) from None

    def _holder(self, shown: Mapping[str, Sequence[bytes]]) -> Holder:
        certificates = shown.get("x509_pem_cert")
        if not certificates:
            raise CertificateRefused("no certificate was shown")
        versions = [version.decode() for version in shown.get("ssl_tls_version", ())]
        if versions != [TLS_VERSION]:
            raise CertificateRefused(f"{TLS_VERSION} is due, this is {', '.join(versions)}")
        return self._certified.holder(certificates[0])

    def check(self, call: Call, request: Any) -> OnEnd | None:
        """Refuse what the caller may not do. Raises RpcFailed."""
        assert call.holder is not None
        if why := self.why_not(call, request):
            raise RpcFailed("PERMISSION_DENIED", why)
        who = str(call.holder.identity)
        return self._records.let_through(who, _rule(call).verb, call, request)

    def why_not(self, call: Call, request: Any) -> str:
        """Say why the caller may not make a request, and write it down; empty where it may."""
        assert call.holder is not None
        identity = call.holder.identity
        why = self._certified.why_not(identity, _rule(call), request)
        if why:
            self._records.refused(str(identity), call.method.name, why)
        return why


def _rule(call: Call) -> Rule:
    """Give the rule of a call. Raises RpcFailed where there is none."""
    rule = RULES.get(call.method.path)
    if rule is None:
        raise RpcFailed("PERMISSION_DENIED", f"no rule says who may call {call.method.path}")
    return rule
