from __future__ import annotations

from tests.frameworks.environment import FRAMEWORKS, INSIDE, file_of
from tests.frameworks.framework_fixture import asking, live_server, orphan, people, stage
from tests.support.patient_guards import patient_guards

__all__ = ["asking", "live_server", "orphan", "patient_guards", "people", "stage"]

collect_ignore = [] if INSIDE else [file_of(name).rpartition("/")[2] for name in FRAMEWORKS]
