"""`ostiary account-provider`: providers at which people connect accounts for their agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, table
from ostiary.cli.session import Here
from ostiary.cli.usage import Usage

account_provider = App(
    name="account-provider", help="Add, change and remove providers at which people connect accounts."
)
MAX_SECRET = 4096


@account_provider.command(name="add")
def add(
    name: str,
    /,
    *,
    client_id: str,
    client_secret_file: Path | None = None,
    preset: str = "",
    issuer: str = "",
    authorization_endpoint: str = "",
    token_endpoint: str = "",
    revocation_endpoint: str = "",
    scope: tuple[str, ...] = (),
    revokes_single_tokens: bool = False,
    role: tuple[str, ...] = (),
    label: str = "",
    session: Here,
) -> None:
    """Let people connect accounts at a provider.

    Register the printed redirect URI at the provider. Without a client secret, this server authenticates at the
    provider with a key that this server publishes at /jwks.

    Args:
        name: Name of the provider in paths: lower-case letters, digits, `.`, `_` and `-`.
        client_id: Client id of this server at the provider.
        client_secret_file: File that holds the client secret.
        preset: Known product, such as `github`, whose settings apply unless you state others: label, issuer or
            endpoints, and the peculiarities of its requests and tokens. With `microsoft`, state the issuer.
        issuer: Issuer URL of the provider, exactly as the provider states it; the server reads the endpoints from the
            metadata of the issuer.
        authorization_endpoint: Authorization endpoint; replaces the endpoint of the preset or the issuer.
        token_endpoint: Token endpoint; replaces the endpoint of the preset or the issuer.
        revocation_endpoint: Revocation endpoint (RFC 7009); replaces the endpoint of the issuer.
        scope: Scope that people can consent to; may be given several times.
        revokes_single_tokens: The provider can revoke an access token and leave the refresh token in force; the server
            then revokes access tokens there when their task ends.
        role: Role that people need to connect an account; may be given several times. One of the roles is enough. By
            default, every person can connect an account.
        label: Name of the provider on web pages.
    """
    body: dict[str, Any] = {
        "name": name,
        "client_id": client_id,
        "preset": preset,
        "issuer": issuer,
        "authorization_endpoint": authorization_endpoint,
        "token_endpoint": token_endpoint,
        "revocation_endpoint": revocation_endpoint,
        "scopes": scope,
        "revokes_single_tokens": revokes_single_tokens,
        "roles": role,
        "label": label,
    }
    if client_secret_file is not None:
        body["client_secret"] = _read_secret(client_secret_file)
    session.show(session.api("POST", "/account-providers", body), facts)


@account_provider.command(name="list")
def list_providers(*, session: Here) -> None:
    """List the account providers."""
    columns = {"name": "NAME", "label": "LABEL", "client_id": "CLIENT ID", "token_endpoint": "TOKEN ENDPOINT"}
    rows = session.pages("/account-providers", "providers")
    empty = "no account providers: ostiary account-provider add --help"
    session.show(rows, lambda rows: table(rows, columns, empty=empty))


@account_provider.command(name="show")
def show(name: str, /, *, session: Here) -> None:
    """Show an account provider.

    Args:
        name: Name of the provider.
    """
    session.show(session.api("GET", f"/account-providers/{name}"), facts)


@account_provider.command(name="change")
def change(
    name: str,
    /,
    *,
    client_secret_file: Path | None = None,
    scope: tuple[str, ...] = (),
    role: tuple[str, ...] = (),
    session: Here,
) -> None:
    """Change settings of an account provider; settings that are left out stay.

    Args:
        name: Name of the provider.
        client_secret_file: File that holds the new client secret.
        scope: Scope that people can consent to; may be given several times. The given scopes replace all earlier ones;
            connected accounts lose the others.
        role: Role that people need; may be given several times. The given roles replace all earlier ones.
    """
    body: dict[str, Any] = {}
    if client_secret_file is not None:
        body["client_secret"] = _read_secret(client_secret_file)
    body |= ({"scopes": scope} if scope else {}) | ({"roles": role} if role else {})
    session.show(session.api("PATCH", f"/account-providers/{name}", body), facts)


@account_provider.command(name="remove")
def remove(name: str, /, *, session: Here) -> None:
    """Remove an account provider; its connected accounts end, and their tokens are revoked at the provider.

    Args:
        name: Name of the provider.
    """
    session.show({"removed": name, **session.api("DELETE", f"/account-providers/{name}")}, facts)


def _read_secret(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"cannot read {path}: {error}", hint="name a text file with the client secret") from None
    if len(text) > MAX_SECRET:
        raise Usage(
            f"{path} has more than {MAX_SECRET} characters", hint="name a file that contains only the client secret"
        )
    return text.strip("\r\n")
