"""Every function that writes a guarded row calls `tx.touch`, so that the entry of the act has the digest of the row."""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Iterator

from ostiaryd.ground.database.guarded import GUARDED
from ostiaryd.ground.database.migrate import render, scripts
from tests.support.sources import sources

TABLES = {spec.table: set(re.findall(r"\w+", spec.columns)) for spec in GUARDED.values()}
EXEMPT = {
    "registry/store/holdings.py::insert_holding": "the entry that issues a token names it; only its end is guarded",
    "tasks/store/pruning.py::prune": "a task that ended longer ago than ends are remembered",
    "registry/store/holdings.py::end_all_holdings": "a recovery ends what is live, and no entry names that",
    "registry/store/holdings.py::prune": "expired tokens are not compared",
}
LEFT_OUT = {
    "agent": "purpose changed_at created_at held_until keyless",
    "agent_key": "added_at",
    "task": "created_at beat_until memory",
    "client_secret": "created_at",
    "trust_anchor": "added_at",
    "certificate_client": "since",
    "oauth_client": "handle digest created_at changed_at fresh_until used_at network",
    "resource": "catalogue_version created_at",
    "acme_key": "created_at",
    "acme_account": "contacts created_at",
    "pep": "created_at",
    "pep_key": "created_at used_at",
    "policy_active": "since",
    "policy_watched": "since",
    "policy_set": "policies tests created_at created_by safeguards",
    "person": "email created_at logins_since",
    "person_key": "added_at",
    "person_session": "network browser created_at used_at idle_until closed_at",
    "person_password": "set_at",
    "person_totp": "set_at last_step",
    "person_passkey": "name sign_count transports added_at used_at",
    "setup_link": "created_at",
    "holding": "task parent jkt client_jkt ended_why ath",
    "authority": "subject key_type sealed not_before not_after created_at retired_at active_from revoked_at reason"
    " hsm_key",
    "workload": "uid created_at",
    "svid_key": "created_at",
    "trust_domain": "refreshed_at due_at failed created_at",
    "team": "created_at",
    "login_provider": "created_at",
    "account_provider": "wrapped_key sealed added_at",
    "connected_account": "wrapped_key sealed token_key token token_expires_at rotation connected_at refreshed_at"
    " claimed_until due_at attempts error",
    "login_identity": "linked_at",
}
"""The columns of guarded tables that no digest has. A new column is guarded, or stands here on purpose."""


def _writes_guarded(text: str) -> bool:
    """Whether a statement inserts or deletes guarded rows, or updates a guarded column."""
    for table, columns in TABLES.items():
        if re.search(rf"\b(?:insert into|delete from)\s+{table}\b", text):
            return True
        if (update := re.search(rf"\bupdate\s+{table}\s+set\b(.*)", text, re.S)) is not None:
            assigned = update[1].partition("where")[0]
            if any(re.search(rf"\b{column}\s*=", assigned) for column in columns):
                return True
    return False


def _text(node: ast.AST) -> str:
    return " ".join(
        part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )


def _writers() -> Iterator[tuple[str, bool]]:
    """(function, whether it touches) of each function that uses a statement which writes guarded rows."""
    for source in sources("src/ostiaryd"):
        tree = source.tree
        writing = set[str]()
        for assigned in tree.body:
            if isinstance(assigned, ast.Assign) and _writes_guarded(_text(assigned.value)):
                writing |= {target.id for target in assigned.targets if isinstance(target, ast.Name)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            if names & writing:
                touches = any(isinstance(one, ast.Attribute) and one.attr == "touch" for one in ast.walk(node))
                yield f"{source.path.rpartition('ostiaryd/')[2]}::{node.name}", touches


def test_every_function_that_writes_guarded_rows_touches_them() -> None:
    found = dict(_writers())
    assert len(found) > 25, "the statements are not found any more"
    assert {name for name, touches in found.items() if not touches} == set(EXEMPT)


def test_every_column_of_a_guarded_table_is_guarded_or_listed_as_left_out() -> None:
    database = sqlite3.connect(":memory:")
    for _, _, text in scripts():
        database.executescript(render(text, is_sqlite=True))
    left = {}
    for spec in GUARDED.values():
        columns = [row[1] for row in database.execute(f"pragma table_info({spec.table})")]
        guarded = re.findall(r"\w+", f"{spec.key} {spec.columns} {spec.ended}")
        left[spec.table] = " ".join(column for column in columns if column not in guarded)
    assert {table: columns for table, columns in left.items() if columns} == LEFT_OUT
