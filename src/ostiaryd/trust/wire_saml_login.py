"""Login by a SAML 2.0 identity provider: Web Browser SSO, begun by this server.

    GET  /login/saml/{provider}           303 to the provider (HTTP-Redirect), with the attempt in a cookie
    POST /login/saml/{provider}           the response (HTTP-POST): the assertion consumer service
    GET  /login/saml/{provider}/metadata  the metadata of this service provider; its URL is the entity id

XML is parsed in a confined process, and only if the browser has an attempt and `RelayState` of the response belongs to
it.
"""

from __future__ import annotations

import base64
from importlib.util import find_spec

from ostiary.protocol.errors import Conflict, Invalid, Malformed
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.edge import Call, Reply
from ostiaryd.ground.http.html import HTML_FORM, PAGES
from ostiaryd.ground.http.routes import Content, Route
from ostiaryd.ground.process.confined import Parser
from ostiaryd.ground.world import World
from ostiaryd.trust.model.providers import Provider, ProviderRefused, SamlSettings, check_required
from ostiaryd.trust.model.saml_login import (
    IdpMetadata,
    ReadMetadata,
    ReadResponse,
    SamlResponse,
    check_relay_state,
    check_response,
    claims_of,
    decode_answer,
    encode,
    request_url,
    sp_metadata,
)
from ostiaryd.trust.wire_federation import (
    ProviderLogins,
    begin_attempt,
    callback_uri,
    end_attempt,
    find_provider_of,
    log_in_identity,
    refuse_attempt,
)
from ostiaryd.trust.wire_oidc_login import DEMANDS, ERRORS

TARGET = "ostiaryd.trust.engines.saml:answer"


class SamlParser(Parser):
    """The confined process (a child process without access to the system) that parses the XML of identity providers."""

    def __init__(self, _: World) -> None:
        super().__init__(TARGET, of="the XML of the identity provider")


def entity_id_of(config: Config, provider: Provider) -> str:
    """Return the entity id of this server as a service provider at an identity provider: the URL of its metadata."""
    return f"{callback_uri(config, provider)}/metadata"


async def read_idp_metadata(world: World, xml: str) -> IdpMetadata:
    """Parse the metadata document of an identity provider, and return its content. Raises Malformed or Invalid if `xml`
    is no such document; Conflict if the SAML library is not installed.
    """
    if find_spec("signxml") is None:
        raise Conflict("the SAML library is not installed", hint='pip install "ostiary[saml]"')
    idp = decode_answer(await world.get_singleton(SamlParser).parse(encode(ReadMetadata(xml.encode()))))
    assert isinstance(idp, IdpMetadata)
    return idp


async def begin_login(call: Call) -> Reply:
    """Redirect the browser to a SAML identity provider.

    The parameters `return_to`, `prompt`, `max_age` and `acr_values` have the meaning that they have at `/login`;
    `login_hint` has no effect.
    """
    provider, settings = _find(call)
    begun = begin_attempt(call, provider)
    config = call.world.config
    url = request_url(
        settings.sso_url,
        begun.attempt,
        entity_id=entity_id_of(config, provider),
        acs=callback_uri(config, provider),
        acr_values=begun.acr_values,
    )
    return Reply(303, headers=[(b"location", url.encode()), *begun.headers])


async def finish_login(call: Call) -> Reply:
    """Receive the response of a SAML identity provider, and begin a session."""
    provider, settings = _find(call)
    world = call.world
    try:
        form = {name: values[0] for name, values in call.form().items() if len(values) == 1}
        attempt = end_attempt(call, provider, state := form.get("RelayState", ""))
        check_relay_state(state, attempt)
        async with world.get_singleton(ProviderLogins).taking(call):
            response = await _read(world, form.get("SAMLResponse", ""), settings)
        identity, spend = check_response(
            response,
            provider,
            attempt,
            entity_id=entity_id_of(world.config, provider),
            acs=callback_uri(world.config, provider),
            now=world.now(),
        )
        assert response.assertion is not None
        check_required(provider, claims_of(response.assertion))
    except ProviderRefused as refusal:
        await refuse_attempt(call, provider, refusal)
        raise
    return await log_in_identity(call, provider, identity, attempt, spend=spend)


async def show_metadata(call: Call) -> Reply:
    """Return the SAML metadata of this server for an identity provider."""
    provider, _ = _find(call)
    config = call.world.config
    text = sp_metadata(entity_id=entity_id_of(config, provider), acs=callback_uri(config, provider))
    return Reply(200, text.encode(), "application/samlmetadata+xml")


def _find(call: Call) -> tuple[Provider, SamlSettings]:
    provider = find_provider_of(call, "saml")
    assert isinstance(provider.settings, SamlSettings)
    return provider, provider.settings


async def _read(world: World, unverified: str, settings: SamlSettings) -> SamlResponse:
    try:
        xml = base64.b64decode("".join(unverified.split()), validate=True)
        answer = decode_answer(
            await world.get_singleton(SamlParser).parse(encode(ReadResponse(xml, settings.certificates)))
        )
    except (Malformed, Invalid, ValueError) as error:
        message = error.message if isinstance(error, (Malformed, Invalid)) else "the response is not base64"
        raise ProviderRefused(f"the SAML response is not accepted: {message}", hint="start the login again") from None
    assert isinstance(answer, SamlResponse)
    return answer


ROUTES = (
    Route(
        "GET",
        "/login/saml/{provider}",
        begin_login,
        "",
        protocol=PAGES,
        query=DEMANDS,
        answers={303: None},
        errors=ERRORS,
    ),
    Route(
        "POST",
        "/login/saml/{provider}",
        finish_login,
        "",
        protocol=PAGES,
        body=HTML_FORM,
        answers={303: None},
        errors=ERRORS,
    ),
    Route(
        "GET",
        "/login/saml/{provider}/metadata",
        show_metadata,
        "",
        protocol=PAGES,
        answers={200: Content(media_types=("application/samlmetadata+xml",))},
        errors=ERRORS,
    ),
)
