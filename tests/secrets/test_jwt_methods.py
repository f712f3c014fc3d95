"""JWT methods that agents enabled: whom a token of another issuer logs in, the checks of its claims, and what ends a
role.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness.registry_fixtures import newest_entry
from ostiary.protocol import jose
from ostiaryd.ground.outbound.jwks import FRESH
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.secrets.model.backend import BackendFailed
from ostiaryd.secrets.model.jwt_login import JwtConfig, JwtRole, check_claims
from ostiaryd.secrets.wire_role_logins import JwtMethodKeys
from tests.secrets.role_fixtures import child_of, done
from tests.secrets.vault_fixtures import VaultAgent, enter_agent, permit_all
from tests.support.api_fixtures import reconfigured
from tests.support.client_site import ClientSite, serving_clients

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from harness.clock import Clock
    from ostiaryd.ground.world import World

KEY = jose.generate("ES256")
NOW = 1_800_000_000
CLAIMS = {"sub": "ci", "iat": NOW, "exp": NOW + 300}


def pem_of(key: jose.PrivateKey) -> str:
    """The public key in PEM."""
    jwk = key.public.jwk
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
    match jwk["kty"]:
        case "EC":
            x, y = (int.from_bytes(jose.unb64u(jwk[name])) for name in ("x", "y"))
            public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        case "RSA":
            n, e = (int.from_bytes(jose.unb64u(jwk[name])) for name in ("n", "e"))
            public = rsa.RSAPublicNumbers(e, n).public_key()
        case _:
            public = ed25519.Ed25519PublicKey.from_public_bytes(jose.unb64u(jwk["x"]))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def token_of(world: World, key: jose.PrivateKey = KEY, **claims: Any) -> str:
    now = world.now() // 1_000_000
    return jose.sign_jwt(key, typ="JWT", claims={"sub": "ci", "iat": now, "exp": now + 300, **claims})


async def method_of(bot: VaultAgent, *keys: jose.PrivateKey, role: dict[str, Any] | None = None, **config: Any) -> None:
    """A method at `auth/ci` with these keys, and the role `deploy`."""
    await bot.ask("POST", "sys/auth/ci", {"type": "jwt"})
    pems = [pem_of(key) for key in keys or (KEY,)]
    await done(bot, "POST", "auth/ci/config", {"jwt_validation_pubkeys": pems, **config})
    settings = {"role_type": "jwt", "user_claim": "sub", "bound_subject": "ci", **(role or {})}
    await done(bot, "POST", "auth/ci/role/deploy", settings)


async def log_in(bot: VaultAgent, jwt: str, *, role: str | None = "deploy", **more: Any) -> VaultAgent:
    worker = VaultAgent(bot.client, bot.name)
    answer = await done(worker, "POST", "auth/ci/login", {"jwt": jwt, "role": role}, **more)
    worker.token = answer["auth"]["client_token"]
    return worker


async def refusal_of(bot: VaultAgent, jwt: str, *, role: str = "deploy", **more: Any) -> str:
    """The message of a login that is refused, which leaves an entry without the token."""
    answer = await bot.ask("POST", "auth/ci/login", {"jwt": jwt, "role": role}, token="", **more)
    assert answer.status == 400, answer.body
    entry = newest_entry(bot.client.world)
    assert (entry.outcome, entry.reasons[0].code) == ("refused", "login_refused")
    assert len(jwt) < 9 or jwt not in repr(entry)
    return str(answer.json["errors"][0])


async def test_a_login_by_a_foreign_token_acts_as_the_agent_that_wrote_the_role(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    text = 'path "secret/data/agents/bot/*" { capabilities = ["create", "read"] }'
    await done(bot, "POST", "sys/policy/own", {"policy": text})
    await method_of(bot, role={"token_policies": "own", "claim_mappings": {"repo": "from", "/a/0": "first"}})
    worker = await log_in(bot, token_of(world, repo="shop", a=["x"]))
    login = newest_entry(world)
    assert (login.action, login.agent) == ("vault.login", bot.client.id)
    assert (login.detail or {}).items() >= {"role": "auth/ci/deploy", "user": "ci"}.items()
    await done(worker, "POST", "secret/data/agents/bot/x", {"data": {"a": "b"}})
    assert newest_entry(world).agent == bot.client.id
    assert await worker.status("POST", "secret/data/other", {"data": {"a": "b"}}) == 403
    shown = (await done(worker, "GET", "auth/token/lookup-self"))["data"]
    assert shown["policies"] == ["default", "own"]
    assert (shown["display_name"], shown["path"]) == ("ci-ci", "auth/ci/login")
    assert shown["meta"].items() >= {"role": "deploy", "from": "shop", "first": "x"}.items()
    assert (await done(bot, "LIST", "auth/ci/role"))["data"]["keys"] == ["deploy"]
    assert (await done(bot, "GET", "auth/ci/role/deploy"))["data"]["user_claim"] == "sub"
    written = {
        "bound_audiences": ["a"],
        "bound_claims": {"ref": ["main", "v*"]},
        "bound_claims_type": "glob",
        "claim_mappings": {"repo": "from"},
        "clock_skew_leeway": 10,
        "expiration_leeway": 300,
        "groups_claim": "groups",
        "not_before_leeway": -1,
        "role_type": "jwt",
        "user_claim": "/user/name",
        "user_claim_json_pointer": True,
        "verbose_oidc_logging": True,
    }
    await done(bot, "POST", "auth/ci/role/full", written)
    assert (await done(bot, "GET", "auth/ci/role/full"))["data"].items() >= written.items()
    await done(bot, "DELETE", "auth/ci/role/full")
    assert await refusal_of(bot, token_of(world, jose.generate("ES256"))) == (
        "error validating token: no key of the configuration verifies the signature"
    )
    for wrong in ("", "x.y.z", "ey", token_of(world)[:-8] + "A" * 8):
        await refusal_of(bot, wrong)
    assert "could not be found" in await refusal_of(bot, token_of(world), role="other")
    assert await refusal_of(bot, token_of(world), role="") == "missing role"


async def test_a_login_token_needs_a_permitted_algorithm_and_the_bound_issuer(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    keys = [KEY, jose.generate("EdDSA"), jose.generate("RS256")]
    await method_of(bot, *keys, default_role="deploy")
    for key in keys:
        await log_in(bot, token_of(world, key), role="")
        await log_in(bot, token_of(world, key), role=None)
    await method_of(bot, *keys, jwt_supported_algs="ES256,EdDSA")
    await log_in(bot, token_of(world, keys[1]))
    assert "jwt_supported_algs" in await refusal_of(bot, token_of(world, keys[2]))
    await method_of(bot, *keys, bound_issuer="https://ci.example")
    await log_in(bot, token_of(world, iss="https://ci.example"))
    for iss in ("https://ci.example/", "", None):
        assert "issuer" in await refusal_of(bot, token_of(world, iss=iss))


async def test_a_jwt_method_has_exactly_one_key_source_with_a_public_address(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await done(bot, "POST", "sys/auth/ci", {"type": "jwt"})
    pem, url = pem_of(KEY), "https://ci.example/keys"
    await done(bot, "POST", "auth/ci/config", {"jwks_url": url})
    assert (await done(bot, "GET", "auth/ci/config"))["data"]["jwks_url"] == url
    wrong: dict[str, Any]
    for wrong in (
        {},
        {"jwks_url": url, "oidc_discovery_url": url},
        {"jwks_url": url, "jwt_validation_pubkeys": [pem]},
        {"jwt_validation_pubkeys": [pem] * 17},
        {"jwt_validation_pubkeys": ["x"]},
        {"jwt_validation_pubkeys": [pem], "jwks_ca_pem": "x"},
        {"jwks_url": url, "jwks_ca_pem": "x"},
        {"jwks_url": url, "jwt_supported_algs": ["HS256"]},
        {"jwks_url": url, "jwt_supported_algs": ["none"]},
        {"jwks_url": url, "oidc_client_id": "x"},
        {"jwks_url": "http://ci.example/keys"},
        {"jwks_url": "https://127.0.0.1/keys"},
        {"jwks_url": "https://169.254.169.254/latest"},
        {"oidc_discovery_url": "https://[::1]"},
        {"jwks_url": "file:///etc/passwd"},
        {"jwks_url": f"https://ci.example/{'x' * 1000}"},
    ):
        assert await bot.status("POST", "auth/ci/config", wrong) == 400, wrong
    assert (await done(bot, "GET", "auth/ci/config"))["data"]["jwks_url"] == url
    await done(bot, "POST", "auth/ci/config", {"jwt_validation_pubkeys": [pem] * 16})
    for wrong in (
        {"bound_subject": ""},
        {"user_claim": ""},
        {"role_type": "oidc"},
        {"role_type": "saml"},
        {"oidc_scopes": ["profile"]},
        {"bound_claims": {"x": {}}},
        {"bound_claims": {"x": []}},
        {"bound_claims": {"x": [1] * 65}},
        {"bound_claims": {"x": 1}, "bound_claims_type": "glob"},
        {"bound_claims_type": "regex"},
        {"clock_skew_leeway": 3601},
        {"clock_skew_leeway": -2},
        {"claim_mappings": {"x": "role"}},
        {"claim_mappings": {"x": "a", "y": "a"}},
        {"claim_mappings": "x"},
        {"claim_mappings": ["x=a", "x=b"]},
        {"claim_mappings": ["x=a", {"y": "b"}]},
        {"token_type": "batch"},
        {"token_bound_cidrs": ["x"]},
        {"bound_audiences": ["x" * 100] * 65},
    ):
        body = {"role_type": "jwt", "user_claim": "sub", "bound_subject": "ci", **wrong}
        assert await bot.status("POST", "auth/ci/role/deploy", body) == 400, wrong
    assert await bot.status("GET", "auth/ci/role/deploy") == 404
    pairs: tuple[tuple[object, dict[str, str]], ...] = (
        ("repo=from", {"repo": "from"}),
        (["repo=from", "/a/0=x=y"], {"repo": "from", "/a/0": "x=y"}),
        ([], {}),
    )
    for sent, mappings in pairs:  # as Vault's command line sends one pair, and several
        settings = {"role_type": "jwt", "user_claim": "sub", "bound_subject": "ci", "claim_mappings": sent}
        await done(bot, "POST", "auth/ci/role/deploy", settings)
        assert (await done(bot, "GET", "auth/ci/role/deploy"))["data"]["claim_mappings"] == mappings
    for leeway in (-1, 3600, "1h"):
        settings = {"role_type": "jwt", "user_claim": "sub", "bound_subject": "ci"}
        await done(bot, "POST", "auth/ci/role/deploy", {**settings, "expiration_leeway": leeway})
    for path in ("auth/ci/config/x", "auth/ci/other", "auth/ci/oidc/auth_url"):
        assert await bot.status("POST", path, {}) == 404
    assert await bot.status("GET", "auth/ci/login") == 405


def publish_discovery(site: ClientSite) -> JwtConfig:
    """A configuration for a discovery document of a site, which names the keys at `/k`."""
    site.put("/.well-known/openid-configuration", {"issuer": site.origin, "jwks_uri": f"{site.origin}/k"})
    return JwtConfig(oidc_discovery_url=site.origin, oidc_discovery_ca_pem=Path(site.ca_file).read_text("utf-8"))


async def test_logins_at_the_same_time_fetch_the_keys_of_an_issuer_once(world: World, tmp_path: Path) -> None:
    with serving_clients(tmp_path) as site:
        config = publish_discovery(site)
        site.put("/k", {"keys": [dict(KEY.public.jwk)]})
        method_keys = JwtMethodKeys(reconfigured(world, private_hosts="127.0.0.1"))
        await asyncio.gather(*(method_keys.get("one", config, within=FRESH) for _ in range(5)))
        assert site.requested == ["/.well-known/openid-configuration", "/k"]
        site.put("/k", {}, status=500)
        for number in range(3):
            with pytest.raises(BackendFailed, match="answers 500"):
                await method_keys.get(f"other {number}", config, within=FRESH)
        assert len(method_keys._sets._locks) == len(method_keys._turns) == 0


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, {}, " answers 503 instead of 200"),
        (200, [], " is not a discovery document of the issuer https://"),
        (200, {"issuer": "https://other.example"}, " is not a discovery document of the issuer https://"),
    ],
    ids=["status", "no object", "another issuer"],
)
async def test_an_unusable_discovery_document_is_reported_with_its_cause(
    world: World, tmp_path: Path, status: int, body: object, message: str
) -> None:
    with serving_clients(tmp_path) as site:
        config = publish_discovery(site)
        site.put("/.well-known/openid-configuration", body, status=status)
        method_keys = JwtMethodKeys(reconfigured(world, private_hosts="127.0.0.1"))
        with pytest.raises(BackendFailed, match=f"/.well-known/openid-configuration{message}"):
            await method_keys.get("one", config, within=FRESH)


async def test_a_role_has_the_access_of_the_token_that_wrote_it_until_the_keys_change(
    world: World, bot: VaultAgent
) -> None:
    await permit_all(world)
    await method_of(bot)
    worker = await log_in(bot, token_of(world))
    text = 'path "auth/ci/*" { capabilities = ["create", "update", "read"] }'
    await done(bot, "POST", "sys/policy/ci", {"policy": text})
    weak, thief = await child_of(bot, policies=["ci"]), jose.generate("ES256")
    await done(weak, "POST", "auth/ci/config", {"jwt_validation_pubkeys": [pem_of(thief)]})
    assert await worker.status("GET", "auth/token/lookup-self") == 403, "its role has lost its authority"
    assert await refusal_of(bot, token_of(world, thief)) == "the authority of the role has ended"
    settings = {"role_type": "jwt", "user_claim": "sub", "bound_subject": "ci", "token_policies": "ci"}
    await done(weak, "POST", "auth/ci/role/deploy", settings)
    stolen = await log_in(bot, token_of(world, thief))
    assert await stolen.status("POST", "secret/data/x", {"data": {"a": "b"}}) == 403
    assert await weak.status("POST", "auth/ci/role/deploy", {**settings, "token_policies": "ostiary"}) == 400, (
        "no more policies than its own"
    )
    await done(bot, "POST", "auth/ci/config", {"jwt_validation_pubkeys": [pem_of(thief)]})
    await done(stolen, "GET", "auth/token/lookup-self")  # the same configuration again ends nothing


async def test_roles_and_keys_belong_to_one_agent_and_end_with_the_agent(
    world: World, app: ASGIApp, bot: VaultAgent
) -> None:
    await permit_all(world)
    await method_of(bot, default_role="deploy")
    worker = await log_in(bot, token_of(world))
    other, theirs = await (await enter_agent(world, app, "other")).login(), jose.generate("ES256")
    for path in ("config", "role/deploy"):
        assert await other.status("GET", f"auth/ci/{path}") == 404
    await done(other, "POST", "auth/ci/config", {"jwt_validation_pubkeys": [pem_of(theirs)]})
    assert "no key" in await refusal_of(bot, token_of(world, theirs))
    assert await refusal_of(bot, token_of(world), role="") == "missing role", "two agents have a configuration"
    settings = {"role_type": "jwt", "user_claim": "sub", "bound_subject": "ci"}
    taken = await other.ask("POST", "auth/ci/role/deploy", settings)
    assert (taken.status, taken.json["errors"][0]) == (400, "another role of the mount has this name")
    await done(other, "POST", "auth/ci/role/theirs", settings)
    seen = await log_in(bot, token_of(world, theirs), role="theirs")
    await done(seen, "GET", "auth/token/lookup-self")
    assert newest_entry(world).agent == other.client.id
    assert await other.status("DELETE", "auth/ci/role/deploy") == 204
    await done(worker, "GET", "auth/token/lookup-self")
    await done(bot, "DELETE", "auth/ci/role/deploy")
    assert await worker.status("GET", "auth/token/lookup-self") == 403
    await method_of(bot)
    worker = await log_in(bot, token_of(world))
    await act(world, "agent.suspend", lambda a: registry.set_agent_state(a, bot.name, Verb.SUSPEND))
    assert await worker.status("GET", "auth/token/lookup-self") == 403
    await refusal_of(bot, token_of(world))
    await done(other, "DELETE", "sys/auth/ci")
    assert await other.status("POST", "auth/ci/login", {"jwt": token_of(world, theirs), "role": "theirs"}) == 404


async def test_a_login_is_limited_to_the_addresses_and_the_first_year_of_its_role(
    world: World, bot: VaultAgent, clock: Clock
) -> None:
    await permit_all(world)
    await method_of(bot, role={"bound_subject": "", "token_bound_cidrs": "198.51.100.0/24"})
    await log_in(bot, token_of(world), address="198.51.100.9")
    assert "addresses" in await refusal_of(bot, token_of(world), address="198.51.101.9")
    clock.advance(365 * 86_400 - 1)
    await log_in(bot, token_of(world), address="198.51.100.9")
    clock.advance(1)
    assert "has ended" in await refusal_of(bot, token_of(world), address="198.51.100.9")


def admits(claims: dict[str, Any], *, now: int = NOW, **role: Any) -> bool:
    """Return whether a role admits claims at a time in seconds."""
    try:
        check_claims(msgspec.convert({"user_claim": "sub", **role}, JwtRole), claims, issuer="", now=now * 1_000_000)
    except jose.InvalidToken:
        return False
    return True


@pytest.mark.parametrize(
    ("claims", "role", "first", "last"),
    [
        (CLAIMS, {}, -60, 359),
        (CLAIMS, {"clock_skew_leeway": -1}, 0, 299),
        (CLAIMS, {"clock_skew_leeway": 10}, -10, 309),
        ({"sub": "ci", "iat": NOW}, {}, -60, 209),
        ({"sub": "ci", "iat": NOW}, {"expiration_leeway": -1}, -60, 59),
        ({"sub": "ci", "iat": NOW}, {"expiration_leeway": 5, "clock_skew_leeway": -1}, 0, 4),
        ({"sub": "ci", "exp": NOW}, {}, -210, 59),
        ({"sub": "ci", "exp": NOW}, {"not_before_leeway": 5, "clock_skew_leeway": -1}, -5, -1),
        ({"sub": "ci", "nbf": NOW, "exp": NOW + 9}, {"clock_skew_leeway": -1}, 0, 8),
        ({"sub": "ci", "iat": NOW, "nbf": NOW - 99, "exp": NOW + 9}, {"clock_skew_leeway": -1}, 0, 8),
    ],
)
def test_a_token_is_valid_from_its_start_to_its_end_with_the_leeways(
    claims: dict[str, Any], role: dict[str, Any], first: int, last: int
) -> None:
    seconds = (first - 1, first, last, last + 1)
    assert [admits(claims, now=NOW + one, **role) for one in seconds] == [False, True, True, False]


def test_a_token_with_missing_or_malformed_times_is_refused() -> None:
    for times in ({}, {"iat": "x"}, {"iat": True}, {"exp": -1}, {"exp": NOW, "iat": 10**20}, {"exp": None}):
        assert not admits({"sub": "ci", **times})


@pytest.mark.parametrize(
    ("role", "claims", "is_admitted"),
    [
        ({}, {"aud": "shop"}, False),
        ({}, {"aud": []}, True),
        ({"bound_audiences": ["shop", "x"]}, {"aud": "shop"}, True),
        ({"bound_audiences": ["shop"]}, {"aud": ["a", "shop"]}, True),
        ({"bound_audiences": ["shop"]}, {"aud": "shop2"}, False),
        ({"bound_audiences": ["shop"]}, {}, False),
        ({"bound_subject": "ci"}, {"sub": "ci2"}, False),
        ({}, {"cnf": {"jkt": "x"}}, False),
        ({"bound_claims": {"a": "x"}}, {"a": "x"}, True),
        ({"bound_claims": {"a": "x"}}, {"a": ["y", "x"]}, True),
        ({"bound_claims": {"a": ["x", "z"]}}, {"a": "z"}, True),
        ({"bound_claims": {"a": "x"}}, {"a": "X"}, False),
        ({"bound_claims": {"a": "x"}}, {}, False),
        ({"bound_claims": {"a": "x", "b": "y"}}, {"a": "x", "b": "z"}, False),
        ({"bound_claims": {"a": True}}, {"a": True}, True),
        ({"bound_claims": {"a": True}}, {"a": 1}, False),
        ({"bound_claims": {"a": 1}}, {"a": True}, False),
        ({"bound_claims": {"a": 1}}, {"a": 1.0}, True),
        ({"bound_claims": {"a": "1"}}, {"a": 1}, False),
        ({"bound_claims": {"/k8s.io/ns~1x/0": "x"}}, {"k8s.io": {"ns/x": ["x"]}}, True),
        ({"bound_claims": {"/k8s.io/1": "x"}}, {"k8s.io": ["x"]}, False),
        ({"bound_claims": {"/k8s.io/-1": "x"}}, {"k8s.io": ["x"]}, False),
        ({"bound_claims": {"a": "x*"}}, {"a": "xy"}, False),
        ({"bound_claims": {"a": "x*"}, "bound_claims_type": "glob"}, {"a": "xy"}, True),
        ({"bound_claims": {"a": "x*"}, "bound_claims_type": "glob"}, {"a": "yx"}, False),
        ({"bound_claims": {"a": "*a*b*c"}, "bound_claims_type": "glob"}, {"a": "1a2b3c"}, True),
        ({"bound_claims": {"a": "*a*b*c"}, "bound_claims_type": "glob"}, {"a": "1b2a3c"}, False),
        ({"bound_claims": {"a": "ab*ba"}, "bound_claims_type": "glob"}, {"a": "aba"}, False),
        ({"bound_claims": {"a": "x?"}, "bound_claims_type": "glob"}, {"a": "xy"}, False),
        ({"bound_claims": {"a": "*"}, "bound_claims_type": "glob"}, {"a": 1}, False),
        ({"user_claim": "who"}, {}, False),
        ({"user_claim": "who"}, {"who": 1}, False),
        ({"user_claim": "/a/who"}, {"/a/who": "x"}, True),
        ({"user_claim": "/a/who", "user_claim_json_pointer": True}, {"a": {"who": "x"}}, True),
        ({"user_claim": "/a/who", "user_claim_json_pointer": True}, {"/a/who": "x"}, False),
        ({"groups_claim": "groups"}, {"groups": ["a", "b"]}, True),
        ({"groups_claim": "groups"}, {"groups": "a"}, True),
        ({"groups_claim": "groups"}, {"groups": []}, True),
        ({"groups_claim": "groups"}, {}, False),
        ({"groups_claim": "groups"}, {"groups": ["a", 1]}, False),
        ({"groups_claim": "/a/groups"}, {"a": {"groups": ["a"]}}, True),
        ({"claim_mappings": {"a": "b"}}, {}, True),
        ({"claim_mappings": {"a": "b"}}, {"a": 1}, False),
        ({"claim_mappings": {"a": "b"}}, {"a": "x" * 1024}, True),
        ({"claim_mappings": {"a": "b"}}, {"a": "x" * 1025}, False),
    ],
)
def test_each_bound_of_a_role_admits_only_matching_claims(
    role: dict[str, Any], claims: dict[str, Any], is_admitted: bool
) -> None:
    assert admits({**CLAIMS, **claims}, **role) is is_admitted
