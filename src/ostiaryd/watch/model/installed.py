"""The installed detectors, listed without importing them: they need numpy, which the extra `detect` installs."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pkgutil import iter_modules

PACKAGE = "ostiaryd.watch.detectors"
NEGLECTED_CERTIFICATE, SIGNAL = "neglected_certificate", "signal"
BY_SERVER = {
    NEGLECTED_CERTIFICATE: "A certificate of the agent ends soon without a renewal, or its renewal fails.",
    SIGNAL: "A trusted issuer sent a security event that raises the risk of the agent.",
}
"""Names of findings that the server itself records, without a detector module, each with its description."""
INSTALL = 'pip install "ostiary[server,detect]"'
"""The command that installs the detectors' dependencies."""


def can_detect() -> bool:
    """Return whether the detectors can run here: numpy must be installed."""
    return find_spec("numpy") is not None


@cache
def detector_names() -> tuple[str, ...]:
    """Return the names of all detectors in alphabetical order."""
    spec = find_spec(PACKAGE)
    assert spec is not None
    return tuple(sorted(module.name for module in iter_modules(spec.submodule_search_locations)))


@cache
def describe_detector(name: str) -> str:
    """Return the meaning of findings with this name: the first line of the detector's docstring, or the text of
    `BY_SERVER` for a finding of the server itself. For any other name, the text says that a guard made the observation.
    """
    if name not in detector_names():
        return BY_SERVER.get(name, "A guard made the observation before the call ran.")
    spec = find_spec(f"{PACKAGE}.{name}")
    source = spec.loader.get_source(spec.name) if spec is not None and spec.loader is not None else None  # type: ignore[attr-defined]
    docstring = ast.get_docstring(ast.parse(source)) if source else None
    return (docstring or "").partition("\n")[0]
