"""Plants a fault in a copy of our engine.

The copy is imported beside the real modules, which stay as they are, so this can run in the middle of a test session.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType

from harness.cedar_differential.faults import Fault
from harness.cedar_differential.run import Engine

_ROOT = "ostiary.authorization.cedar"
_LOWER = "ostiaryd.policy.model.lower"


@contextmanager
def planted(fault: Fault) -> Iterator[Engine]:
    """Import our engine with this fault for the time of the block."""
    ours = [name for name in sys.modules if name.startswith((_ROOT, _LOWER))]
    kept = {name: sys.modules.pop(name) for name in ours}
    parents = [(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], kept[name]) for name in (_ROOT, _LOWER)]
    target = _LOWER if fault.module == "lower" else f"{_ROOT}.{fault.module}"
    finder = _Finder(target, kept[target].__file__ or "", fault)
    sys.meta_path.insert(0, finder)
    try:
        yield Engine(
            ir=importlib.import_module(f"{_ROOT}.ir"),
            values=importlib.import_module(f"{_ROOT}.values"),
            compile=importlib.import_module(f"{_ROOT}.compile"),
            lower=importlib.import_module(_LOWER),
        )
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith((_ROOT, _LOWER))]:
            del sys.modules[name]
        sys.modules.update(kept)
        for parent, name, module in parents:
            setattr(parent, name, module)


class _Finder:
    """An import finder that finds the module with the fault, and leaves all other modules to the usual finders."""

    def __init__(self, target: str, path: str, fault: Fault) -> None:
        self.target, self.path, self.fault = target, path, fault

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.target:
            return None
        return spec_from_file_location(name, self.path, loader=_Loader(name, self.path, self.fault))


class _Loader(SourceFileLoader):
    """A loader that compiles the changed text, without reading or writing a cache."""

    def __init__(self, name: str, path: str, fault: Fault) -> None:
        super().__init__(name, path)
        self.fault = fault

    def get_code(self, fullname: str) -> CodeType:
        text = self.get_data(self.path).decode()
        if text.count(self.fault.find) != 1:
            raise AssertionError(f"{self.fault.name}: the text stands {text.count(self.fault.find)} times, not once")
        return compile(text.replace(self.fault.find, self.fault.replace), self.path, "exec", dont_inherit=True)
