"""Operations on mounts: enable, tune, move and disable. The fixed mounts of `engine.MOUNTS` never change."""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import login_roles, pki
from ostiaryd.secrets.flows.callers import CUBBYHOLE
from ostiaryd.secrets.flows.engine import MOUNTS, TYPES
from ostiaryd.secrets.model.login_role import ROLE_METHODS
from ostiaryd.secrets.model.mount import (
    AUTH,
    MAX_DESCRIPTION,
    MAX_MOUNTS,
    MAX_TTL_S,
    Mount,
    check_mount_path,
    prefixes,
)
from ostiaryd.secrets.model.request import MAX_PATH, NothingStored

LOGIN_METHODS = ("approle", *ROLE_METHODS)
"""Login methods that agents can enable."""
PASSWORD_METHODS = ("github", "ldap", "oidc", "radius", "userpass")
"""Login methods of persons, which the server does not have."""
FIXED_METHODS = ("approle", "jwt")
"""Login methods at `auth/approle` and `auth/jwt`, which every server has, and at which agents log in with their own
credentials.
"""
_FIXED = (CUBBYHOLE, *MOUNTS, *(f"{AUTH}{method}" for method in (*FIXED_METHODS, "token")))
MAX_CLEARED = 10_000
"""Maximum number of secrets, versions and keys that one act deletes with a mount."""


def is_fixed(path: str) -> bool:
    """Return whether the mount or login method at `path` is fixed: built in on every server, and not enabled by an
    agent.
    """
    return path in _FIXED


def enable_mount(act: Act, mount: Mount) -> None:
    """Enable a secrets engine, or, at a path below `auth/`, a login method. Raises Invalid for a path that is malformed
    or in use, an unknown type, a `description` or lifetimes that are not valid, or too many mounts.
    """
    registry.fill_entry(act, object=mount.path, type=mount.type[:64])
    path = mount.path.removeprefix(AUTH)
    check_mount_path(path)
    is_method = mount.path.startswith(AUTH)
    types = LOGIN_METHODS if is_method else {kind for kind, _ in TYPES}
    if mount.type not in types:
        hint = f"types: {', '.join(sorted(types))}"
        if is_method and mount.type in PASSWORD_METHODS:
            hint = f"agents have no passwords, and persons sign in at the console; {hint}"
        raise Invalid(f"plugin not found in the catalog: {mount.type[:64]}", hint=hint)
    if not is_method and (mount.type, mount.version) not in TYPES:
        raise Invalid("the version of a key-value store must be 1 or 2")
    _check_free(act.tx, mount.path)
    if len(store.mounts.get_all(act.tx)) >= MAX_MOUNTS:
        raise Invalid(f"the server has {MAX_MOUNTS} mounts, which is the limit", hint="disable a mount")
    _put(act, mount)


def _put(act: Act, mount: Mount) -> None:
    if len(mount.description) > MAX_DESCRIPTION:
        raise Invalid(f"`description` must have at most {MAX_DESCRIPTION} characters")
    if mount.default_ttl > (mount.max_ttl or MAX_TTL_S):
        raise Invalid("`default_lease_ttl` is greater than `max_lease_ttl`")
    store.mounts.put(act.tx, mount)


def _check_free(reader: Reader, path: str) -> None:
    """Check that no mount is at, above or below a path. Raises Invalid otherwise."""
    for used in (*_FIXED, *(one.path for one in store.mounts.get_all(reader))):
        if f"{path}/".startswith(f"{used}/") or f"{used}/".startswith(f"{path}/"):
            raise Invalid(f"path is already in use at {used}/")


def find_mount(reader: Reader, path: str) -> Mount:
    """Return the mount that an agent enabled at exactly this path. Raises Invalid if there is none, also for a fixed
    mount.
    """
    mount = store.mounts.find(reader, [path])
    if mount is None:
        kind, at = ("auth", path.removeprefix(AUTH)) if path.startswith(AUTH) else ("secret", path)
        raise Invalid(f"No {kind} engine mount at {at[:200]}/", code="no_route")
    return mount


