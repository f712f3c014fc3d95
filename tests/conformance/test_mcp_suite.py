"""The MCP conformance suite finds the same of a server behind a guard as of the bare one, and stops nobody for it."""

from __future__ import annotations

from pathlib import Path

from harness.live_server import ServerFixture
from harness.patience import eventually
from harness.prepared import PreparedServer
from tests.conformance.everything import everything
from tests.conformance.mcp_suite import Results, compare, listing


def statuses(results: Results) -> dict[str, list[tuple[str, str]]]:
    """Without the words of a failure, which may name a port or an agent."""
    return {name: [check[:2] for check in checks] for name, checks in results.items()}


async def test_the_mcp_suite_has_the_same_results_for_a_guarded_and_a_bare_server(tmp_path: Path) -> None:
    catalogue = await listing(everything())
    with PreparedServer(tmp_path / "server") as server, ServerFixture(server, tmp_path) as live_server:
        bare, guarded, agent = compare(live_server, catalogue, tmp_path, "2026-07-28")
        passed = [name for name, checks in bare.items() if all(status != "FAILURE" for _, status, _ in checks)]
        assert len(passed) >= 38
        assert statuses(guarded) == statuses(bare)
        eventually(lambda: live_server.api("GET", "/watch")["behind"] == 0)
        assert live_server.api("GET", f"/agents/{agent}")["state"] == "active"
        assert live_server.api("GET", "/findings")["findings"] == []
        assert live_server.api("GET", "/incidents")["incidents"] == []
        assert [entry for entry in live_server.entries(action="tool.call") if entry["outcome"] == "deny"] == []
