"""Tables about the kinds of secrets: each has a row for each kind, so that an incomplete addition is noticed."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from pathlib import Path
from typing import get_args

from ostiaryd import policy
from ostiaryd.ground.outbound.database_client import DRIVERS
from ostiaryd.ground.outbound.database_driver import DatabaseKind
from ostiaryd.secrets import engines, wire_vault
from ostiaryd.secrets.flows.engine import MOUNTS, TYPES
from ostiaryd.secrets.flows.mounts import PASSWORD_METHODS
from ostiaryd.secrets.model.database import SERVERS
from ostiaryd.secrets.model.login_role import ROLE_METHODS
from ostiaryd.secrets.model.request import ENTRY_ACTIONS, SecretAction
from ostiaryd.secrets.store.accounts import STATEMENTS


def test_each_engine_has_a_mount() -> None:
    modules = [import_module(f"{engines.__name__}.{one.name}") for one in pkgutil.iter_modules(engines.__path__)]
    names = {module.__name__.rpartition(".")[2] for module in modules if hasattr(module, "TYPE")}
    assert names == {*MOUNTS.values(), *TYPES.values()}


def test_each_login_method_has_roles_and_a_login() -> None:
    assert wire_vault.ROLE_LOGINS.keys() == set(ROLE_METHODS)
    assert not set(ROLE_METHODS) & set(PASSWORD_METHODS)


def test_each_secret_action_has_a_ledger_action_and_a_policy_action() -> None:
    assert ENTRY_ACTIONS.keys() == set(SecretAction)
    schema = Path(policy.__path__[0], "base.cedarschema").read_text("utf-8")
    declared = re.findall(r"^action ([\w, ]+) appliesTo", schema, re.M)
    assert {*SecretAction} <= {name for names in declared for name in names.split(", ")}


def test_each_kind_of_database_has_a_driver_statements_and_properties() -> None:
    assert DRIVERS.keys() == STATEMENTS.keys() == SERVERS.keys() == set(get_args(DatabaseKind))
