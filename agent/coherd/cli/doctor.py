"""`coherd doctor`: find what is wrong with this host's agent, and say what to do about it.

The agent looks at itself. Where none answers, what can be seen from here is looked at: the settings, the
socket, and whether an agent runs at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coherd.cli.connection import (
    ADDRESS_VARIABLE,
    connect,
    find,
    local_option,
    why_unreachable,
)
from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import Json, count_of, escaped, mark, output_option, print_json, say
from coherd.config import Address, ConfigProblems, load
from coherd.errors import RpcFailed

if TYPE_CHECKING:
    from coherd.cluster.findings import Finding
    from coherd.config import AgentConfig, UnixSocket

TIMEOUT = 30.0
"""Seconds that the agent is given; it needs some eight where much is wrong."""


@click.command()
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The agent's settings: checked too, and they say where the agent is.",
)
@output_option("text", "json")
@local_option
@click.pass_context
def doctor(ctx: click.Context, *, file: Path | None, as_json: bool, local: str | None) -> None:
    """Find what is wrong, and say what to do about it.

    Exit code 0: all is well. 3: there are warnings. 1: there are errors. 4: no agent answers; then what
    can be seen from here is looked at.
    """
    findings, config = checked(file)
    if config and local is None and file is not None and ADDRESS_VARIABLE not in os.environ:
        local = str(config.local[0])
    try:
        findings += ask(local)
        code = code_of(findings)
    except RpcFailed as error:
        if not (reason := why_unreachable(find(local))):
            raise
        findings += unanswered(find(local), reason, config)
        code = ExitCode.DENIED if error.code == "PERMISSION_DENIED" else ExitCode.UNREACHABLE
    if as_json:
        print_json({"findings": [json_of(finding) for finding in findings]})
    else:
        for line in lines_of(findings):
            say(line)
    if code:
        ctx.exit(code)


def ask(local: str | None) -> list[Finding]:
    """Have the agent look at itself. Raises CallFailed."""
    from rich.console import Console

    from coherd.cluster.findings import Finding, Severity

    with connect(local) as connection, Console(stderr=True).status("looking at everything …"):
        from coherd.v1 import admin_service_pb2 as pb

        answer = connection.admin.Diagnose(pb.DiagnoseRequest(), timeout=TIMEOUT)
    worst = max(Severity)
    return [
        Finding(f.subject, f.name, Severity(min(f.severity, worst) or worst), f.text, f.remedy)
        for f in answer.findings
    ]


def code_of(findings: Iterable[Finding]) -> ExitCode:
    """Give the exit code that the worst finding asks for."""
    from coherd.cluster.findings import Severity

    codes = {
        Severity.OK: ExitCode.DONE,
        Severity.WARNING: ExitCode.PARTIAL,
        Severity.ERROR: ExitCode.FAILED,
    }
    return codes[max((finding.severity for finding in findings), default=Severity.OK)]


def checked(file: Path | None) -> tuple[list[Finding], AgentConfig | None]:
    """Look at the settings, with the variables: as the agent would find them."""
    from coherd.cluster.findings import broken, fine

    name = "" if file is None else str(file)
    try:
        config = load(file, os.environ, {})
    except ConfigProblems as error:
        remedy = "correct it; `coherd config check FILE` looks again"
        return [broken("config", name, problem, remedy) for problem in error.problems], None
    return ([] if file is None else [fine("config", name, f"agent {config.name}")]), config


def unanswered(
    address: Address | UnixSocket, reason: str, config: AgentConfig | None
) -> Iterator[Finding]:
    """Say what can be seen from here where no agent answers."""
    from coherd.cluster.findings import broken, fine
    from coherd.cluster.host_checks import check_sockets, holder_of

    start = "start it with `coherd agent --config FILE`, or say where it is with --local"
    if isinstance(address, Address):
        yield broken("agent", str(address), f"nobody answers ({reason})", start)
    elif not os.path.lexists(address.path):
        too = "" if Path(address.path).parent.is_dir() else ", and so is its directory"
        yield broken("agent", str(address), f"the socket is missing{too}", start)
    else:
        yield from check_sockets([address])
        stale = "left over from an agent that was killed" if "refused" in reason else reason
        yield broken("agent", str(address), f"nobody listens at the socket ({stale})", start)
    if config is None:
        return
    if holder := holder_of(config.data_dir):
        remedy = "see its log; if its `local` is another address, say so with --local"
        yield broken("process", str(config.data_dir), f"{holder} runs, and does not answer", remedy)
    else:
        yield fine("process", str(config.data_dir), "no agent holds the data directory")


def lines_of(findings: Sequence[Finding]) -> Iterator[str]:
    """Give a table grouped by subject, each remedy below what it mends, and a last line with the sum."""
    colors = {"ok": "green", "warning": "yellow", "error": "red"}
    wide = max(len(finding.subject) for finding in findings)
    wide_name = max(len(escaped(finding.name)) for finding in findings)
    words = [finding.severity.name.lower() for finding in findings]
    before = ""
    for finding, word in zip(findings, words, strict=True):
        subject = "" if finding.subject == before else escaped(finding.subject)
        before = finding.subject
        state = mark(f"{word:7}", colors[word])
        yield f"{subject:{wide}}  {state}  {escaped(finding.name):{wide_name}}  {escaped(finding.text)}"
        if finding.remedy:
            yield f"{'':{wide}}  {'':7}  -> {escaped(finding.remedy)}"
    yield ""
    counts = [count_of(words.count(word), word) for word in ("warning", "error") if word in words]
    yield ", ".join(counts) or mark("all is well", "green")


def json_of(finding: Finding) -> Json:
    """Give a finding for JSON."""
    return {
        "subject": finding.subject,
        "name": finding.name,
        "severity": finding.severity.name.lower(),
        "text": finding.text,
        "remedy": finding.remedy,
    }
