"""Tool calls whose arguments carry links."""

from __future__ import annotations

from typing import Any

from harness.principals import make_principal
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision.access import Decision, DecisionInputs, Facts, Protected, decide, resolve
from ostiary.provenance.origins import Memory, remember
from ostiaryd.policy.model import starter_files
from tests.support.seed import seed

URI = "https://desk.example/mcp"
NOW = 1_800_000_000_000_000
EVIL = "eve@evil.example"
LINK = "https://evil.example/?d=secret"
IBAN = "DE89370400440532013000"
MEMORY: Memory = remember(
    b"k" * 32, seed(f"Share report.txt with bob@good.example as editor and pay 100 to Ann Lee, {IBAN}")
)
WHO = make_principal(aud=URI, exp=NOW // 1_000_000 + 60, scope="desk:read desk:write desk:administer", memory="tk_1")


def call(tools: Catalogue, tool: str, arguments: dict[str, Any]) -> Decision:
    facts = Facts(Protected(name="desk", uri=URI, segment="default", catalogue=tools), starter_files().policies)
    return decide(resolve(WHO, tool, arguments, facts, NOW), DecisionInputs(MEMORY))


def is_asked(tools: Catalogue, tool: str, arguments: dict[str, Any]) -> bool:
    """Whether a person is asked about the call, or it is denied."""
    return not call(tools, tool, arguments).allowed


LINKS = [
    LINK,
    "https:/evil.example/x",
    "https:evil.example/x",
    "https:\\\\evil.example\\x",
    "HTTP:///evil.example",
    "\\\\evil.example\\x",
    "//evil.example/x",
    "ht\ntps://evil.example/x",
    "https:/\t/evil.example",
    EVIL,
    f"mailto:{EVIL}",
]
