"""`ostiary login-provider`: identity providers by which people log in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from ostiary.cli.output import facts, table
from ostiary.cli.session import PAGE, Here, Word
from ostiary.cli.usage import Usage

login_provider = App(name="login-provider", help="Add, change and remove the identity providers of people.")
MAX_SECRET = 4096


@login_provider.command(name="add")
def add(
    name: str,
    /,
    *,
    issuer: str = "",
    client_id: str = "",
    client_secret_file: Path | None = None,
    preset: str = "",
    label: str = "",
    scope: tuple[str, ...] = (),
    group_claim: str | None = None,
    role: tuple[str, ...] = (),
    team: tuple[str, ...] = (),
    require: tuple[str, ...] = (),
    accounts: Literal["create", "refuse"] = "create",
    mfa: tuple[str, ...] = (),
    phishing_resistant: tuple[str, ...] = (),
    saml_metadata: Path | None = None,
    session: Here,
) -> None:
    """Let people log in by an OpenID provider, or by a SAML 2.0 identity provider.

    Register the printed redirect URI at the provider. Without a client secret, this server authenticates at the
    provider with a key that this server publishes at /jwks.

    Args:
        name: Name of the provider in URLs: lower-case letters, digits, `.`, `_` and `-`.
        issuer: Issuer URL of the OpenID provider, exactly as the provider states it.
        client_id: Client id of this server at the provider.
        client_secret_file: File that holds the client secret.
        preset: Known product, such as `okta`: sets label, scopes and the claim of groups unless given, and accepts only
            issuers of the product. `google` also demands `--require hd=DOMAIN`.
        label: Text on the button.
        scope: Scope to request besides `openid profile email`; may be given several times.
        group_claim: Claim with the groups of a person; for a nested claim, a path such as `realm_access.roles`.
        role: GROUP=ROLE: members of the group get the role; may be given several times.
        team: GROUP=TEAM: members of the group join the team; may be given several times.
        require: CLAIM=VALUE that an account must have; may be given several times.
        accounts: `create`: the first login registers a person; `refuse`: an administrator must first link the account
            (`ostiary login-provider link`).
        mfa: Value of `acr` or `amr` that counts as two factors; may be given several times.
        phishing_resistant: Value of `acr` or `amr` that counts as phishing resistant; may be given several times.
        saml_metadata: File with the metadata of a SAML identity provider, instead of issuer and client id.
    """
    body: dict[str, Any] = {
        "name": name,
        "preset": preset,
        "label": label,
        "group_claim": group_claim,
        "rules": _rules(role, team),
        "require": dict(_pair(one, "--require", "CLAIM=VALUE") for one in require),
        "accounts": accounts,
        "mfa": mfa,
        "phishing_resistant": phishing_resistant,
    }
    if saml_metadata is not None:
        body |= {"saml_metadata": _read(saml_metadata, 1 << 18)}
    elif not issuer or not client_id:
        raise Usage("`--issuer` and `--client-id` are required", hint="or `--saml-metadata FILE` for SAML")
    else:
        body |= {"issuer": issuer, "client_id": client_id}
        body |= {"scopes": ["openid", "profile", "email", *scope]} if scope else {}
    if client_secret_file is not None:
        body["client_secret"] = _read(client_secret_file, MAX_SECRET).strip("\r\n")
    session.show(session.api("POST", "/login-providers", body), _print)


@login_provider.command(name="list")
def list_providers(*, session: Here) -> None:
    """List the login providers."""
    columns = {"name": "NAME", "protocol": "PROTOCOL", "issuer": "ISSUER", "accounts": "ACCOUNTS", "label": "LABEL"}
    rows = session.api("GET", "/login-providers")["providers"]
    session.show(rows, lambda rows: table(rows, columns, empty="no login providers: ostiary login-provider add --help"))


@login_provider.command(name="show")
def show(name: str, /, *, session: Here) -> None:
    """Show a login provider.

    Args:
        name: Name or id.
    """
    session.show(session.api("GET", f"/login-providers/{name}"), _print)


@login_provider.command(name="change")
def change(
    name: str,
    /,
    *,
    client_secret_file: Path | None = None,
    label: str | None = None,
    group_claim: str | None = None,
    role: tuple[str, ...] = (),
    team: tuple[str, ...] = (),
    accounts: Literal["create", "refuse"] | None = None,
    mfa: tuple[str, ...] = (),
    phishing_resistant: tuple[str, ...] = (),
    session: Here,
) -> None:
    """Change settings of a login provider; settings that are left out stay.

    Args:
        name: Name or id.
        client_secret_file: File that holds the new client secret.
        label: Text on the button.
        group_claim: Claim that has the groups of a person.
        role: GROUP=ROLE; may be given several times. The given roles and teams replace all earlier rules.
        team: GROUP=TEAM; may be given several times. The given roles and teams replace all earlier rules.
        accounts: `create`: the first login registers a person; `refuse`: an administrator must first link the account.
        mfa: Value of `acr` or `amr` that counts as two factors; the given values replace all earlier ones.
        phishing_resistant: Value of `acr` or `amr` that counts as phishing resistant; the given values replace all
            earlier ones.
    """
    changes: dict[str, Any] = {"label": label, "group_claim": group_claim, "accounts": accounts}
    changes |= {
        "rules": _rules(role, team) or None,
        "mfa": mfa or None,
        "phishing_resistant": phishing_resistant or None,
    }
    body = {key: value for key, value in changes.items() if value is not None}
    if client_secret_file is not None:
        body["client_secret"] = _read(client_secret_file, MAX_SECRET).strip("\r\n")
    session.show(session.api("PATCH", f"/login-providers/{name}", body), _print)


@login_provider.command(name="remove")
def remove(name: str, /, *, session: Here) -> None:
    """Remove a login provider. Logins by the provider are refused; its sessions and the roles from its rules end.

    Args:
        name: Name or id.
    """
    session.show({"removed": name, **session.api("DELETE", f"/login-providers/{name}")}, facts)


@login_provider.command(name="accounts")
def list_accounts(name: str, /, *, limit: int = PAGE, session: Here) -> None:
    """List the accounts at a provider that are linked to persons.

    Args:
        name: Name or id of the provider.
        limit: Largest number of rows.
    """
    rows = session.pages(f"/login-providers/{name}/accounts", "accounts", limit=limit)
    columns = {"sub": "ACCOUNT", "person": "PERSON"}
    session.show(rows, lambda rows: table(rows, columns, empty="no person has logged in by this provider"))


@login_provider.command(name="link")
def link(name: str, sub: Word, person: str, /, *, session: Here) -> None:
    """Link an account at a provider to a person.

    Args:
        name: Name or id of the provider.
        sub: Subject of the account, as a refused login shows it in the ledger.
        person: Name or id of the person.
    """
    body = {"sub": sub, "person": person}
    session.show(session.api("POST", f"/login-providers/{name}/accounts", body), facts)


@login_provider.command(name="unlink")
def unlink(name: str, sub: Word, /, *, session: Here) -> None:
    """Unlink an account at a provider from its person.

    Args:
        name: Name or id of the provider.
        sub: Subject of the account.
    """
    session.api("POST", f"/login-providers/{name}/accounts/unlink", {"sub": sub})
    session.show({"unlinked": sub}, facts)


def _rules(role: tuple[str, ...], team: tuple[str, ...]) -> list[dict[str, str]]:
    pairs = [("role", *_pair(one, "--role", "GROUP=ROLE")) for one in role]
    pairs += [("team", *_pair(one, "--team", "GROUP=TEAM")) for one in team]
    return [{"group": group, kind: name} for kind, group, name in pairs]


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    """Return the parts of `text` before and after its last `=`; the first part, the name of a group, may contain
    `=`.
    """
    first, separator, second = text.rpartition("=")
    if not separator or not first or not second:
        raise Usage(f"`{option} {text[:60]}` is not {form}", hint=f"{option} {form}")
    return first, second


def _read(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise Usage(
                f"{path} has more than {most} bytes",
                hint="name the file that contains only the metadata, or only the client secret",
            )
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"cannot read {path}: {error}", hint="check the path and its permissions") from None


def _print(one: dict[str, Any]) -> None:
    rules = [f"{rule['group']} -> {rule.get('role') or rule.get('team')}" for rule in one["rules"]]
    facts({**one, "rules": ", ".join(rules) or "-"})
