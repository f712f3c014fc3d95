"""A plug-in of pytest for the integration tests of hvac: they use the server of `PEER_URL` and `PEER_TOKEN`.

The tests would start a server of their own for each class. The plug-in is loaded outside of this project's packages,
since hvac's package of tests is called `tests` too.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

utils: Any = import_module("tests.utils")  # hvac's
ServerManager: Any = import_module("tests.utils.server_manager").ServerManager


def _connect(manager: Any) -> None:
    manager.client = utils.create_client(url=os.environ["PEER_URL"])
    manager.root_token = os.environ["PEER_TOKEN"]
    manager.client.token = manager.root_token


def _do_nothing(manager: Any) -> None:
    return None


def _list_addresses(manager: Any) -> list[str]:
    return [os.environ["PEER_URL"]]


ServerManager.start = _connect
ServerManager.get_active_vault_addresses = _list_addresses
for _name in ("initialize", "unseal", "stop"):
    setattr(ServerManager, _name, _do_nothing)
utils.get_vault_version_string.cache = os.environ["PEER_VERSION"]
