"""Random bytes and hashes at `sys/tools`, and what they need from policies."""

from __future__ import annotations

import base64
import hashlib

from ostiaryd.ground.world import World
from tests.secrets.transit_fixtures import done, refused
from tests.secrets.vault_fixtures import VaultAgent, permit_all
from tests.support.certificate_fixtures import put_policies

TEXT = base64.b64encode(b"text").decode()


async def test_tools_make_random_bytes_and_hashes(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    first, again = [(await done(bot, "POST", "sys/tools/random", {}))["random_bytes"] for _ in range(2)]
    assert (len(base64.b64decode(first)), first != again) == (32, True)
    for path, body, count in (
        ("random/8", {"format": "hex"}, 8),
        ("random", {"bytes": "3", "format": "hex"}, 3),
        ("random/all/32768", {"format": "hex"}, 32768),
    ):
        made = (await done(bot, "PUT", f"sys/tools/{path}", body))["random_bytes"]
        assert len(bytes.fromhex(made)) == count, path
    for path, name in (("hash", "sha256"), ("hash/sha2-512", "sha512"), ("hash/sha3-384", "sha3_384")):
        made = (await done(bot, "POST", f"sys/tools/{path}", {"input": TEXT}))["sum"]
        assert made == hashlib.new(name, b"text").hexdigest(), path


async def test_wrong_requests_to_tools_are_refused(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    for status, method, path, body in (
        (400, "POST", "random/0", {}),
        (400, "POST", "random/32769", {}),
        (400, "POST", "random/x", {}),
        (400, "POST", "random", {"format": "x"}),
        (400, "POST", "hash", {"input": "%"}),
        (400, "POST", "hash", {}),
        (400, "POST", "hash/md5", {"input": TEXT}),
        (405, "GET", "random", None),
        (404, "POST", "raffle", {}),
    ):
        assert await refused(world, bot, status, method, f"sys/tools/{path}", body), path


async def test_tools_need_the_action_on_their_path(world: World, bot: VaultAgent) -> None:
    """A policy of this server names the tool; a Vault policy names the path of the request."""
    await put_policies(
        world,
        '@id("tools") permit (principal is Agent, action == Action::"use_secret_key", resource is Secret) '
        'when { resource.mount == "sys" && resource.path == "tools/hash" };'
        '@id("token") permit (principal is Agent, action == Action::"write_secret", resource is Secret) '
        'when { resource.mount == "auth" };',
    )
    await done(bot, "POST", "sys/tools/hash", {"input": TEXT})
    await refused(world, bot, 403, "POST", "sys/tools/random", {})
    child = (await bot.ask("POST", "auth/token/create", {"policies": ["default"]})).json["auth"]["client_token"]
    assert await bot.status("POST", "sys/tools/hash/sha2-224", {"input": TEXT}, token=child) == 200
    await permit_all(world)
    assert await bot.status("POST", "sys/tools/random", {}, token=child) == 403, "the policy default names only hash"
