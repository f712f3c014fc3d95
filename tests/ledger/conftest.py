from __future__ import annotations

import pytest


@pytest.fixture
def data_folder() -> None:
    """No folder in memory: what survives a kill or a power cut is tried on a disk."""
