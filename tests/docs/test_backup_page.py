"""The page about backups: every file written, every command run, every output compared."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from harness.live_server import free_socket
from tests.docs.page_script import missing_in, run_script, script
from tests.support.world import Postgres

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "backup.md"
SQLITE, HEADING, POSTGRESQL = PAGE.read_text("utf-8").partition("## PostgreSQL\n")
LISTEN = "127.0.0.1:8700"


def run_part(part: str, folder: Path, *, path: str = "", **settings: str) -> None:
    """Run the commands of one part of the page on a free port, and compare their output."""
    text, wanted = script([part])
    assert LISTEN in text
    sock, port = free_socket()
    sock.close()
    said = run_script(text.replace(LISTEN, f"127.0.0.1:{port}"), folder, path=path, **settings)
    assert wanted
    assert missing_in(said, wanted) == [], said


@pytest.mark.slow
def test_the_commands_of_the_page_give_the_documented_output_on_sqlite(tmp_path: Path) -> None:
    run_part(SQLITE, tmp_path)
    for copy in (tmp_path / "copy.db", tmp_path / "before-upgrade.db"):
        assert copy.stat().st_mode & 0o077 == 0, "other users can read the copy"
        with sqlite3.connect(copy) as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    left = sorted(path.name for path in (tmp_path / "moved").glob("ostiary.db*"))
    assert left == ["ostiary.db", "ostiary.db.lock1"], "a copy leaves nothing beside the database of a stopped server"


@pytest.mark.slow
def test_the_commands_of_the_page_give_the_documented_output_on_postgresql(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    names = [postgres_server.create(), postgres_server.create()]
    urls = dict(zip(("DATABASE", "RESTORED"), map(postgres_server.url, names), strict=True))
    try:
        with postgres_server.connect(names[0]) as connection:  # `pg_dump` must not be older than the server
            row = connection.execute("select setting from pg_config where name = 'BINDIR'").fetchone()
        assert row is not None
        run_part(POSTGRESQL, tmp_path, path=row[0], **urls)
    finally:
        for name in names:
            postgres_server.drop(name)


def test_a_file_name_at_the_end_of_a_sentence_does_not_name_the_file_of_a_code_block() -> None:
    page = "Keep `ledger.pin`:\n\n```sh\nls\n```\n\n`backup.py`:\n\n```python\npass\n```\n"
    text, _ = script([page])
    commands = [line for line in text.splitlines() if line.startswith(("ls", "cat"))]
    assert commands == ["ls", "cat > backup.py <<'END OF FILE'"]
