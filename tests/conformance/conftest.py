from __future__ import annotations

from tests.support.patient_guards import patient_guards

__all__ = ["patient_guards"]
