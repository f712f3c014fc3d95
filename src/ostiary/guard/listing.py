"""The present listing of a server's tools, compared with the approved one: a tool that has changed silently is denied.

Every component that sees an answer to `tools/list` reports it (`note`): the proxy of `ostiary run`, the middleware of
MCP servers. An adapter, in whose process two tools may have one name, states the tool's own definition with each call
(`says`). A tool without a definition in the catalogue may have any listing, and so may a tool that was not listed here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ostiary.authorization.catalogue import MAX_TOOLS, definition_of
from ostiary.decision import access
from ostiary.protocol.errors import Malformed

MAX_LISTED = 4 * MAX_TOOLS
"""Maximum number of names that are kept; beyond that, any other tool counts as changed."""
AMBIGUOUS = "?"
"""digest of an ambiguous tool: a name that two tools have in one answer, or a tool without a digest"""

Says = Callable[[], Mapping[str, Any]] | None
"""Function that returns the present definition of a tool, as a member of `tools` in a response to `tools/list`.
None: the noted listing counts.
"""


class Listing:
    """The tools as the server lists them. Thread-safe."""

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._now: dict[str, str] = {}
        self._is_full = False

    def knows(self, tool: str) -> bool:
        """Return whether the tool was listed."""
        return tool in self._now

    def note(self, tools: Iterable[Mapping[str, Any]] | None) -> None:
        """Note the members of `tools` in a response to `tools/list`, as the agent gets them. Raises nothing.

        None: an unreadable response, after which all approved tools count as changed.
        """
        digests: dict[str, str] = {}
        for tool in tools or ():
            if isinstance(name := tool.get("name"), str):
                digest = _digest(tool)
                digests[name] = digest if digests.get(name, digest) == digest else AMBIGUOUS
        with self._writing:
            if tools is None:
                self._now, self._is_full = {"": AMBIGUOUS}, True
            for name, digest in digests.items():
                if name in self._now or len(self._now) < MAX_LISTED:
                    self._now[name] = digest
                else:
                    self._is_full = True

    def check(
        self, decision: access.Decision, ready: access.ReadyTool | None, facts: access.Facts, says: Says
    ) -> access.Decision:
        """Return the decision, or a denial instead if the tool has changed. Raises any error of `says`."""
        if ready is None or not (approved := ready.tool.definition) or not (decision.verdict or decision.asks):
            return decision
        if not (self._is_changed(ready.tool.name, approved) if says is None else _digest(says()) != approved):
            return decision
        name = facts.resource.name
        reason = access.Reason(
            "tool_changed",
            f"the definition of `{ready.tool.name}` differs from the version that its owner approved",
            f"ostiary resource diff {name} FILE shows it, ostiary resource accept {name} FILE approves it",
        )
        return access.deny(facts.resource, facts.policies, reason)

    def _is_changed(self, tool: str, approved: str) -> bool:
        now = self._now.get(tool)
        return self._is_full if now is None else now != approved


def _digest(tool: Mapping[str, Any]) -> str:
    try:
        return definition_of(tool)
    except Malformed:
        return AMBIGUOUS