def tune_mount(act: Act, path: str, *, description: str | None, default_ttl: int | None, max_ttl: int | None) -> None:
    """Change the description (text) and the lifetimes (seconds) of a mount; None leaves a member as it is. Raises
    Invalid for an unknown or a fixed mount, and for a `description` or lifetimes that are not valid.
    """
    registry.fill_entry(act, object=path)
    if path in _FIXED:
        raise Invalid("a fixed mount cannot be tuned", hint="tune a mount that an agent has enabled")
    changes = {"description": description, "default_ttl": default_ttl, "max_ttl": max_ttl}
    changes = {name: value for name, value in changes.items() if value is not None}
    _put(act, replace(find_mount(act.tx, path), **changes))


def move_mount(act: Act, source: str, target: str) -> None:
    """Move a mount without content (secrets, keys, roles, issuers) to another path; a mount with content cannot move,
    because the encryption of a stored value is bound to its path. Raises Invalid for a mount with content, an unknown
    or fixed mount, or a `target` that is malformed or in use, or is of a login method if `source` is not, or the
    reverse.
    """
    registry.fill_entry(act, object=source[:MAX_PATH], to=target[:MAX_PATH])
    mount = find_mount(act.tx, source)
    check_mount_path(target.removeprefix(AUTH))
    if source.startswith(AUTH) != target.startswith(AUTH):
        raise Invalid("a secret engine cannot move below auth/, and a login method cannot move elsewhere")
    if (
        store.mounts.count_content(act.tx, source, limit=1)
        or store.login_roles.has_roles(act.tx, source)
        or store.pki.count(act.tx, source, limit=1)
    ):
        raise Invalid(
            "the mount has content, and the encryption of a stored value is bound to its path",
            hint="enable a mount at the new path, and copy the secrets",
        )
    store.mounts.delete(act.tx, source)
    _check_free(act.tx, target)
    store.mounts.put(act.tx, replace(mount, path=target))


def disable_mount(act: Act, path: str) -> None:
    """Disable a mount, and delete its content: its secrets, keys, roles and issuers; its secret IDs and certificates
    end. Do nothing if there is no such mount. Raises Invalid for a fixed mount, and for a mount with too much content
    to delete in one transaction.
    """
    registry.fill_entry(act, object=path)
    if path in _FIXED:
        raise Invalid("a fixed mount cannot be disabled")
    if store.mounts.find(act.tx, [path]) is None:
        return
    counts = [count(act.tx, path, limit=MAX_CLEARED + 1) for count in (store.mounts.count_content, store.pki.count)]
    if max(counts) > MAX_CLEARED:
        raise Invalid(
            f"the mount contains more than {MAX_CLEARED} secrets, versions and keys, or more than {MAX_CLEARED}"
            " issuers, roles and certificates",
            hint="delete some of them first",
        )
    store.mounts.clear(act.tx, path)
    login_roles.clear(act, path)
    pki.clear_mount(act, path)
    store.mounts.delete(act.tx, path)


def check_enabled(reader: Reader, mount: Mount | None) -> None:
    """Check that a mount that was read earlier is still enabled at its path, and was not replaced. None, which stands
    for a fixed mount, passes. Raises NothingStored if the check fails.
    """
    if mount and ((present := store.mounts.find(reader, [mount.path])) is None or present.accessor != mount.accessor):
        raise NothingStored(f"no handler for route {mount.path!a}", code="no_route")


def find_method(reader: Reader, path: str) -> Mount | None:
    """Return the enabled login method whose path is the longest prefix of `path`, which is below `auth/`; None if there
    is none.
    """
    below = prefixes(path.removeprefix(AUTH))
    return store.mounts.find(reader, [f"{AUTH}{one}" for one in below])
