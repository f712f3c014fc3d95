"""Rotation of stored values: a member of a secret gets a new value on a schedule, by its service.

A service gets two calls. Between the calls, in the grace period, the service accepts both values:

    rotate    from now on, the service must accept the new value, too
    retire    from now on, the service must accept only the new value

    url            both are signed calls: POST {"type": "secret.rotate", "data": {"path", "member", "value"}}, and
                   {"type": "secret.retire", "data": {"path", "member"}} (Standard Webhooks 1.0.0)
    command        both are runs of a command, with {"type", "id", "path", "member", "value", "current"} as input. The
                   command prints {"status": "done"}, "both" if the old value still works, or "failed" with a "reason"
    registration   the provider of an OAuth client makes a new client secret when the registration of the client is
                   updated (RFC 7592), and decides how long the old one works: there is no second call

A repeated call has the same id and the same value.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert, json_decoder
from ostiary.protocol.errors import Invalid, Malformed, Unavailable
from ostiaryd.secrets.model.lease import MAX_ERROR
from ostiaryd.secrets.model.request import SECOND, check_path, split_path
from ostiaryd.secrets.model.schedule import parse_cron

MOUNT = "secret"
"""The key-value store whose secrets can be rotated: it keeps the previous version."""
MAX_ROTATIONS = 10_000
SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 60, 10 * 365 * 86_400
NEVER = (1 << 53) - 1
"""The time of the next call of a cancelled rotation, in microseconds: a time that does not come."""
KEY_BYTES = 32
MAX_MEMBER = 128
ROTATE, RETIRE = "secret.rotate", "secret.retire"
REGISTRATION_TOKEN = "registration_access_token"
"""The member of a secret that contains the token for the registration of an OAuth client (RFC 7592)."""
MAX_REGISTRATION = 32 << 10
MAX_COMMANDS, MAX_ARGUMENTS, LONGEST_COMMAND_S = 100, 32, 40
_SET_BY_PROVIDER = (REGISTRATION_TOKEN, "registration_client_uri", "client_secret_expires_at", "client_id_issued_at")
"""Members of a registration that a request to update the registration must not contain (RFC 7592 section 2.2)."""


class ServiceRefused(Unavailable):
    """The service of a rotated secret (a URL, a command or an OAuth provider) did not accept the new value, or could
    not be called.
    """

    code = "service_refused"


class RotationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The rotation of one member of a secret. Exactly one of `url`, `command` and `registration` (of an OAuth client)
    is set: the service that must accept a new value. `period`: seconds between two rotations. `grace`: seconds for
    which the old value stays valid.

    `longest`: the period that the administrator has set, if an agent has set a shorter one; otherwise 0. `expression`,
    `window`: the schedule in the form of AWS, if an agent has set one; the period of a cron expression is the longest
    time between two rotations. `begun_at`: the time (microseconds) from which the first rotation of that schedule is
    computed.
    """

    member: str
    url: str = ""
    command: str = ""
    registration: str = ""
    period: int
    grace: int
    longest: int = 0
    expression: str = ""
    window: str = ""
    begun_at: int = 0

    def next_time(self, after: int) -> int:
        """Return the time of the next rotation after a rotation at `after`; both are microseconds since the epoch."""
        if self.expression.startswith("cron"):
            return parse_cron(self.expression).next(after)
        return after + self.period * SECOND

    @property
    def service(self) -> str:
        """Return the name of the service in ledger entries: the host of `url` or `registration`, or the name of the
        command.
        """
        return self.command or urlsplit(self.url or self.registration).hostname or ""


class RotationCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program of the configuration that sets the new value of a secret. `run`: the path of the program, then its
    arguments. `seconds`: the time limit. `readable`: further files and folders that the program may read. `unconfined`:
    true if the program runs without confinement.
    """

    run: tuple[str, ...]
    readable: tuple[str, ...] = ()
    seconds: int = 30
    unconfined: bool = False


class CommandAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The output of a rotation command. `status`: `done` if only the new value works, `both` if the old value works
    too, `failed` if the command failed.
    """

    status: Literal["done", "both", "failed"]
    reason: str = ""


