"""The MCP conformance suite finds the same of a server behind a guard as of the bare one, and stops nobody for it."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.everything import everything
from tests.conformance.mcp_suite import Results, compare, listing
from tests.feed.house import House
from tests.patience import eventually
from tests.server import running


def statuses(results: Results) -> dict[str, list[tuple[str, str]]]:
    """Without the words of a failure, which may name a port or an agent."""
    return {name: [check[:2] for check in checks] for name, checks in results.items()}


async def test_the_suite_finds_the_same_of_a_guarded_server_as_of_the_bare_one(tmp_path: Path) -> None:
    catalogue = await listing(everything())
    with running(tmp_path / "server") as server:
        house = House(server, tmp_path)
        bare, guarded, agent = compare(house, catalogue, tmp_path, "2026-07-28")
        passed = [name for name, checks in bare.items() if all(status != "FAILURE" for _, status, _ in checks)]
        assert len(passed) >= 38
        assert statuses(guarded) == statuses(bare)
        eventually(lambda: house.api("GET", "/watch")["behind"] == 0)
        assert house.api("GET", f"/agents/{agent}")["state"] == "active"
        assert house.api("GET", "/findings")["findings"] == []
        assert house.api("GET", "/incidents")["incidents"] == []
        assert [entry for entry in house.entries(action="tool.call") if entry["outcome"] == "deny"] == []
        house.admin.close()
