"""Vault policies: a Vault policy limits the tokens that name it, and gives no token more access.

Without Vault policies, only the policies of this server limit a token. With Vault policies, both must permit each
request of the token. A policy name without a policy permits nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.callers import VaultCaller
from ostiaryd.secrets.model import acl
from ostiaryd.secrets.model.acl import AccessList, AclRequest
from ostiaryd.secrets.model.request import NothingStored
from ostiaryd.secrets.model.token import MAX_BOUNDS

DEFAULT, ROOT = "default", "root"
UNRESTRICTED = "ostiary"
"""The name in lists of policies that stands for "no Vault policy limits this token"."""
MAX_POLICIES = 1000
MAX_OF_TOKEN = store.policies.MAX_READ
MAX_NAME = 128
DEFAULT_TEXT = """# What every token may do for itself.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/mounts" { capabilities = ["read"] }
path "sys/internal/ui/mounts/*" { capabilities = ["read"] }
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/tools/hash" { capabilities = ["update"] }
path "sys/tools/hash/*" { capabilities = ["update"] }
path "sys/wrapping/wrap" { capabilities = ["update"] }
"""
_SUDO = (
    "auth/token/accessors",
    "auth/token/create-orphan",
    "auth/token/revoke-orphan",
    "sys/auth/",
    "sys/remount",
    "sys/seal",
    "sys/leases/lookup/",
    "sys/leases/revoke-prefix/",
    "sys/leases/revoke-force/",
)
"""Paths, or beginnings of paths, that require the capability `sudo` in addition to the capability of the operation."""


def put_policy(act: Act, name: str, text: str) -> None:
    """Store a Vault policy, or replace it. Raises Malformed for a text that is no policy, Invalid for an unsupported
    rule (both messages name the line or the path), for the name of a fixed policy (`root`, `ostiary`), and for too many
    policies.
    """
    registry.fill_entry(act, object=f"sys/policies/acl/{name}")
    if name in (ROOT, UNRESTRICTED):
        raise Invalid(f"cannot update the policy {name}")
    rules = acl.parse_policy(text)
    AccessList([rules])
    is_new = name not in store.policies.find(act.tx, [name])
    if is_new and len(store.policies.names(act.tx, limit=MAX_POLICIES)) >= MAX_POLICIES:
        raise Invalid(f"the server has {MAX_POLICIES} policies, which is the limit", hint="delete a policy")
    store.policies.put(act.tx, name, text)
    registry.fill_entry(act, object=f"sys/policies/acl/{name}", paths=len(rules))


def check_name(name: str) -> str:
    """Return the name of a policy in lower case. Raises Invalid if the name is not valid."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise Invalid(f"the name of a policy must have 1 to {MAX_NAME} printable characters")
    return name.lower()


def read_policy(reader: Reader, name: str) -> str:
    """Return the text of a Vault policy by its name: empty for the fixed policies `root` and `ostiary`, the standard
    text for `default` if none is stored. Raises NothingStored for an unknown name.
    """
    if name in (ROOT, UNRESTRICTED):
        return ""
    text = store.policies.find(reader, [name]).get(name, DEFAULT_TEXT if name == DEFAULT else None)
    if text is None:
        raise NothingStored("no such policy")
    return text


def list_policies(reader: Reader) -> list[str]:
    """Return the names of all Vault policies: the stored policies and `default`, sorted, then `root`."""
    return [*sorted({DEFAULT, *store.policies.names(reader, limit=MAX_POLICIES)}), ROOT]


def delete_policy(act: Act, name: str) -> None:
    """Delete a Vault policy. Do nothing if there is none. Raises Invalid for `root`, `default` and `ostiary`."""
    registry.fill_entry(act, object=f"sys/policies/acl/{name}")
    if name in (ROOT, DEFAULT, UNRESTRICTED):
        raise Invalid(f"cannot delete the policy {name}")
    store.policies.delete(act.tx, name)


# --- tokens