_decode_answer = json_decoder(CommandAnswer)


def check_config(path: str, config: RotationConfig) -> RotationConfig:
    """Return the configuration of a rotation if it is valid. Whether the server may connect to its URL is not checked
    here. Raises Malformed for a malformed `path`, Invalid for another member that is not valid.
    """
    mount, rest = split_path(check_path(path))
    if mount != MOUNT or not rest or rest.endswith("/"):
        raise Invalid(f"the path of a rotated secret must begin with {MOUNT}/", hint="write a path as secret/app/db")
    if not 0 < len(config.member) <= MAX_MEMBER or not config.member.isprintable():
        raise Invalid(f"`member` must have 1 to {MAX_MEMBER} printable characters")
    if not SHORTEST_PERIOD_S <= config.period <= LONGEST_PERIOD_S:
        raise Invalid(f"`period` must be {SHORTEST_PERIOD_S} to {LONGEST_PERIOD_S} seconds")
    if not 0 <= config.grace < config.period:
        raise Invalid("`grace` must be at least 0 seconds and less than `period`")
    if sum(map(bool, (config.url, config.command, config.registration))) != 1:
        raise Invalid("a rotation must have exactly one of `url`, `command` and `registration`")
    if config.registration and config.grace:
        raise Invalid("`grace` must be 0 for `registration`", hint="the provider decides how long the old secret works")
    if config.registration and config.member == REGISTRATION_TOKEN:
        raise Invalid(f"`member` must be the member with the client secret, not `{REGISTRATION_TOKEN}`")
    return config


def make_value(random: Callable[[int], bytes]) -> str:
    """Return a new random value of 256 bits, written with letters, digits, hyphens and underscores."""
    return base64.urlsafe_b64encode(random(32)).decode().rstrip("=")


def render_key(key: bytes) -> str:
    """Return a signing key as the text that the libraries of Standard Webhooks read."""
    return "whsec_" + base64.b64encode(key).decode()


