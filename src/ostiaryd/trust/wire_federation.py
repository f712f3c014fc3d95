"""Common parts of logins by OpenID Connect and by SAML: start and end of a login attempt, and the session that results.

An attempt is stored only in an encrypted `__Host-` cookie of the browser that began the attempt. The response of a
provider is accepted only with that cookie, so an attacker cannot finish a login in another browser (login CSRF). A
browser can have `MAX_ATTEMPTS` attempts, in several tabs: the first character of `state` is the number of the cookie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from ostiary.authorization.assurance import PERSON_MFA, PERSON_PHR
from ostiary.protocol import jose
from ostiary.protocol.errors import NotFound, Unavailable
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.edge import Call, Headers, Reply
from ostiaryd.ground.http.html import page_url
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.flows import providers
from ostiaryd.trust.flows.sessions import (
    NewSession,
    begin_session,
    find_session,
    one_cookie,
    session_cookie,
    session_of,
)
from ostiaryd.trust.model import SECOND, Spend
from ostiaryd.trust.model.oidc_login import ATTEMPT_LIFETIME, LEEWAY, Attempt, open_attempt, seal_attempt
from ostiaryd.trust.model.providers import Identity, Provider, ProviderRefused, assurance_of
from ostiaryd.trust.model.sessions import Demand, Proof, parse_cookies, parse_demand
from ostiaryd.trust.wire_login import lead_on

PROVIDER_COOKIE = "__Host-ostiary-provider"
"""Name of the cookie of a browser's first attempt. The names of the further cookies end with a number, from 1 on."""
MAX_ATTEMPTS = 4
"""Maximum number of cookies with attempts. A further attempt replaces the attempt in the first cookie."""
MAX_LOGINS = 16
MAX_LOGINS_OF_NETWORK = 4


class ProviderLogins:
    """Counts the logins by identity providers that are in progress in this process: at most `MAX_LOGINS` in total, and
    `MAX_LOGINS_OF_NETWORK` from each network.
    """

    def __init__(self, _: World) -> None:
        self._of_network: Counter[str] = Counter()

    @asynccontextmanager
    async def taking(self, call: Call) -> AsyncIterator[None]:
        """Count a login as in progress while the context lasts. Raises Unavailable at one of the limits."""
        network = call.network
        if self._of_network.total() >= MAX_LOGINS or self._of_network[network] >= MAX_LOGINS_OF_NETWORK:
            raise Unavailable("too many logins are in progress", hint="try again in a moment", code="busy")
        self._of_network[network] += 1
        try:
            yield
        finally:
            self._of_network[network] -= 1
            self._of_network += Counter()  # remove networks whose count is 0


class Begun(NamedTuple):
    """A login attempt that has begun: the attempt, the headers that set its cookie, the requirements of the login, and
    the `acr` values to request from the provider.
    """

    attempt: Attempt
    headers: Headers
    demand: Demand
    acr_values: tuple[str, ...]


def find_provider_of(call: Call, protocol: str) -> Provider:
    """Return the provider in the path, if it uses `protocol` (`oidc` or `saml`). Raises NotFound for an unknown
    provider, and for one of the other protocol.
    """
    provider = providers.find_provider(call.world.db.read(), call.params["provider"])
    if provider.protocol != protocol:
        raise NotFound("there is no login provider with this name and protocol", hint="start again at the login page")
    return provider


def callback_uri(config: Config, provider: Provider) -> str:
    """Return the URL to which a provider sends its response: the redirect URI for OpenID Connect, the assertion
    consumer service for SAML.
    """
    return page_url(config) + provider.callback_path


def begin_attempt(call: Call, provider: Provider) -> Begun:
    """Return a new login attempt, with the requirements in the parameters of `/login`. Raises Invalid for malformed
    parameters.
    """
    world, demand = call.world, parse_demand(call.query_one)
    session = find_session(world.db.read(), session_cookie(call), world.now())
    attempt = Attempt(
        provider=provider.provider_id,
        state=f"{_free_cookie(call)}{jose.b64u(world.random(32))}",
        nonce=jose.b64u(world.random(32)),
        verifier=jose.b64u(world.random(32)),
        request="_" + world.random(20).hex(),
        return_to=demand.return_to,
        began_at=world.now(),
        asked_again=demand.is_new or demand.max_age is not None,
        session="" if session is None else session.id,
    )
    sealed = seal_attempt(attempt, secret=world.keys.derive("login attempt"), nonce=world.random(12))
    demanded = set(demand.acr_values)
    acr_values = provider.phishing_resistant if demanded == {PERSON_PHR} else ()
    if PERSON_MFA in demanded:
        acr_values = (*provider.mfa, *provider.phishing_resistant)
    return Begun(attempt, [_cookie(attempt.state, sealed, provider)], demand, acr_values)


