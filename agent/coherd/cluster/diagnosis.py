"""What `coherd doctor` finds out at the agent: it looks at everything that the agent needs.

All parts are looked at side by side, each for a bounded time; what takes longer is a finding too. How the
files of this host are looked at: `host_checks`.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import trio

from coherd.cluster.findings import Finding, broken, fine, warning
from coherd.cluster.host_checks import check_host
from coherd.cluster.roster import State
from coherd.config.conflicts import exposed
from coherd.config.values import brief, printable
from coherd.errors import HandlerFailed, RpcFailed
from coherd.journal import Durability
from coherd.model import Origin
from coherd.net.obstacles import Obstacle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from coherd.cluster.agent import Agent
    from coherd.cluster.delivery import HandlerState
    from coherd.cluster.roster import Member
    from coherd.config import Address, AgentConfig
    from coherd.handlers import Survey
    from coherd.net.peer import MemberInfo

PART_TIMEOUT = 8.0
"""Seconds for one part."""
OFFSET_MAX = 5.0
"""Seconds that clocks may be apart."""
ASKED_AT_ONCE = 32
DAMAGES_SHOWN_MAX = 10
NAMES_SHOWN_MAX = 10


class Diagnosis:
    """Looks at one agent, from inside."""

    def __init__(
        self,
        agent: Agent,
        *,
        host: Callable[[AgentConfig], list[Finding]] | None = check_host,
    ) -> None:
        """`host` looks at the files of this host, in a thread; None leaves them out."""
        self._agent = agent
        self._host = host
        self._limiter = trio.CapacityLimiter(ASKED_AT_ONCE)

    async def run(self) -> list[Finding]:
        """Look at everything; findings of one subject are together."""
        parts: dict[str, Callable[[], Awaitable[list[Finding]]]] = {
            "seed": self._seeds,
            "link": self._members,
            "disk": self._files,
            "handler": self._handlers,
        }
        found: dict[str, list[Finding]] = {}

        async def look(subject: str, part: Callable[[], Awaitable[list[Finding]]]) -> None:
            text = f"not done after {PART_TIMEOUT:.0f} s"
            found[subject] = [broken(subject, "", text, "see the agent's log, and try again")]
            with trio.move_on_after(PART_TIMEOUT):
                found[subject] = await part()

        async with trio.open_nursery() as nursery:
            for subject, part in parts.items():
                nursery.start_soon(look, subject, part)
        return [
            *self._readiness(),
            *found["seed"],
            *found["link"],
            *self._versions(),
            *self._security(),
            *found["disk"],
            *self._journal(),
            *found["handler"],
        ]

    def _readiness(self) -> Iterator[Finding]:
        reasons = self._agent.reasons()
        for reason in reasons:
            yield warning("ready", "", reason, "see below, or wait where it is catching up")
        if not reasons:
            yield fine("ready", "", "it can vouch for the caches of this host")

    # ------------------------------------------------------------------ seeds

    async def _seeds(self) -> list[Finding]:
        seeds = self._agent.config.join
        if not seeds:
            return [fine("seed", "", "`join` names none: this is a first agent")]
        answers: dict[Address, Origin | RpcFailed] = {}
        async with trio.open_nursery() as nursery:
            for seed in seeds:
                nursery.start_soon(self._ask_seed, seed, answers)
        me = self._me
        others = [a for a in answers.values() if a != me and not isinstance(a, RpcFailed)]
        alone = not others and not self._agent.config.join_alone
        return [await self._seed(seed, answers[seed], alone=alone) for seed in seeds]

    async def _ask_seed(self, seed: Address, answers: dict[Address, Origin | RpcFailed]) -> None:
        async with self._limiter:
            try:
                answers[seed] = await self._agent.operators.identify(str(seed))
            except RpcFailed as error:
                answers[seed] = error

    async def _seed(self, seed: Address, answer: Origin | RpcFailed, *, alone: bool) -> Finding:
        """Say what a seed answered; with `alone` no other one does."""
        name = str(seed)
        if answer == self._me:
            return fine("seed", name, "this agent itself")
        if not isinstance(answer, RpcFailed):
            return self._answered(name, answer)
        if answer.code in {
            "FAILED_PRECONDITION",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "UNAUTHENTICATED",
        }:
            text, _, remedy = answer.details.rpartition(": ")
            return broken("seed", name, f"it refuses this agent: {printable(text)}", remedy)
        obstacle = await self._agent.protection.explain(seed, None) or Obstacle(
            f"something answers there that is no agent ({answer.code.lower()})",
            "name in `join` the `listen` address of an agent",
        )
        if alone:
            return broken("seed", name, obstacle.text, obstacle.remedy)
        return warning("seed", name, obstacle.text, obstacle.remedy)

    def _answered(self, seed: str, found: Origin) -> Finding:
        if found.name == self._me.name:
            text = f"another agent is called {found.name} too"
            return broken("seed", seed, text, "choose another `name` for one of the two")
        member = self._agent.roster.members.get(found.name)
        version = f", coherd {member.info.version}" if member and member.info.version else ""
        return fine("seed", seed, f"{found.name}{version}")

    @property
    def _me(self) -> Origin:
        return Origin(self._agent.roster.me.name, self._agent.roster.me.epoch)

    # ------------------------------------------------------------------ members

    async def _members(self) -> list[Finding]:
        members = sorted(self._agent.roster.members.items())
        if not members:
            return [fine("link", "", "there are no other agents")]
        links: dict[str, Finding] = {}
        clocks: dict[str, Finding] = {}
        async with trio.open_nursery() as nursery:
            for name, member in members:
                nursery.start_soon(self._member, name, member, links, clocks)
        return [
            *(links[name] for name, _ in members),
            *(clocks[name] for name, _ in members if name in clocks),
        ]

    async def _member(
        self, name: str, member: Member, links: dict[str, Finding], clocks: dict[str, Finding]
    ) -> None:
        agent = self._agent
        if name not in agent.linking.peers:
            links[name] = self._away(name, member)
            return
        async with self._limiter:
            began = agent.clock.now()
            try:
                await agent.operators.identify(member.info.address)
            except RpcFailed as error:
                text = f"the link is open, and a question failed: {printable(str(error))}"
                links[name] = warning("link", name, text, "see the log of both agents")
                return
            trip = agent.clock.now() - began
        smoothed = agent.spreading.links[name][1].round_trip if name in agent.spreading.links else 0
        links[name] = fine("link", name, f"round trip {(smoothed or trip) * 1000:.1f} ms")
        if offset := agent.exchanging.offsets.get(name):
            middle, doubt = (offset.most + offset.least) / 2, (offset.most - offset.least) / 2
            clocks[name] = offset_of(name, middle / 1e6, doubt / 1e6)

    def _away(self, name: str, member: Member) -> Finding:
        seconds = f"{self._agent.clock.now() - member.since:.0f} s"
        if member.state is State.RESTARTING:
            return fine("link", name, f"it said {seconds} ago that it restarts")
        remedy = f"start its agent; if it will not come back: coherd forget {name}"
        if member.state is State.ALIVE:
            port = member.info.address.rpartition(":")[2]
            remedy = f"others reach it: look for a firewall that drops port {port} between the two"
        text = f"{member.info.address} is not linked; {member.state.value} for {seconds}"
        return warning("link", name, text, remedy)

    def _security(self) -> Iterator[Finding]:
        for setting, address in exposed(self._agent.config).items():
            text = f"others reach {address}: nothing is encrypted there, and nobody is asked"
            yield warning("security", setting, text, "set [tls], or a loopback address")
        credentials = self._agent.protection.credentials
        if credentials is None:
            return
        if credentials.problem:
            remedy = "correct the files; the certificate of before is used until it expires"
            yield warning("security", "tls", credentials.problem, remedy)
        text = f"{credentials.identity}, for {credentials.left / 3600:.1f} h"
        if credentials.is_due:
            yield warning("security", "tls", text, "renew it: `coherd pki renew`")
        else:
            yield fine("security", "tls", text)

    def _versions(self) -> Iterator[Finding]:
        """Compare what those run that are linked now."""
        agent = self._agent
        linked = [agent.roster.members[name].info for name in agent.roster.reachable()]
        known = [info for info in linked if info.version]  # of others it has not been heard yet
        running: dict[str, list[str]] = defaultdict(list)
        for info in (agent.roster.me, *known):
            running[version_of(info)].append(info.name)
        if len(running) == 1:
            yield fine("version", "", f"{next(iter(running))} everywhere")
            return
        texts = (f"{version}: {names_of(names)}" for version, names in sorted(running.items()))
        yield warning("version", "", "; ".join(texts), "bring all agents to one version")

    # ------------------------------------------------------------------ this host

    async def _files(self) -> list[Finding]:
        if self._host is None:
            return []
        look = partial(self._host, self._agent.config)
        return await trio.to_thread.run_sync(look, abandon_on_cancel=True)

    def _journal(self) -> Iterator[Finding]:
        journal = self._agent.journal
        if error := journal.error:
            text = f"it is closed, and invalidations are refused: {printable(error)}"
            yield broken("journal", "", text, "mend the disk, then restart the agent")
        elif journal.durability is Durability.DISK:
            yield fine("journal", "", "open; what is accepted survives a loss of power")
        else:
            yield fine(
                "journal",
                "",
                'open; what is accepted survives a crash of the agent (`durability = "disk"`: also a '
                "loss of power)",
            )
        damages = self._agent.damages
        for damage in damages[:DAMAGES_SHOWN_MAX]:
            remedy = "nothing, if it stays the only one; else replace the disk"
            yield warning("journal", "", f"it was damaged: {printable(damage)}", remedy)
        if (more := len(damages) - DAMAGES_SHOWN_MAX) > 0:
            yield warning("journal", "", f"{more:,} more damages", "replace the disk")
        if self._agent.healing:
            text = "what a loss of power or damage may have taken is not made good yet"
            yield warning("journal", "", text, "see that another agent can be reached")

    # ------------------------------------------------------------------ caches

    async def _handlers(self) -> list[Finding]:
        states = self._agent.delivery.handlers
        if not states:
            return [fine("handler", "", "none is configured")]
        found: dict[int, Finding] = {}
        async with trio.open_nursery() as nursery:
            for index, state in enumerate(states):
                nursery.start_soon(self._handler, index, state, found)
        return [found[index] for index in range(len(states))]

    async def _handler(self, index: int, state: HandlerState, found: dict[int, Finding]) -> None:
        handler = state.handler
        name = f"{handler.label} {handler.namespace}"
        if not state.connected:
            text = f"it does not answer: {printable(state.error or 'connecting')}"
            found[index] = broken("handler", name, text, "start it, or correct its `url`")
            return
        async with self._limiter:
            try:
                survey = await handler.survey()
            except HandlerFailed as error:
                text = f"its keys can't be counted: {printable(str(error))}"
                remedy = "let this user of the cache call DBSIZE and SCAN"
                found[index] = warning("handler", name, text, remedy)
                return
        found[index] = matches_of(name, survey)


def offset_of(name: str, offset: float, doubt: float) -> Finding:
    """Say how far a member's clock is from ours (seconds), give or take `doubt`."""
    way = "ahead of" if offset > 0 else "behind"
    text = f"{abs(offset):.3f} s {way} this host's, ± {doubt:.3f} s"
    if abs(offset) - doubt > OFFSET_MAX:
        return warning("clock", name, text, "set the clocks of both hosts, by NTP for example")
    return fine("clock", name, text)


def version_of(info: MemberInfo) -> str:
    """Say what an agent runs and speaks."""
    low, high = info.protocol_min, info.protocol_max
    return f"coherd {info.version}, protocol {low if low == high else f'{low} to {high}'}"


def names_of(names: list[str]) -> str:
    """Give some of many names."""
    more = len(names) - NAMES_SHOWN_MAX
    return ", ".join(sorted(names)[:NAMES_SHOWN_MAX]) + (f" and {more:,} more" if more > 0 else "")


def matches_of(name: str, survey: Survey) -> Finding:
    """Say how many real keys a handler's template matches: none is the commonest mistake of all."""
    if not survey.seen:
        return fine("handler", name, "empty")
    part = "" if survey.seen >= survey.total else f"the first {survey.seen:,} of "
    text = f"{survey.entries:,} of {part}{survey.total:,} keys match {survey.template}"
    if survey.tags:
        text += f", {survey.tags:,} are sets of tags"
    if survey.entries:
        return fine("handler", name, text)
    if survey.stranger is not None:
        example = brief(printable(survey.stranger.decode(errors="backslashreplace")))
        text += f"; e.g. `{example}` does not"
    return warning(
        "handler", name, text, "check `key` of this handler against the names in the cache"
    )