def render_call(kind: str, data: dict[str, Any], *, id: str, now: int, key: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a signed call. `now`: microseconds since the epoch."""
    at = now // SECOND
    body = msgspec.json.encode({"type": kind, "timestamp": datetime.fromtimestamp(at, UTC).isoformat(), "data": data})
    signed = b".".join((id.encode(), str(at).encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return body, {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


# --- commands


def parse_commands(document: Mapping[str, Any]) -> dict[str, RotationCommand]:
    """Return the rotation commands by name, from a TOML document with a table `[command.NAME]` for each. Raises Invalid
    for other TOML, for an invalid command, and for too many commands.
    """
    if unknown := set(document) - {"command"}:
        raise Invalid(f"rotation commands: unknown key {min(unknown)[:64]!a}", hint="write tables [command.NAME]")
    try:
        commands = convert(document.get("command", {}), dict[str, RotationCommand])
    except msgspec.ValidationError as error:
        raise Invalid(f"rotation commands: {error}") from None
    if len(commands) > MAX_COMMANDS:
        raise Invalid(f"the file has more than {MAX_COMMANDS} rotation commands")
    for name, command in commands.items():
        if not 1 <= len(command.run) <= MAX_ARGUMENTS:
            raise Invalid(f"rotation command {name[:64]!a}: `run` must have 1 to {MAX_ARGUMENTS} texts")
        for path in (command.run[0], *command.readable):
            if not path.startswith("/"):
                raise Invalid(f"rotation command {name[:64]!a}: {path[:64]!a} is not an absolute path")
        if any("\0" in text for text in (*command.run, *command.readable)):
            raise Invalid(f"rotation command {name[:64]!a}: a text has a null character")
        if not 1 <= command.seconds <= LONGEST_COMMAND_S:
            raise Invalid(f"rotation command {name[:64]!a}: `seconds` must be 1 to {LONGEST_COMMAND_S}")
    return commands


def render_input(kind: str, data: Mapping[str, str], *, id: str, current: Mapping[str, object]) -> bytes:
    """Return the input of a rotation command: one line of JSON. `current`: the present value of the secret."""
    return msgspec.json.encode({"type": kind, "id": id, **data, "current": current}) + b"\n"


def parse_output(status: int, output: bytes, *, hidden: Iterable[object]) -> bool:
    """Return whether the old value still works after a rotation command has accepted the new value. Raises
    ServiceRefused if the command failed.

    `status`: the exit status of the command. The texts in `hidden`, also those in lists and objects, are removed from
    the reason of a failure.
    """
    try:
        answer = _decode_answer(output)
    except msgspec.DecodeError:
        answer = None
    if answer is not None and answer.status == "failed":
        reason = answer.reason
        for text in sorted(_list_texts(hidden), key=len, reverse=True):
            reason = reason.replace(text, "***")
        shown = "".join(filter(str.isprintable, " ".join(reason.split())))
        raise ServiceRefused(f"the command failed: {shown or 'no reason'}"[:MAX_ERROR])
    if status:
        end = f"was ended by signal {-status}" if status < 0 else f"ends with exit status {status}"
        raise ServiceRefused(f"the command {end}")
    if answer is None:
        raise ServiceRefused('the command printed no result such as {"status": "done"}')
    return answer.status == "both"


def _list_texts(values: Iterable[object]) -> set[str]:
    """Return the texts in these values, also those in lists and objects."""
    texts, left = set[str](), [*values]
    while left:
        match left.pop():
            case str() as text if text:
                texts.add(text)
            case dict() as members:
                left += members.values()
            case list() as items:
                left += items
    return texts


# --- registrations of OAuth clients


def find_token(current: Mapping[str, object]) -> str:
    """Return the member of a secret that is the token for the registration of the OAuth client. Raises ServiceRefused
    if the secret has no valid token.
    """
    token = current.get(REGISTRATION_TOKEN)
    if not isinstance(token, str) or not _is_credential(token):
        raise ServiceRefused(f"the secret has no valid `{REGISTRATION_TOKEN}`")
    return token


def parse_registration(status: int, body: bytes, *, current: Mapping[str, object]) -> dict[str, Any]:
    """Return the registration in the response of a provider (RFC 7592 section 3). Raises ServiceRefused for any other
    response.
    """
    if status != 200:
        raise ServiceRefused(f"the provider answers {status}")
    try:
        answer = canonical.parse(body, max_bytes=MAX_REGISTRATION)
    except Malformed:
        raise ServiceRefused("the response of the provider is not JSON") from None
    if not isinstance(answer, dict) or not all(
        _is_credential(answer[name]) for name in ("client_secret", REGISTRATION_TOKEN) if name in answer
    ):
        raise ServiceRefused("the response of the provider is not the registration of a client")
    if (
        not isinstance(answer.get("client_id"), str)
        or current.get("client_id", answer["client_id"]) != answer["client_id"]
    ):
        raise ServiceRefused("the response of the provider is the registration of another client")
    return answer


def _is_credential(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4096 and value.isascii() and value.isprintable()


def find_changes(registration: Mapping[str, Any], current: Mapping[str, object], member: str) -> dict[str, str]:
    """Return the members of a secret that must change, with their new values, because the registration in a provider's
    response has other ones.

    `current` is the value of the secret. Its member `member` contains the client secret of the registration, and its
    member `registration_access_token` the registration access token. A member that the response leaves out stays.
    """
    answered = {member: registration.get("client_secret"), REGISTRATION_TOKEN: registration.get(REGISTRATION_TOKEN)}
    return {name: value for name, value in answered.items() if value is not None and value != current.get(name)}


def render_update(registration: Mapping[str, Any]) -> bytes:
    """Return the body of a request that updates an OAuth client's registration without a change (RFC 7592 section 2.2),
    after which the provider may issue a new client secret.
    """
    return msgspec.json.encode({name: value for name, value in registration.items() if name not in _SET_BY_PROVIDER})