def _free_cookie(call: Call) -> int:
    """Return the number of the first cookie in which the browser has no attempt; 0 if all have one."""
    used = parse_cookies([value for name, value in call.headers if name == b"cookie"])
    return next((number for number in range(MAX_ATTEMPTS) if not any(used.get(_cookie_name(str(number)), ()))), 0)


def _cookie_name(unverified_state: str) -> str:
    """Return the name of the cookie whose number begins `state`: the first cookie for any other text."""
    number = unverified_state[:1]
    return f"{PROVIDER_COOKIE}-{number}" if number in map(str, range(1, MAX_ATTEMPTS)) else PROVIDER_COOKIE


def end_attempt(call: Call, provider: Provider, unverified_state: str) -> Attempt:
    """Return the attempt that the browser began at this provider, from the cookie of the response's `state`. Raises
    ProviderRefused if the browser has no unexpired attempt at the provider.
    """
    secret, cookie = call.world.keys.derive("login attempt"), one_cookie(call, _cookie_name(unverified_state))
    return open_attempt(cookie, provider=provider.provider_id, secret=secret, now=call.world.now())


async def refuse_attempt(call: Call, provider: Provider, refusal: ProviderRefused) -> None:
    """Raise the refusal of a login. The refusal is recorded in the ledger, unless the limit on entries that
    unauthenticated callers cause is reached.
    """

    def refuse(act: Act) -> None:
        registry.fill_entry(act, object=provider.provider_id, provider=provider.name)
        raise refusal

    await act(call.world, "person.login", refuse, request=call.request_id, network=call.network)


async def log_in_identity(
    call: Call, provider: Provider, identity: Identity, attempt: Attempt, *, spend: Spend | None = None
) -> Reply:
    """Admit a person whom a provider has authenticated, begin a session, and redirect to `return_to`. Raises
    ProviderRefused if the assertion was used before, if the provider does not state a demanded new authentication, or
    if the person may not log in.

    If the provider had to authenticate the person again, its response must state that it did. `spend` is the assertion
    of the provider, which is marked as used, and refused if it was used before.

    The response of a SAML provider is a POST from another site, with which the browser sends no `SameSite=Lax` cookies.
    The earlier session of the browser is therefore known from the attempt, and the browser cookie is not changed.
    """
    world = call.world
    replaces = await session_of(call) or store.people.get_session(world.db.read(), attempt.session, now=world.now())
    at = identity.authenticated_at

    def run(act: Act) -> NewSession:
        if spend is not None and not providers.spend_answer(act, spend):
            raise ProviderRefused("the response was used before", hint="start the login again", code="replayed")
        person = providers.admit(act, provider.provider_id, identity)
        if attempt.asked_again and (at is None or at < attempt.began_at - LEEWAY):
            raise ProviderRefused(
                "the identity provider does not state that you authenticated again",
                hint="the response must contain `auth_time`; ask the provider's administrator",
                code="not_asked_again",
            )
        acr, amr = assurance_of(provider, identity)
        proved_at = act.now if attempt.asked_again or at is None else min(at, act.now)
        return begin_session(
            act,
            person=person.person_id,
            proofs=[Proof(method="federated", at=proved_at, source=provider.issuer, acr=acr, amr=amr)],
            config=world.config,
            network=call.network,
            unverified_browser=call.header(b"user-agent"),
            replaces=replaces,
        )

    new = await act(world, "person.login", run, request=call.request_id, network=call.network)
    headers = [_cookie(attempt.state, "", provider, age_s=0)]
    return lead_on(call, attempt.return_to, new, headers=headers, has_cookies=not provider.posts_response)


def _cookie(
    state: str, value: str, provider: Provider, *, age_s: int = ATTEMPT_LIFETIME // SECOND
) -> tuple[bytes, bytes]:
    """Return the header that sets the cookie of the attempt with this `state`. If the provider's response is a POST
    from another site, as with SAML, the cookie has `SameSite=None`.
    """
    same_site = "None" if provider.posts_response else "Lax"
    name = _cookie_name(state)
    parts = (f"{name}={value}", "Path=/", f"Max-Age={age_s}", "Secure", "HttpOnly", f"SameSite={same_site}")
    return b"set-cookie", "; ".join(parts).encode()
