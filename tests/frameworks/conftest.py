from __future__ import annotations

from tests.feed.conftest import house
from tests.frameworks.environment import FRAMEWORKS, INSIDE, file_of
from tests.frameworks.stage import stage

__all__ = ["house", "stage"]

collect_ignore = [] if INSIDE else [file_of(name).rpartition("/")[2] for name in FRAMEWORKS]
