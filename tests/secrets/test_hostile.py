"""Hostile bodies of a caller who has logged in: no value of any member is an error of the server."""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any

from ostiaryd.ground.world import World
from ostiaryd.secrets.engines import jwt
from tests.secrets.vault_fixtures import VaultAgent, permit_all

ROUNDS = 14
"""Requests to each path."""
PLAIN = base64.b64encode(b"plain").decode()
VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "é" * 300,
    "\uffff",
    "-1",
    "1e400",
    "9" * 5000,
    "1h",
    "vault:v1:",
    "vault:v1:AAAA",
    PLAIN,
    "vault:v999999999:AAAA",
    "vault:v1:" + base64.b64encode(bytes(40)).decode(),
    "hex",
    "sha2-512",
    "ed25519",
    0,
    -1,
    1,
    2,
    2**31,
    2**53,
    2**63,
    -(2**63) - 1,
    10**400,
    0.5,
    1e308,
    [],
    {},
    [1],
    ["1", None],
    {"a": None},
    {"cas": 2**63},
    {"cas": None},
    {"plaintext": PLAIN},
    [{"plaintext": PLAIN}, 1],
    [{"ciphertext": "x", "reference": 1}],
    [{"input": PLAIN, "prehashed": True}],
    {"": ""},
    {"a" * 129: "b"},
    {"k": "\u202e"},
)
MEMBERS: dict[str, tuple[str, ...]] = {
    "secret/data/agents/bot/a": ("data", "options"),
    "secret/metadata/agents/bot/a": ("max_versions", "cas_required", "delete_version_after", "custom_metadata"),
    "secret/config": ("max_versions", "cas_required", "delete_version_after"),
    **{f"secret/{kind}/agents/bot/a": ("versions",) for kind in ("delete", "undelete", "destroy")},
    "kv/agents/bot/a": ("a", "ttl"),
    **{f"transit/keys/{name}": ("type", "derived", "exportable") for name in ("fresh", "e", "s", "m")},
    **{
        f"transit/keys/{name}/config": (
            "min_decryption_version",
            "min_encryption_version",
            "deletion_allowed",
            "auto_rotate_period",
        )
        for name in ("e", "s")
    },
    **{
        f"transit/{use}/{name}": (
            "plaintext",
            "ciphertext",
            "input",
            "signature",
            "hmac",
            "associated_data",
            "key_version",
            "batch_input",
            "hash_algorithm",
            "prehashed",
            "marshaling_algorithm",
            "signature_algorithm",
            "reference",
            "context",
        )
        for use in ("encrypt", "decrypt", "rewrap", "sign", "verify", "hmac", "sign/sha2-512")
        for name in ("e", "s", "p", "m")
    },
    "transit/datakey/plaintext/e": ("bits", "associated_data", "key_version"),
    "transit/random": ("bytes", "format"),
    "transit/random/32": ("format",),
    "transit/hash": ("input", "algorithm", "format"),
    "auth/token/renew-self": ("increment",),
    "sys/capabilities-self": ("paths", "path"),
    "auth/jwt/login": ("jwt", "role"),
    "auth/approle/login": ("role_id", "secret_id"),
    "auth/ci/config": ("jwks_url", "jwks_ca_pem", "oidc_discovery_url", "jwt_validation_pubkeys", "jwt_supported_algs"),
    "auth/ci/role/r": tuple(jwt.METHOD.role_defaults),
    "auth/ci/login": ("jwt", "role"),
}


async def test_a_random_request_body_causes_no_server_error(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    for name, kind in (("e", "aes256-gcm96"), ("s", "ed25519"), ("p", "ecdsa-p256"), ("m", "hmac")):
        assert await bot.status("POST", f"transit/keys/{name}", {"type": kind}) == 200
    assert await bot.status("POST", "sys/auth/ci", {"type": "jwt"}) == 204
    random, seen = Random("hostile"), set[int]()
    for path, members in MEMBERS.items():
        for _ in range(ROUNDS):
            chosen = random.sample(members, random.randrange(1, min(len(members), 5) + 1))
            body = json.dumps({name: random.choice(VALUES) for name in chosen}).encode()
            answer = await bot.ask(random.choice(("POST", "POST", "PATCH")), path, body)
            seen.add(answer.status)
            assert answer.status in (200, 204, 400, 404, 405), (path, body[:300], answer.body)
    assert seen >= {200, 204, 400}
