"""Accounts of agents at databases of the organisation: one module of statements for each kind of server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ostiaryd.ground.outbound.database_driver import DatabaseKind
from ostiaryd.secrets.model.database import DatabaseConfig
from ostiaryd.secrets.model.lease import Lease
from ostiaryd.secrets.store import mysql_accounts, postgres_accounts


class AccountStatements(Protocol):
    """The operations on accounts that each kind of database server implements in SQL. `raw` is a connection of the
    kind's driver.

    `EXTEND` and `ROTATE` are the default statements that move the end of an account, and that change the password of
    another user.
    """

    EXTEND: tuple[str, ...]
    ROTATE: tuple[str, ...]

    def verify(self, raw: Any) -> None:
        """Check that the server answers; for MySQL, also that the user of the connection has the rights to remove
        accounts.
        """

    def lock(self, raw: Any, usernames: Sequence[str], *, is_alone: bool = False) -> None:
        """Take the locks of accounts, so that no other request changes these accounts, and keep the locks until the end
        of the transaction (PostgreSQL) or of the use of the connection (MySQL). With `is_alone`, also take the one lock
        for changes of table rights, which conflict.
        """

    def lock_for_creation(self, raw: Any, username: str, *, is_alone: bool = False) -> None:
        """Take the lock of a new account, as `lock` does. On a server that creates an account in one transaction
        (PostgreSQL), the commit also does not wait for the disk: a crash then loses the whole creation, never a part.
        """

    def has_account(self, raw: Any, username: str) -> bool:
        """Return whether an account exists."""

    def execute(
        self,
        raw: Any,
        statements: Sequence[str],
        config: DatabaseConfig,
        username: str,
        password: str = "",
        expires_at: int = 0,
    ) -> None:
        """Execute statements, with these values in place of the placeholders (`render_statement`). `expires_at`: the
        end of the account in microseconds.
        """

    def rotate_own(self, raw: Any, config: DatabaseConfig, password: str) -> None:
        """Change the password of the connection's user: by the connection's own statements, or by the default
        statement.
        """

    def disable(self, raw: Any, usernames: Sequence[str]) -> None:
        """Refuse logins of these accounts; accounts that do not exist are skipped."""

    def remove(self, raw: Any, usernames: Sequence[str]) -> None:
        """End the sessions of these accounts, and drop the accounts with their rights."""

    def revoke_by_statements(self, raw: Any, lease: Lease, config: DatabaseConfig) -> None:
        """Run the revocation statements of a lease whose account exists. Raises Invalid if afterwards the account can
        still log in (PostgreSQL) or still exists (MySQL).
        """


STATEMENTS: Mapping[DatabaseKind, AccountStatements] = {"postgresql": postgres_accounts, "mysql": mysql_accounts}


def statements_of(config: DatabaseConfig) -> AccountStatements:
    """Return the operations on accounts for the kind of database server that `config` names."""
    return STATEMENTS[config.kind]
