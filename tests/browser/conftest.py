"""The browser of a worker, and guards that wait."""

from __future__ import annotations

from tests.support.chromium import chromium
from tests.support.patient_guards import patient_guards

__all__ = ["chromium", "patient_guards"]
