"""Database servers, and the accounts that the server creates there: connections, statements, names and passwords.

A statement is a template in Vault's format: `{{name}}` (or `{{username}}`), `{{password}}` and `{{expiration}}`. The
server makes the inserted values itself, from letters, digits and hyphens, so no value can end a quoted string.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import pbkdf2_hmac, sha256
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.outbound.database_driver import DatabaseKind
from ostiaryd.secrets.model.backend import check_address
from ostiaryd.secrets.model.request import SECOND

DATABASE_MOUNT = "database"
MAX_STATEMENTS, MAX_STATEMENT = 20, 8 << 10
MAX_CONNECTIONS = 16
DEFAULT_CONNECTIONS = 4
MAX_DATABASES, MAX_ROLES, MAX_ROLE_NAME = 100, 10_000, 128
SCRAM_ITERATIONS = 4096
"""Iterations of SCRAM: the default of PostgreSQL, and the minimum of RFC 7677."""
MAX_URL, MAX_CA = 2048, 32 << 10
LONG_ACCOUNT = 55
"""Maximum number of characters of the name of a new account that contains the time of its creation."""
SHORTEST_ROTATION_S = 5
POSTGRES_PLUGIN = "postgresql-database-plugin"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SLOT = re.compile(r"\{\{\s*([a-z]+)\s*\}\}")
_SLOTS = frozenset({"name", "username", "password", "expiration"})
_HOST = re.compile(r"[a-z0-9._:-]{1,253}")
_QUOTING = frozenset("\"'`\\")
_UNFIT = re.compile(r"[^a-z0-9]+")
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,63}")
_MYSQL_URL = re.compile(r"(\{\{username\}\}:\{\{password\}\}@)?(tcp|unix)\(([^()]+)\)/([^/?]*)(?:\?tls=(true|false))?")

PasswordForm = Literal["password", "scram-sha-256"]


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A connection to a database server, without its password. `address`: HOST:PORT, or a Unix socket (for PostgreSQL
    its folder, for MySQL its path).

    `password_form`: the form of a password in statements: the password itself, or a SCRAM verifier of PostgreSQL, from
    which the password cannot be computed.
    """

    kind: DatabaseKind = "postgresql"
    address: str
    database: str
    username: str
    url: str
    """the connection URL as the request stated it; the URL contains no password"""
    is_verified: bool
    """True if the connection requires TLS with a verified certificate; may be false only for loopback addresses and
    Unix sockets
    """
    tls_ca: str = ""
    allowed_roles: tuple[str, ...] = ()
    max_connections: int = DEFAULT_CONNECTIONS
    rotation: tuple[str, ...] = ()
    password_form: PasswordForm = "scram-sha-256"


class DynamicRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role for which the server creates an account with each lease. Lifetimes are microseconds."""

    database: str
    creation: tuple[str, ...]
    revocation: tuple[str, ...] = ()
    renewal: tuple[str, ...] = ()
    default_ttl: int
    max_ttl: int


class StaticRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role for an existing account whose password the server changes every `period` microseconds."""

    database: str
    username: str
    period: int
    rotation: tuple[str, ...] = ()


class ConnectionBody(msgspec.Struct):
    """The body of a request that configures a database connection, with the names of the Vault API. If `password` is
    empty, the stored password stays.
    """

    connection_url: str
    plugin_name: str = POSTGRES_PLUGIN
    username: str = ""
    password: str = ""
    allowed_roles: list[str] | str = []
    verify_connection: bool = True
    root_rotation_statements: list[str] | str | None = None
    max_open_connections: int | str = DEFAULT_CONNECTIONS
    password_authentication: str | None = None
    tls_ca: str = ""

    def __repr__(self) -> str:
        """Return a text with only the plug-in, because the password is secret."""
        return f"ConnectionBody({self.plugin_name[:40]})"


class ConnectionParts(NamedTuple):
    """The parts of a database connection's URL: `address` is HOST:PORT or the path of a Unix socket, and `is_verified`
    tells whether TLS with a verified certificate is required.
    """

    address: str
    database: str
    is_verified: bool


