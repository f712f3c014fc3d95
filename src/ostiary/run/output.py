"""Output of `ostiary run` on standard error: a line for each call, and a summary."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx2
from rich.markup import escape

from ostiary import ambient
from ostiary.catalogue_advisor.suggest import count_in_words
from ostiary.cli.names import Names
from ostiary.cli.output import err
from ostiary.protocol.errors import Refused
from ostiary.run.configs import Server
from ostiary.run.egress import EGRESS_SERVER
from ostiary.run.enlist import Place
from ostiary.run.events import Called, Event, Listener, Trouble
from ostiary.run.gate import stored_mode

POLL_S = 0.1
_AGENT = re.compile(r"`(ag_[0-9a-f]{32})`")


class RunOutput:
    """The output of one run of an agent on standard error."""

    def __init__(self, agent: str, *, quiet: bool) -> None:
        self._agent, self._quiet = agent, quiet
        self._counts = Counter[str]()
        self._servers_seen = set[str]()
        self._began = ambient.now()

    def print_line(self, markup: str) -> None:
        """Print a line of markup, unless the run is quiet (`--quiet`)."""
        if not self._quiet:
            err.print(f"[dim]ostiary[/] {markup}")

    def warn(self, text: str) -> None:
        """Print a warning, even if the run is quiet (`--quiet`)."""
        err.print(f"[bold red]ostiary[/] {escape(text)}")

    @contextmanager
    def print_events(self, listener: Listener, names: Names, *, task: str | None) -> Iterator[None]:
        """Print the events of the proxies during this block, in a separate thread."""
        ended = threading.Event()

        def follow() -> None:
            is_last = False
            while not is_last:
                is_last = ended.wait(POLL_S)
                while (event := listener.next()) is not None:
                    self._show(event, names, task)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            listener.close()

    def _show(self, event: Event, names: Names, task: str | None) -> None:
        self._servers_seen.add(event.server)
        if isinstance(event, Trouble):
            self.warn(f"{event.server}: {event.text}")
            return
        self._counts[_outcome(event)] += 1
        if event.verdict == "undecided" and event.passed:
            self._counts["blind"] += 1
        owner = _name(names, event.owner)
        verdict = {"allow": "[green]allow[/]", "deny": "[red]deny[/]", "undecided": "[yellow]undecided[/]"}[
            event.verdict
        ]
        if event.verdict == "deny" and event.passed:
            verdict = "[yellow]would be denied[/]"
        elif event.verdict == "undecided":
            verdict = "[yellow]passed undecided[/]" if event.passed else "[red]denied undecided[/]"
        reason = _AGENT.sub(lambda id: f"`{_name(names, id[1])}`", event.why or "")
        why = f"[dim]{escape(reason)}[/]" if reason else ""
        call = escape(f"{event.server}/{event.tool}  {owner}  {task or 'standing task'}")
        self.print_line(f"{verdict} {call}  {why}".rstrip())

    def summary(self, place: Place, servers: Sequence[Server]) -> None:
        """Print the number of calls by outcome, and the next command to run."""
        counts = self._counts
        calls = sum(counts[name] for name in ("allowed", "would be denied", "denied", "undecided"))
        parts = [
            f"{counts[name]} {name}" for name in ("allowed", "would be denied", "denied", "undecided") if counts[name]
        ]
        self.print_line(
            f"{count_in_words(calls)} of `{escape(self._agent)}`" + (f": {', '.join(parts)}" if parts else "")
        )
        if EGRESS_SERVER in servers and EGRESS_SERVER.name not in self._servers_seen:
            self.print_line(
                "no request reached the egress proxy: docs/how-to/egress.md#programs names programs that ignore it"
            )
        if counts["blind"]:
            blind = count_in_words(counts["blind"])
            self.warn(f"{blind} passed without a decision; recorded in the spool until the server answers")
        if counts["would be denied"]:
            self.print_line(f"next: ostiary suggest {escape(self._agent)} --since {_span(ambient.now() - self._began)}")
        elif calls and any(stored_mode(place.mode(server)) == "watch" for server in servers):
            self.print_line(f"next: ostiary enforce {escape(self._agent)}")


def _outcome(event: Called) -> str:
    if event.verdict == "undecided":
        return "undecided" if event.passed else "denied"
    if event.verdict == "allow":
        return "allowed"
    return "would be denied" if event.passed else "denied"


def _name(names: Names, owner: str) -> str:
    """Return the name of an owner; the id if the server does not answer, and `?` for an unknown owner."""
    try:
        return names(owner) if owner else "?"
    except (Refused, httpx2.HTTPError):
        return owner


def _span(micros: int) -> str:
    """Return a span in whole minutes that is longer than the duration, such as `5m`."""
    return f"{micros // 60_000_000 + 1}m"
