"""certbot, dehydrated and Caddy obtain certificates; `make peers` runs further clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.acme_clients import CLIENTS, acme_house, path_of


@pytest.mark.slow
@pytest.mark.parametrize("client", ["certbot", "dehydrated"])
def test_an_acme_client_obtains_renews_and_revokes_a_certificate(tmp_path: Path, client: str) -> None:
    if path_of(client) is None:
        pytest.skip(f"{client} is not installed: `make setup` as root, or apt-get install {client}")
    with acme_house(tmp_path) as house:
        CLIENTS[client](house)
        assert house.entries("cert.revoke")


@pytest.mark.slow
def test_caddy_obtains_a_certificate_by_each_challenge(tmp_path: Path) -> None:
    if path_of("caddy") is None:
        pytest.skip("Caddy is not installed: `make .proxies/.setup`")
    with acme_house(tmp_path) as house:
        CLIENTS["caddy"](house)
        assert len(house.entries("cert.issue")) == 2
