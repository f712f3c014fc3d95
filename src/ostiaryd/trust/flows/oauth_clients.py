"""Records of OAuth clients that send people to the authorization endpoint: set up the clients of registered agents, and
find and authenticate all clients.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence

import msgspec

from ostiary.protocol import jose
from ostiary.protocol.errors import NotFound, Unavailable
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import store
from ostiaryd.trust.flows.certificates import prove_certificate
from ostiaryd.trust.model import (
    SECRET_PREFIX,
    Credentials,
    InvalidClient,
    Spend,
    check_assertion,
    check_assertion_type,
    name_claimed,
    parse_assertion,
)
from ostiaryd.trust.model.certificates import TLS_CLIENT_AUTH, CertificateClient, check_subject
from ostiaryd.trust.model.clients import (
    CLIENT_GRANTS,
    ClientKind,
    ClientProof,
    ClientState,
    OAuthClient,
    parse_metadata,
)

MAX_NAMES = 500
"""Maximum number of names of agents against which the name of a client is compared, the newest agents first."""
MAX_UNUSED = 10_000
MAX_UNUSED_OF_NETWORK = 200
"""Maximum number of document and dynamic clients from one network to which no person has consented."""


def list_agent_names(reader: Reader) -> list[str]:
    """Return the names of the newest `MAX_NAMES` agents that may ask people for consent."""
    return store.clients.agent_names(reader, limit=MAX_NAMES)


def find_oauth_client(reader: Reader, client_id: str) -> OAuthClient:
    """Return the active client with this client id. Raises InvalidClient if it is unknown, waits for approval, or is
    stopped.
    """
    return check_usable(store.clients.get_oauth_client(reader, client_id))


def check_usable(client: OAuthClient | None) -> OAuthClient:
    """Return the client if it is active. Raises InvalidClient if it is unknown, waits for approval, or is stopped."""
    if client is None:
        raise InvalidClient(
            "the client is not known", hint="register the client, or send the URL of its metadata document"
        )
    if client.state is ClientState.PENDING:
        raise InvalidClient(
            "the client waits for approval", hint=f"approve the client: ostiary client approve {client.handle}"
        )
    if client.state is ClientState.STOPPED:
        raise InvalidClient("the client is stopped", hint=f"show the client: ostiary client show {client.handle}")
    return client


class AuthenticatedClient(msgspec.Struct, frozen=True, kw_only=True):
    """A client that no administrator registered, after its authentication.

    `jkt` is the thumbprint of the key that authenticated the client, None for a public client and a client secret. The
    caller must mark `assertion` as used.
    """

    client: OAuthClient
    jkt: str | None = None
    assertion: Spend | None = None


def authenticate_oauth_client(
    act: Act, credentials: Credentials, keys: Sequence[jose.PublicKey] | None, *, config: Config
) -> AuthenticatedClient:
    """Authenticate the document or dynamic client that sent a form, by the method that the client registered, and
    return the client. Raises InvalidClient if the authentication fails.

    A public client is accepted without authentication: the caller must check its code with PKCE, or the key of its
    refresh token. `keys` are the result of `find_client_keys`. The caller must mark the assertion as used with `spend`.
    """
    client_id = claimed_client_id(credentials)
    act.entry.object = name_claimed(client_id)
    client = find_oauth_client(act.tx, client_id)
    act.entry.object = client.handle
    if client.kind is ClientKind.AGENT:
        raise InvalidClient(
            "an agent authenticates with its key, its certificate or its client secret", hint="send `client_assertion`"
        )
    if credentials.unverified_secret is not None and not client.has_secret:
        hint = "send only `client_id`" if client.is_public else "send `client_assertion`"
        raise InvalidClient("the client has no secret", hint=hint)
    match client.proof:
        case ClientProof.NONE:
            if credentials.unverified_assertion is not None:
                raise InvalidClient(
                    "the client registered no keys", hint="the registered `token_endpoint_auth_method` is none"
                )
            return AuthenticatedClient(client=client)
        case ClientProof.SECRET:
            _check_client_secret(act, client, credentials)
            return AuthenticatedClient(client=client)
        case ClientProof.CERTIFICATE:
            return _check_client_certificate(act, client, credentials)
        case ClientProof.ASSERTION:
            return _check_client_assertion(act, client, credentials, keys or (), config=config)


def _check_client_certificate(act: Act, client: OAuthClient, credentials: Credentials) -> AuthenticatedClient:
    """Check the certificate of a client's connection, and return the client (RFC 8705). Raises InvalidClient for a
    missing or wrong certificate.
    """
    if credentials.unverified_assertion is not None or credentials.certificate is None:
        hint = "connect with the certificate, and send only `client_id`"
        raise InvalidClient("this client must authenticate with a certificate (mutual TLS)", hint=hint)
    proved = prove_certificate(act, client.client_id, credentials.certificate, _certificate_method(client))
    act.entry.key = proved.thumbprint
    return AuthenticatedClient(client=client, jkt=proved.jkt)


def _certificate_method(client: OAuthClient) -> CertificateClient:
    """Return the method of a client that authenticates by certificate, as the metadata of the client states it."""
    metadata = client.metadata
    kind, value = ("", "")
    if metadata.token_endpoint_auth_method == TLS_CLIENT_AUTH:
        kind, value = check_subject(metadata.certificate_subject)
    return CertificateClient(
        client.client_id,
        metadata.token_endpoint_auth_method,
        kind,
        value,
        metadata.tls_client_certificate_bound_access_tokens,
        client.changed_at,
    )


def claimed_client_id(credentials: Credentials) -> str:
    """Return the client id that a form claims, unverified: `client_id`, or the subject of its assertion. Raises
    InvalidClient for an unreadable assertion.
    """
    if credentials.client_id is not None:
        return credentials.client_id
    try:
        subject = jose.parse_claims(parse_assertion(credentials).payload).get("sub")
    except jose.InvalidToken as error:
        raise InvalidClient(f"the client assertion: {error.message}") from None
    return subject if isinstance(subject, str) else ""


def make_client_secret(keys: Keyring, client: OAuthClient) -> str:
    """Return the secret of a client that registered itself. The server computes the secret and does not store it."""
    digest = hmac.digest(keys.derive("client secret"), client.client_id.encode(), "sha256")
    return SECRET_PREFIX + jose.b64u(digest)


def _check_client_secret(act: Act, client: OAuthClient, credentials: Credentials) -> None:
    """Check the secret of a client that registered with a secret. Raises InvalidClient for a missing or wrong
    secret.
    """
    if credentials.unverified_assertion is not None or credentials.unverified_secret is None:
        raise InvalidClient("the client did not authenticate with its secret", hint="send `client_secret`")
    expected = make_client_secret(act.tx.keys, client).encode()
    if not hmac.compare_digest(expected, credentials.unverified_secret.encode()):
        raise InvalidClient("wrong client secret", hint="check that the secret is complete")


def _check_client_assertion(
    act: Act, client: OAuthClient, credentials: Credentials, keys: Sequence[jose.PublicKey], *, config: Config
) -> AuthenticatedClient:
    """Verify the assertion of a client with these keys, and return the authenticated client (RFC 7523, rfc7523bis).
    Raises InvalidClient if no key fits, or if the assertion is not valid.
    """
    unverified_jws = parse_assertion(credentials)

    def is_compatible(_: str = "") -> bool:
        return config.client_assertions == "compatible"

    assertion = check_assertion(
        unverified_jws,
        client_id=client.client_id,
        issuer=config.issuer,
        mtls_base=config.mtls_base,
        now=act.now,
        is_compatible=is_compatible,
    )
    check_assertion_type(unverified_jws.header, is_compatible=is_compatible)
    kid, alg = unverified_jws.header.get("kid"), unverified_jws.header["alg"]
    named = [key for key in keys if kid in (None, key.kid, key.thumbprint) and key.accepts(alg)]
    if len(named) != 1:
        raise InvalidClient(
            f"{len(named) or 'no'} keys of the client match `kid` and `alg` of the assertion instead of one",
            hint="name a registered key in `kid`",
        )
    if (registered := client.metadata.token_endpoint_auth_signing_alg) not in ("", alg):
        raise InvalidClient(f"the client registered the algorithm {registered}, but `alg` of the assertion differs")
    try:
        act.tx.keys.signatures.check(named[0], unverified_jws.signature, unverified_jws.signing_input)
    except jose.InvalidToken as error:
        raise InvalidClient(f"the client assertion: {error.message}") from None
    act.entry.key = named[0].thumbprint
    return AuthenticatedClient(client=client, jkt=named[0].thumbprint, assertion=assertion.spend)


def check_room(act: Act, network: str) -> None:
    """Check that one more client without consent may be stored, in total and for the network. Raises Unavailable
    otherwise.
    """
    total, of_network = store.clients.count_unused(act.tx, network=network)
    hint = "clients without a consent are deleted after a day"
    if total >= MAX_UNUSED:
        raise Unavailable(f"{total} clients wait for their first consent", hint=hint, code="too_many_clients")
    if of_network >= MAX_UNUSED_OF_NETWORK:
        raise Unavailable(
            f"{of_network} clients from your network wait for their first consent", hint=hint, code="too_many_clients"
        )


def set_agent_client(
    act: Act,
    agent: str,
    *,
    redirect_uris: Collection[str],
    post_logout_redirect_uris: Collection[str] = (),
    backchannel_logout_uri: str = "",
    private: Collection[str] = (),
) -> OAuthClient | None:
    """Set the redirect URIs to which the authorization endpoint may send people for an agent, and return the client.
    Without redirect URIs, delete the client and return None.

    `agent` is an id or a name. `private` are hosts with private addresses that the operator allows. Raises NotFound for
    an unknown agent, Invalid for an unacceptable URI.
    """
    registered = registry.find_agent(act.tx, agent)
    registry.fill_entry(
        act, object=registered.agent_id, owner=registered.owner, name=registered.name, redirect_uris=list(redirect_uris)
    )
    before = store.clients.get_oauth_client(act.tx, registered.agent_id)
    if not redirect_uris:
        if before is not None:
            store.clients.delete(act.tx, registered.agent_id)
        return None
    if backchannel_logout_uri:
        check_named(backchannel_logout_uri, of="`backchannel_logout_uri`", private=private)
    metadata = parse_metadata(
        {
            "redirect_uris": list(redirect_uris),
            "client_name": registered.name,
            "grant_types": list(CLIENT_GRANTS),
            "post_logout_redirect_uris": list(post_logout_redirect_uris),
            "backchannel_logout_uri": backchannel_logout_uri,
        }
    )
    # authenticates by the agent's registered keys
    metadata = msgspec.structs.replace(metadata, token_endpoint_auth_method="private_key_jwt")
    client = OAuthClient(
        client_id=registered.agent_id,
        handle=registered.agent_id,
        kind=ClientKind.AGENT,
        state=ClientState.ACTIVE,
        metadata=metadata,
        digest=metadata.digest(),
        created_at=act.now if before is None else before.created_at,
        changed_at=act.now,
        used_at=act.now,
    )
    store.clients.put(act.tx, client)
    return client


def find_agent_client(reader: Reader, agent: str) -> OAuthClient:
    """Return the OAuth client of an agent (id or name). Raises NotFound for an unknown agent, and for an agent without
    redirect URIs.
    """
    registered = registry.find_agent(reader, agent)
    if (client := store.clients.get_oauth_client(reader, registered.agent_id)) is None:
        hint = f"ostiary agent redirect {registered.name} URI"
        raise NotFound(f"`{registered.name}` has no redirect URI", hint=hint)
    return client
