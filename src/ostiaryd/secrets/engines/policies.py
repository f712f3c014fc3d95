"""Vault policies at `sys/policy` and `sys/policies/acl` (HashiCorp Vault, "/sys/policy", "/sys/policies").

sys/policy, sys/policies/acl               GET, LIST
sys/policy/NAME, sys/policies/acl/NAME     GET, POST, DELETE

The path in policies of this server is `sys/policies/acl/NAME` for both.
"""

from __future__ import annotations

from functools import partial

from msgspec import Struct

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets.flows import policies
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model.request import (
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    check_path,
)

_PLACE = "policies/acl/"


class _Policy(Struct):
    policy: str = ""
    rules: str = ""


def find_operation(request: VaultRequest) -> tuple[str, Operation]:
    """Return the mount (always `sys`) and the operation of a request about Vault policies. Raises NothingStored for
    policies of another type than acl, UnsupportedOperation for a method that the path does not support; Malformed for
    members of wrong types, Invalid for an invalid name.
    """
    path = check_path(request.path).removeprefix("sys/").removesuffix("/")
    is_old = path.partition("/")[0] == "policy"
    if not is_old and path != "policies/acl" and not path.startswith(_PLACE):
        raise NothingStored("unsupported path", hint="only policies of the type acl are supported", code="no_route")
    name = path.removeprefix("policy" if is_old else "policies/acl").removeprefix("/")
    name = policies.check_name(name) if name else ""
    policy_path = f"{_PLACE}{name}"
    match request.method, bool(name):
        case VaultMethod.READ | VaultMethod.LIST, False:
            return "sys", Operation(SecretAction.LIST, _PLACE, "list", _list)
        case VaultMethod.READ, True:
            return "sys", Operation(SecretAction.READ, policy_path, "read", partial(_read, name=name, is_old=is_old))
        case VaultMethod.WRITE, True:
            body = request.read_body(_Policy)
            run = partial(_put, name=name, text=body.policy or body.rules)
            return "sys", Operation(SecretAction.WRITE, policy_path, "write", run)
        case VaultMethod.DELETE, True:
            return "sys", Operation(SecretAction.DELETE, policy_path, "delete", partial(_delete, name=name))
    raise UnsupportedOperation("unsupported operation")


def _list(act: Act) -> Answer:
    names = policies.list_policies(act.tx)
    return Answer(data={"keys": names, "policies": names})


def _read(act: Act, *, name: str, is_old: bool) -> Answer:
    text = policies.read_policy(act.tx, name)
    return Answer(data={"name": name, "rules" if is_old else "policy": text})


def _put(act: Act, *, name: str, text: str) -> Answer:
    if not text:
        raise Invalid("'policy' parameter not supplied or empty")
    policies.put_policy(act, name, text)
    return Answer(status=204)


def _delete(act: Act, *, name: str) -> Answer:
    policies.delete_policy(act, name)
    return Answer(status=204)
