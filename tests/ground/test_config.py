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


def test_the_command_line_overrides_the_environment_and_the_environment_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'listen = "a:1"\ntrust_domain = "file"\ntoken_lifetime_s = 60')
    environ = {"OSTIARY_TRUST_DOMAIN": "environment", "OSTIARY_TOKEN_LIFETIME_S": "90", "OSTIARY_URL": "not ours"}
    config = load_config(file, environ=environ, data_dir="d", token_lifetime_s=120, listen=None)
    assert (config.listen, config.trust_domain, config.token_lifetime_s) == ("a:1", "environment", 120)


def test_an_unknown_configuration_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="lisen"):
        load_config(write(tmp_path, 'lisen = "a:1"'), environ={}, data_dir="d")


def test_a_missing_or_malformed_configuration_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot read"):
        load_config(tmp_path / "absent.toml", environ={}, data_dir="d")
    with pytest.raises(Invalid, match="cannot read"):
        load_config(write(tmp_path, "= 1"), environ={}, data_dir="d")


def test_the_error_about_a_missing_data_folder_names_its_option() -> None:
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
        ("queue_wait_ms", 99, False),
        ("queue_wait_ms", 100, True),
        ("queue_wait_ms", 60_000, True),
        ("queue_wait_ms", 60_001, False),
        ("narrow_budget", -1, False),
        ("narrow_budget", 0, True),
        ("narrow_budget", 1001, False),
        ("trust_domain", "Example", False),
        ("trust_domain", "example.org", True),
        ("trust_domain", "a/b", False),
        ("trust_domain", "-a", False),
        ("trust_domain", "a" * 255, True),
        ("trust_domain", "a" * 256, False),
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
def test_a_value_outside_of_its_limits_is_refused(key: str, value: Any, good: bool) -> None:
    if good:
        assert getattr(load_config(environ={}, data_dir="d", **{key: value}), key) == value
    else:
        with pytest.raises(Invalid):
            load_config(environ={}, data_dir="d", **{key: value})


@pytest.mark.parametrize("name", ["mtls_url", "status_url"])
def test_the_error_for_a_malformed_url_names_its_setting(name: str) -> None:
    given: dict[str, Any] = {name: "https://id.example/"}
    with pytest.raises(Invalid, match=f"^{name} must not end in a slash"):
        load_config(environ={}, data_dir="d", **given)


@pytest.mark.parametrize(("name", "other"), [("trust_domain", "else.example"), ("public_url", "https://else.example")])
async def test_the_trust_domain_and_public_url_stay_as_the_first_start_set_them(
    config: Config, name: str, other: str
) -> None:
    async with open_world(config) as world:
        fixed = getattr(world.config, name)
    given = {field: getattr(config, field) for field in Config.__struct_fields__}
    async with open_world(Config(**given | {name: ""})) as world:
        assert getattr(world.config, name) == fixed
    with pytest.raises(Conflict, match=name):
        async with open_world(Config(**given | {name: other})):
            pass


async def test_a_new_server_accepts_compatible_client_assertions_and_an_older_server_stays_strict(
    config: Config,
) -> None:
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


async def test_a_server_that_listens_on_all_addresses_requires_a_public_url_at_its_first_start(tmp_path: Path) -> None:
    listening = Config(data_dir=str(tmp_path / "data"), listen="0.0.0.0:8700")
    with pytest.raises(Invalid, match="public URL `http://0.0.0.0:8700` names another machine") as refused:
        async with open_world(listening):
            pass
    assert "--public-url" in refused.value.hint
    async with open_world(replace(listening, public_url="https://id.example")):
        pass
    async with open_world(listening) as world:
        assert world.config.public_url == "https://id.example"


def test_the_file_of_network_places_is_read_and_checked(tmp_path: Path) -> None:
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
