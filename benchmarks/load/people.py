"""People with sessions, applications that they have consented to, and the requests of the code flow."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from urllib.parse import urlencode

from msgspec.structs import replace

from benchmarks.load.agents import ASSERTION_TYPE, FILES, FORM, SECOND
from benchmarks.load.client import render
from ostiary.protocol import dpop, jose
from ostiaryd.ground.process.clock import wall_clock
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.policy import flows as policies
from ostiaryd.policy.model import load
from ostiaryd.policy.model.safeguards import extend
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentSpec
from ostiaryd.tokens.flows import consents
from ostiaryd.tokens.model.consent import LIFETIMES, Offer
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model.sessions import SESSION_COOKIE, Proof
from ostiaryd.trust.store import clients

CALLBACK = "https://app.example.org/callback"
SCOPE = "files:read"
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
POLICY = 'permit (principal is Agent, action == Action::"issue_token", resource is Resource);'
_IDS = count()


@dataclass(frozen=True, slots=True)
class Site:
    """An authorization server as its clients know it: the issuer, the paths of its endpoints, and the URL of the token
    endpoint in DPoP proofs.
    """

    issuer: str
    push_path: str
    authorize_path: str
    token_path: str
    token_uri: str


@dataclass(frozen=True, slots=True)
class Application:
    """A client of a site with its key, and the cookie of a person who has consented to it."""

    site: Site
    id: str
    key: jose.PrivateKey
    cookie: str

    def push(self, scope: str = SCOPE, **extra: str) -> bytes:
        """A pushed authorization request (RFC 9126)."""
        request = {"response_type": "code", "redirect_uri": CALLBACK, "scope": scope, "state": "s", "resource": FILES}
        challenge = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
        return self._post(self.site.push_path, {}, **request, **challenge, **extra)

    def authorize(self, pushed: bytes) -> bytes:
        """The browser of the person follows the pushed request."""
        query = urlencode({"client_id": self.id, "request_uri": json.loads(pushed)["request_uri"]})
        return render("GET", f"{self.site.authorize_path}?{query}", headers={"cookie": self.cookie})

    def redeem(self, code: str, nonce: str | None) -> bytes:
        """A token request for a code, with a DPoP proof."""
        fields = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        return self._post(self.site.token_path, self._proof(nonce), **fields)

    def refresh(self, refresh_token: str, nonce: str) -> bytes:
        """A token request for a refresh token, with a DPoP proof."""
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return self._post(self.site.token_path, self._proof(nonce), **fields)

    def _post(self, path: str, headers: dict[str, str], **fields: str) -> bytes:
        now = wall_clock() // SECOND
        claims = {"iss": self.id, "sub": self.id, "aud": self.site.issuer, "iat": now, "exp": now + 300, "jti": _jti()}
        assertion = jose.sign_jwt(self.key, typ="client-authentication+jwt", claims=claims)
        proved = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        body = urlencode({"client_id": self.id, **fields, **proved}).encode()
        return render("POST", path, headers=headers, body=body, media_type=FORM)

    def _proof(self, nonce: str | None) -> dict[str, str]:
        uri, now = self.site.token_uri, wall_clock()
        return {"dpop": dpop.make_proof(self.key, method="POST", uri=uri, now=now, jti=_jti(), nonce=nonce)}


def _jti() -> str:
    return f"{next(_IDS):032x}"


async def enter_people(world: World, site: Site, *, applications: int, people: int) -> list[Application]:
    """Make people with sessions, and registered applications that they have consented to, known to a world."""

    def begin(act: Act) -> list[tuple[str, str]]:
        registry.create_person(act, name="ann")
        registry.create_resource(act, name="files", uri=FILES)
        policies.put(act, load(extend({"bench.cedar": POLICY}, ())), by=None)
        return [_sign_in(act, world, f"person-{number}") for number in range(people)]

    signed_in = await act(world, "bench.people", begin)

    def make(number: int, key: jose.PrivateKey) -> Callable[[Act], Application]:
        person, cookie = signed_in[number % people]

        def flow(act: Act) -> Application:
            spec = AgentSpec(name=f"app-{number}", owner="ann", purpose="is measured", scopes=[SCOPE])
            agent = registry.create_agent(act, spec)
            registry.add_key(act, agent.agent_id, dict(key.public.jwk))
            client = trust.set_agent_client(act, agent.agent_id, redirect_uris=[CALLBACK])
            assert client is not None
            if number % 2:  # every other application has ID tokens with ES256
                metadata = replace(client.metadata, id_token_signed_response_alg="ES256")
                client = replace(client, metadata=metadata)
                clients.put(act.tx, client)
            offered = frozenset({SCOPE, "openid"})
            consents.remember(
                act,
                client,
                agent=agent.agent_id,
                person=person,
                offered=offered,
                scopes=offered,
                details=(),
                offer=Offer(resource=FILES, scopes=frozenset({SCOPE}), details=()),
                seconds=max(LIFETIMES),
            )
            return Application(site, agent.agent_id, key, f"{SESSION_COOKIE}={cookie}")

        return flow

    keys = [jose.generate("ES256") for _ in range(applications)]
    return [await act(world, "bench.application", make(number, key)) for number, key in enumerate(keys)]


def _sign_in(act: Act, world: World, name: str) -> tuple[str, str]:
    """Return the id of a new person, and the cookie of the session."""
    person = registry.create_person(act, name=name).person_id
    proof = Proof(method="password", at=act.now)
    new = trust.begin_session(
        act, person=person, proofs=[proof], config=world.config, network="127.0.0.0/24", unverified_browser=None
    )
    return person, new.cookie