def check_name(name: str, *, of: str) -> str:
    """Return `name` if it has 1 to 64 letters, digits, dots, hyphens and underscores. `of`: the kind of the name in the
    error message, such as `role`. Raises Invalid otherwise.
    """
    if not _NAME.fullmatch(name):
        raise Invalid(f"the name of a {of} must have 1 to 64 letters, digits, dots, hyphens and underscores")
    return name


def check_account(username: str, kind: DatabaseKind = "postgresql") -> str:
    """Return `username` if it can be the name of an account at a database server of the kind `kind`. Raises Invalid if
    `username` is empty or too long, or has quotation marks, backslashes or control characters.
    """
    longest = SERVERS[kind].max_account
    if not _TEXT.fullmatch(username) or len(username.encode()) > longest or not _QUOTING.isdisjoint(username):
        raise Invalid(
            f"`username` must have 1 to {longest} bytes, without quotation marks, backslashes and control characters"
        )
    return username


def read_connection(body: ConnectionBody, *, permitted: Sequence[str]) -> DatabaseConfig:
    """Return the connection that a request configures. `permitted`: the addresses in the setting `secret_databases`.
    Raises Invalid for a member that is not valid; Forbidden for another address.
    """
    plugins: dict[str, DatabaseKind] = {server.plugin: kind for kind, server in SERVERS.items()}
    if (kind := plugins.get(body.plugin_name)) is None:
        raise Invalid(f"the plug-in {body.plugin_name[:40]!a} is not supported", hint=f"use {' or '.join(plugins)}")
    count = body.max_open_connections
    if not str(count).isdecimal() or not 1 <= int(count) <= MAX_CONNECTIONS:
        raise Invalid(f"`max_open_connections` must be 1 to {MAX_CONNECTIONS}")
    if len(body.tls_ca) > MAX_CA:
        raise Invalid(f"`tls_ca` may have at most {MAX_CA} characters")
    if len(body.connection_url) > MAX_URL:
        raise Invalid(f"`connection_url` may have at most {MAX_URL} characters")
    parts = SERVERS[kind].parse_url(body.connection_url, tls_ca=body.tls_ca)
    check_address(parts.address, permitted=permitted, setting="secret_databases")
    return DatabaseConfig(
        kind=kind,
        address=parts.address,
        database=parts.database,
        username=check_account(body.username, kind),
        url=body.connection_url,
        is_verified=parts.is_verified,
        tls_ca=body.tls_ca,
        allowed_roles=parse_allowed_roles(body.allowed_roles),
        max_connections=int(count),
        rotation=parse_statements(body.root_rotation_statements, field="root_rotation_statements"),
        password_form=_parse_password_form(body.password_authentication, kind),
    )


def _parse_password_form(text: str | None, kind: DatabaseKind) -> PasswordForm:
    """Return the form of passwords in statements: `text`, or the default of the kind of server. Raises Invalid for
    another form.
    """
    forms = SERVERS[kind].password_forms
    for form in forms:
        if text in (None, "", form):
            return form
    raise Invalid(f"`password_authentication` must be {' or '.join(forms)} for {kind}")


def parse_mysql_url(url: str, *, tls_ca: str) -> ConnectionParts:
    """Return the parts of a connection URL in the format of Go's MySQL driver, which Vault uses. Raises Invalid for
    other text, and for `tls=false` with an address that is neither a loopback address nor a Unix socket.
    """
    match = _MYSQL_URL.fullmatch(url)
    if match is None:
        raise Invalid(
            "`connection_url` must have tcp(HOST:PORT)/ or unix(PATH)/, and no other option than `tls`",
            hint="write {{username}}:{{password}}@tcp(HOST:PORT)/DATABASE?tls=true, and send `username` and `password`"
            " as separate members",
        )
    _, network, place, name, mode = match.groups()
    database = unquote(name)
    if database and not _TEXT.fullmatch(database):
        raise Invalid("the database in `connection_url` must have at most 63 characters, and no control characters")
    if network == "unix":
        if not place.startswith("/"):
            raise Invalid("the Unix socket of `connection_url` is not an absolute path", hint="write unix(/PATH)")
        address, is_local = place, True
    else:
        try:
            parts = urlsplit(f"mysql://{place}")
            host, port = parts.hostname or "", parts.port or 3306
        except ValueError:
            host, port = "", 0
        if not _HOST.fullmatch(host) or parts.netloc != place or "@" in place:
            raise Invalid("`connection_url` has no host, or more than one")
        address, is_local = _join(host, port), _is_loopback(host)
    if mode == "false" and not is_local:
        raise Invalid("`tls` must be true, because the address is neither a loopback address nor a Unix socket")
    return ConnectionParts(address, database, network == "tcp" and (mode == "true" or bool(tls_ca) or not is_local))


