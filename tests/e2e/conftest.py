from __future__ import annotations

from tests.support.patient_guards import patient_guards
from tests.support.servers import live_server

__all__ = ["live_server", "patient_guards"]
