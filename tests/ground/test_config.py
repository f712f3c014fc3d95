"""Configuration: later sources win, unknown keys and impossible values are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.config import Config, load_config, read_places
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import open_world


def write(folder: Path, text: str) -> Path:
    file = folder / "ostiary.toml"
    file.write_text(text)
    return file


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'listen = "a:1"\ntrust_domain = "file"\ntoken_lifetime_s = 60')
    environ = {"OSTIARY_TRUST_DOMAIN": "environment", "OSTIARY_TOKEN_LIFETIME_S": "90", "OSTIARY_URL": "not ours"}
    config = load_config(file, environ=environ, data_dir="d", token_lifetime_s=120, listen=None)
    assert (config.listen, config.trust_domain, config.token_lifetime_s) == ("a:1", "environment", 120)


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="lisen"):
        load_config(write(tmp_path, 'lisen = "a:1"'), environ={}, data_dir="d")


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot read"):
        load_config(tmp_path / "absent.toml", environ={}, data_dir="d")
    with pytest.raises(Invalid, match="cannot read"):
        load_config(write(tmp_path, "= 1"), environ={}, data_dir="d")


def test_without_a_data_folder_it_is_said_how_to_name_one() -> None:
    with pytest.raises(Invalid, match="data folder is not set") as refusal:
        load_config(environ={})
    assert refusal.value.hint == "set it with --data-dir DIR"


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("token_lifetime_s", 9, False),
        ("token_lifetime_s", 10, True),
        ("token_lifetime_s", 3600, True),
        ("token_lifetime_s", 3601, False),
        ("max_request_bytes", 4095, False),
        ("max_request_bytes", 4096, True),
        ("token_alg", "HS256", False),
        ("token_alg", "RS256", True),
        ("proxies", "10.0.0.0/8 2001:db8::/32", True),
        ("proxies", "10.0.0.1/8", False),
        ("proxies", "proxy", False),
        ("narrow_budget", -1, False),
        ("narrow_budget", 0, True),
        ("narrow_budget", 1001, False),
        ("trust_domain", "Example", False),
        ("trust_domain", "example.org", True),
        ("trust_domain", "a/b", False),
        ("public_url", "https://id.example", True),
        ("public_url", "https://id.example/", False),
        ("public_url", "http://id.example", False),
        ("public_url", "http://127.0.0.1:1", True),
        ("public_url", "https://u@id.example", False),
        ("public_url", "https://id.example/?q", False),
        ("public_url", "ftp://id.example", False),
        ("public_url", "https://", False),
    ],
)
def test_each_value_has_its_limits(key: str, value: Any, good: bool) -> None:
    if good:
        assert getattr(load_config(environ={}, data_dir="d", **{key: value}), key) == value
    else:
        with pytest.raises(Invalid):
            load_config(environ={}, data_dir="d", **{key: value})


@pytest.mark.parametrize(("name", "other"), [("trust_domain", "else.example"), ("public_url", "https://else.example")])
async def test_what_the_first_start_fixed_stays(config: Config, name: str, other: str) -> None:
    async with open_world(config) as world:
        fixed = getattr(world.config, name)
    given = {field: getattr(config, field) for field in Config.__struct_fields__}
    async with open_world(Config(**given | {name: ""})) as world:
        assert getattr(world.config, name) == fixed
    with pytest.raises(Conflict, match=name):
        async with open_world(Config(**given | {name: other})):
            pass


async def test_a_new_server_takes_compatible_assertions_and_an_older_one_stays_strict(config: Config) -> None:
    async with open_world(config) as world:
        assert world.config.client_assertions == "compatible"
    async with open_world(replace(config, client_assertions="strict")) as world:
        assert world.config.client_assertions == "strict"
    async with open_world(config) as world:
        assert world.config.client_assertions == "compatible", "what the file says is not kept"
        await world.writer.submit(lambda tx: tx.run(sql("delete from setting where name = 'client_assertions'")))
    for _ in range(2):
        async with open_world(config) as world:
            assert world.config.client_assertions == "strict", "as the server was before there was a choice"
    async with open_world(replace(config, client_assertions="compatible")) as world:
        assert world.config.client_assertions == "compatible"


async def test_who_listens_off_this_machine_says_the_first_time_which_url_others_use(tmp_path: Path) -> None:
    listening = Config(data_dir=str(tmp_path / "data"), listen="0.0.0.0:8700")
    with pytest.raises(Invalid, match="public URL `http://0.0.0.0:8700` names another machine") as refused:
        async with open_world(listening):
            pass
    assert "--public-url" in refused.value.hint
    async with open_world(replace(listening, public_url="https://id.example")):
        pass
    async with open_world(listening) as world:
        assert world.config.public_url == "https://id.example"


def test_where_networks_are_is_read_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "places"
    file.write_text("10.0.0.0/8 50 8\n")
    config = load_config(data_dir="/tmp/x", places=str(file), environ={})
    assert read_places(config.places).of("10.0.0.0/24") == (50.0, 8.0)
    assert read_places("").of("10.0.0.0/24") is None
    file.write_text("10.0.0.0/8 here")
    with pytest.raises(Invalid, match="places, line 1"):
        load_config(data_dir="/tmp/x", places=str(file), environ={})
    for unreadable in (tmp_path, tmp_path / "none"):
        with pytest.raises(Invalid, match="the file of the setting `places`"):
            load_config(data_dir="/tmp/x", places=str(unreadable), environ={})
