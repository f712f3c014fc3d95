from __future__ import annotations

from tests.frameworks.environment import FRAMEWORKS, INSIDE, file_of
from tests.frameworks.framework_fixture import asking, orphan, people, stage
from tests.support.patient_guards import patient_guards
from tests.support.servers import live_server

__all__ = ["asking", "live_server", "orphan", "patient_guards", "people", "stage"]

collect_ignore = [] if INSIDE else [file_of(name).rpartition("/")[2] for name in FRAMEWORKS]
