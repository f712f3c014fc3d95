"""A guard that asks the server about task memory."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.registry_fixtures import run_act
from ostiary.authorization.catalogue import Catalogue, Tool
from ostiary.decision.recall import Recall, Recalled, render_recall
from ostiary.protocol.jose import JwkSet
from ostiary.protocol.signed import parse_answer
from ostiary.provenance.origins import Memory, Part, add_parts, observe_output
from ostiaryd.feed import wire_feed
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller, Resource

URI = "https://files.example/mcp"


CATALOGUE = {
    "resource": "files",
    "tools": [
        {"name": "fetch", "effect": "read", "kinds": {"path": "object"}},
        {"name": "record", "effect": "read", "open_world": False, "kinds": {"path": "object"}},
        {"name": "delete", "effect": "destroy", "scope": "read", "kinds": {"path": "object"}},
    ],
}


@pytest.fixture
async def files(world: World) -> Resource:
    made = await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI))
    await run_act(world, lambda a: registry.set_catalogue(a, "files", Catalogue.parse(msgspec.json.encode(CATALOGUE))))
    return made


class At:
    """A guard of the files, with its copy."""

    def __init__(self, world: World, files: Resource, *, token: str = "tok_1") -> None:
        self.world, self.files, self.token = world, files, token
        self.seq, self.memory = 0, Memory(b"")

    async def ask(self, **changed: Any) -> Recalled:
        recall = Recall(call="c" * 22, token=self.token, seq=self.seq)
        return await self.send(render_recall(msgspec.structs.replace(recall, **changed)))

    async def send(self, sent: bytes, **expected: Any) -> Recalled:
        world, id = self.world, self.files.resource_id
        by = Caller(kind="guard", id=id, name="files", owner=None, scopes=frozenset({"ostiary:feed"}))
        headers = [(b"content-type", b"application/json")]
        reply = await wire_feed.memory(Call(world, "POST", "/feed/v1/memory", {}, "", headers, sent, "rq_1", by))
        assert isinstance(reply.body, bytes)
        right = {"issuer": world.config.issuer, "resource_id": id, "body": sent} | expected
        return parse_answer(reply.body, Recalled, keys=JwkSet(tuple(world.keys.public("feed").values())), **right)

    async def recall(self, *parts: Part, tool: str = "") -> None:
        answer = await self.ask(tool=tool, parts=parts)
        memory = answer.memory()
        self.memory = add_parts(self.memory, parts) if memory is None else memory
        self.seq = answer.seq

    async def observe(self, tool: Tool, output: object, **arguments: str) -> None:
        await self.recall(*observe_output(self.memory, f"files/{tool.name}", tool, arguments, output), tool=tool.name)