def choose_policies(
    caller: VaultCaller, names: Sequence[str] | None, *, has_default: bool = True
) -> tuple[str, ...] | None:
    """Return the names of the Vault policies of a new token: `names`, or, if it is empty, the policies of the caller.
    Return None if no Vault policy limits the new token: `names` is only `ostiary`, or is empty and none limits the
    caller.

    `has_default`: add the policy `default`, if it limits the caller or no Vault policy does. Raises Invalid for `root`,
    for a malformed name, for `ostiary` with other names, or for too many names.
    """
    present = policies_of(caller)
    if not names:
        return present
    chosen = {check_name(name) for name in names}
    if ROOT in chosen:
        raise Invalid("this server has no root tokens", hint="leave `policies` out")
    if chosen == {UNRESTRICTED}:
        return None
    if UNRESTRICTED in chosen:
        raise Invalid(f"`{UNRESTRICTED}` cannot be combined with other policies", hint=f"leave `{UNRESTRICTED}` out")
    chosen |= {DEFAULT} if has_default and (present is None or DEFAULT in present) else set()
    if len(chosen) > MAX_OF_TOKEN:
        raise Invalid(f"a token may have at most {MAX_OF_TOKEN} policies")
    return (*sorted(chosen),)


def policies_of(caller: VaultCaller) -> tuple[str, ...] | None:
    """Return the names of the Vault policies that limit a caller's token; None if no Vault policy limits the token."""
    return None if caller.token is None else caller.token.options.policies


def lists_of(caller: VaultCaller) -> tuple[tuple[str, ...], ...]:
    """Return the lists of Vault policies that limit a caller: the list of its token, and the lists of the tokens above;
    empty if no Vault policy limits the caller.

    Each list must permit a request. The lists are not merged: without a policy that has `deny`, a merged list could
    permit more.
    """
    if caller.token is None:
        return ()
    options = caller.token.options
    return options.bounds if options.policies is None else tuple(dict.fromkeys((*options.bounds, options.policies)))


def check_assignable(caller: VaultCaller, policies: tuple[str, ...] | None) -> None:
    """Check that a caller may give these policies to a new token: only policies that the caller's own token has (None:
    no limit, which only a caller without a limit may give). Raises Invalid otherwise, and if too many lists of policies
    limit the caller already.
    """
    if len(lists_of(caller)) > MAX_BOUNDS:
        raise Invalid(
            f"a token may be limited by at most {MAX_BOUNDS} lists of policies of the tokens above", code="too_deep"
        )
    present = policies_of(caller)
    if present is None:
        return
    if policies is None or not set(policies) <= set(present):
        raise Invalid("child policies must be subset of parent", code="policies_widen")


# --- decisions


def authorize_request(act: Act, caller: VaultCaller, request: AclRequest) -> None:
    """Check that the Vault policies of a caller permit a request. Raises Forbidden if one of its lists of policies does
    not, or does not permit `sudo` on a path that needs it; Malformed if two parameters differ only in case.
    """
    for names in lists_of(caller):
        access = _access_of(act.tx, caller, names)
        if not access.permits(request):
            raise Forbidden(
                "permission denied: the Vault policies of the token do not permit the request",
                hint="see sys/capabilities-self",
                code="vault_policy",
            )
        if needs_sudo(request.path) and not access.permits(request._replace(capability="sudo", is_check=True)):
            raise Forbidden("permission denied: this path needs the capability `sudo`", code="vault_policy")


def find_capabilities(act: Act, caller: VaultCaller, path: str) -> frozenset[str]:
    """Return the capabilities that all lists of Vault policies of a caller permit on a path; all capabilities if no
    Vault policy limits the caller.
    """
    each = [_access_of(act.tx, caller, names).find_capabilities(path) for names in lists_of(caller)]
    return acl.CAPABILITIES.intersection(*each)


def may_reach_below(act: Act, caller: VaultCaller, path: str) -> bool:
    """Return whether the Vault policies of a caller may permit anything at a path or below it; True if no Vault policy
    limits the caller.
    """
    return all(_access_of(act.tx, caller, names).reaches(path) for names in lists_of(caller))


def needs_sudo(path: str) -> bool:
    """Return whether a request for a path requires the capability `sudo` in addition to the capability of its
    operation.
    """
    return any(path.startswith(one) if one.endswith("/") else path.rstrip("/") == one for one in _SUDO)


def _access_of(reader: Reader, caller: VaultCaller, names: tuple[str, ...]) -> AccessList:
    stored = store.policies.find(reader, names)
    texts = tuple(stored.get(name, DEFAULT_TEXT if name == DEFAULT else "") for name in names)
    is_templated = any(map(acl.is_templated, texts))
    return _compile(texts, caller.agent.agent_id if is_templated else "", caller.agent.name if is_templated else "")


@lru_cache(maxsize=256)
def _compile(texts: tuple[str, ...], agent: str, name: str) -> AccessList:
    identity = dict(zip(acl.TEMPLATES, (agent, name), strict=True))
    return AccessList([acl.parse_policy(text, identity=identity) for text in texts])