def parse_postgres_url(url: str, *, tls_ca: str) -> ConnectionParts:
    """Return the parts of a PostgreSQL connection URL. Raises Invalid for other text.

    User and password must be absent or Vault's templates, so that the URL contains no password. Options other than
    `sslmode` and `host` (the folder of a Unix socket) are refused, because they make libpq read files or connect to
    another server.
    """
    try:
        parts = urlsplit(url.replace("{{", "%7B%7B").replace("}}", "%7D%7D"))
        port = parts.port or 5432
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=4)
    except ValueError:
        raise Invalid("`connection_url` is not a URL") from None
    if parts.scheme not in ("postgresql", "postgres") or parts.fragment:
        raise Invalid(
            "`connection_url` must begin with postgresql:// and have no `#`",
            hint="write postgresql://{{username}}:{{password}}@HOST:PORT/DATABASE",
        )
    names = [name for name, _ in options]
    if unfit := [name for name in names if name not in ("sslmode", "host") or names.count(name) > 1]:
        raise Invalid(
            f"the option {unfit[0][:40]!a} of `connection_url` is not supported, or is repeated",
            hint="use only `sslmode`, and `host` for the folder of a Unix socket",
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user not in ("", "{{username}}") or password not in ("", "{{password}}"):
        raise Invalid(
            "`connection_url` contains a user or a password",
            hint="write {{username}}:{{password}}, and send `username` and `password` as separate members",
        )
    chosen = dict(options)
    if "host" in chosen and parts.hostname:
        raise Invalid("`connection_url` names two hosts", hint="remove the option `host`")
    socket = chosen.get("host", "")
    if socket and not socket.startswith("/"):
        raise Invalid(
            "the option `host` of `connection_url` is not the folder of a Unix socket",
            hint="write a folder as host=/run/postgresql",
        )
    host = parts.hostname or ""
    if not socket and not _HOST.fullmatch(host):
        raise Invalid("`connection_url` has no host, or more than one")
    mode = chosen.get("sslmode", "")
    is_local = bool(socket) or _is_loopback(host)
    if mode not in ("", "disable", "verify-full") or (mode == "disable" and not is_local):
        raise Invalid("`sslmode` must be verify-full, or disable for a loopback address or a Unix socket")
    database = unquote(parts.path.removeprefix("/"))
    if not _TEXT.fullmatch(database):
        raise Invalid("`connection_url` must name a database with 1 to 63 characters, and no control characters")
    is_verified = mode == "verify-full" or bool(tls_ca) or not is_local
    return ConnectionParts(socket or _join(host, port), database, is_verified)


class _ServerFacts(NamedTuple):
    """The properties of a kind of database server."""

    plugin: str
    """the name of the plug-in in the Vault API"""
    max_account: int
    """maximum number of bytes of the name of an account; the server could cut a longer name, so that it equals the name
    of another account
    """
    parse_url: Callable[..., ConnectionParts]
    password_forms: tuple[PasswordForm, ...]
    """the forms of a password that statements may contain, the default first"""


SERVERS: Mapping[DatabaseKind, _ServerFacts] = {
    "postgresql": _ServerFacts(POSTGRES_PLUGIN, 63, parse_postgres_url, ("scram-sha-256", "password")),
    "mysql": _ServerFacts("mysql-database-plugin", 32, parse_mysql_url, ("password",)),
}
"""The properties of each kind of database server."""


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def parse_statements(value: object, *, field: str) -> tuple[str, ...]:
    """Return the SQL statements in a text or in a list of texts; each text may be base64, as in Vault. `field`: the
    name of the member in error messages. Raises Invalid for another type, a statement that is too long, or a
    placeholder other than `{{name}}`, `{{username}}`, `{{password}}` and `{{expiration}}`.
    """
    texts = [value] if isinstance(value, str) else value
    if texts is None or texts == [""]:
        return ()
    if not isinstance(texts, list) or len(texts) > MAX_STATEMENTS or not all(isinstance(one, str) for one in texts):
        raise Invalid(f"`{field}` must be a text or a list of at most {MAX_STATEMENTS} texts")
    statements = tuple(_decoded(text) for text in texts if text)
    for text in statements:
        if len(text.encode()) > MAX_STATEMENT or "\0" in text:
            raise Invalid(f"a statement in `{field}` must have at most {MAX_STATEMENT} bytes, and no null character")
        if unknown := set(_SLOT.findall(text)) - _SLOTS:
            raise Invalid(f"`{field}` has the unknown placeholder {min(unknown)[:40]!a}", hint=" ".join(sorted(_SLOTS)))
    return statements


def _decoded(text: str) -> str:
    try:
        decoded = base64.b64decode(text, validate=True).decode()
    except ValueError:
        return text
    return decoded if " " in decoded else text


def render_statement(statement: str, *, name: str, password: str = "", expires_at: int = 0) -> str:
    """Return a statement with values in place of its placeholders: the name of the account, its password, and its end
    (`expires_at`, microseconds) as text in UTC.
    """
    values = {
        "name": name,
        "username": name,
        "password": password,
        "expiration": datetime.fromtimestamp(expires_at // SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S+0000"),
    }
    return _SLOT.sub(lambda match: values[match[1]], statement)


def make_account(agent: str, role: str, *, longest: int, now: int, random: Callable[[int], bytes]) -> str:
    """Return the name of a new account at a system whose names have at most `longest` characters. `longest` must be at
    least 32.

    The name is `v-AGENT-ROLE-RANDOM-SECONDS`: agent and role are shortened, and the seconds are those of `now`
    (microseconds). If `longest` is less than `LONG_ACCOUNT`, the parts are shorter, and the seconds are left out.
    """
    is_short = longest < LONG_ACCOUNT
    parts = [_UNFIT.sub("-", text.lower()).strip("-")[: 4 if is_short else 10] or "x" for text in (agent, role)]
    name = f"v-{parts[0]}-{parts[1]}-{random(10).hex()}"
    return name if is_short else f"{name}-{now // SECOND}"


def make_password(random: Callable[[int], bytes]) -> str:
    """Return a password of 256 random bits. The password begins with a letter, which some databases require."""
    return f"A1-{random(32).hex()}"


def make_scram_verifier(username: str, password: str) -> str:
    """Return the SCRAM verifier of a password that `make_password` made, in the form that PostgreSQL stores (RFC 5802
    section 3).

    A password of 256 random bits needs no random salt, so the salt is a hash of the name and the password.
    """
    salt = hmac.digest(password.encode(), username.encode(), "sha256")[:16]
    salted = pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ITERATIONS)
    stored_key = sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{salt_text}${stored_text}:{server_text}"


def lock_number(username: str) -> int:
    """Return the number of the PostgreSQL advisory lock that a transaction takes while it creates or removes the
    account `username`.
    """
    return int.from_bytes(sha256(b"ostiary account " + username.encode()).digest()[:8], "big", signed=True)


def may_use(config: DatabaseConfig, role: str) -> bool:
    """Return whether a role may use a connection. A `*` at the end of an allowed name matches any text."""
    return any(
        role.startswith(pattern[:-1]) if pattern.endswith("*") else role == pattern for pattern in config.allowed_roles
    )


def check_ttl(default: int, longest: int) -> None:
    """Check that the default lifetime of a role's leases is not longer than the maximum lifetime. Raises Invalid
    otherwise.
    """
    if default > longest:
        raise Invalid("`default_ttl` must not be longer than `max_ttl`")


def parse_allowed_roles(value: Any) -> tuple[str, ...]:
    """Return the names of the roles that may use a connection, from a list, or from a text with commas. Raises Invalid
    for too many names, a name that is no text, or a name that is too long.
    """
    names = [one.strip() for one in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > MAX_DATABASES or not all(isinstance(one, str) for one in names):
        raise Invalid(f"`allowed_roles` must be a list of at most {MAX_DATABASES} names")
    if any(len(name) > MAX_ROLE_NAME for name in names):
        raise Invalid(f"a name in `allowed_roles` must have at most {MAX_ROLE_NAME} characters")
    return tuple(name for name in names if name)
