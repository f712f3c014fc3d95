"""The present list of a server's tools, compared with the definitions that the owner approved: calls of a tool whose
definition changed are denied.

Every component that sees an answer to `tools/list` reports the answer (`Listing.store_definitions`): the proxy of
`ostiary run`, the middleware of MCP servers. In the process of an adapter, two tools may have the same name; therefore
an adapter states the definition of the tool with each call (`says`). The comparison is skipped for a tool without a
definition in the catalogue, and for a tool that no answer has listed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ostiary.authorization.catalogue import MAX_TOOLS, definition_of
from ostiary.decision import access
from ostiary.protocol.errors import Malformed

MAX_LISTED = 4 * MAX_TOOLS
"""Maximum number of tool names that are stored. Beyond that, each tool that is not stored counts as changed."""
AMBIGUOUS = "?"
"""digest of an ambiguous tool: a name that two tools have in one answer, or a tool without a digest"""

Says = Callable[[], Mapping[str, Any]] | None
"""Function that returns the present definition of a tool, as a member of `tools` in a response to `tools/list`.
None: the definition that `Listing.store_definitions` stored is compared.
"""


class Listing:
    """The definitions of tools that the tool server gave in `tools/list`, as digests. Thread-safe."""

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._now: dict[str, str] = {}
        self._is_full = False

    def knows(self, tool: str) -> bool:
        """Return whether the tool server has listed a tool of this name in `tools/list` since the guard started."""
        return tool in self._now

    def store_definitions(self, tools: Iterable[Mapping[str, Any]] | None) -> None:
        """Store the definitions in `tools`, the member of a response to `tools/list`, as the agent gets them. None: the
        response was unreadable, and all approved tools count as changed. Raises nothing.
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
        """Return `decision`; or, if the definition of the tool differs from the approved definition, a denial. Raises
        the errors of `says`.
        """
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
