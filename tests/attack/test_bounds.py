"""A hijacked agent chooses arguments, and asks for bounds within its bounds: neither may lead out or take for ever."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import Any

import pytest

from ostiary.authorization.bounds import glob, narrow, parse_details, permits

FILES = "https://files.example/mcp"
WORKS_S = 1.0
"""far above what it takes, far below what stops guards from hearing the server in time"""


def detail(**arguments: Any) -> dict[str, Any]:
    return {"type": "tool", "locations": [FILES], "arguments": arguments}


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("file.path", {"file": {"path": "/srv/a"}, "file.path": "/etc/shadow"}),
        ("a.file.path", {"a": {"file": {"path": "/srv/a"}}, "a.file.path": "/etc/shadow"}),
        ("a.file.path", {"a": {"file": {"path": "/srv/a"}, "file.path": "/etc/shadow"}}),
        ("a.file.path", {"a": {"file": {"path": "/srv/a"}}, "a.file": {"path": "/etc/shadow"}}),
    ],
)
def test_a_bound_on_a_nested_argument_is_not_met_by_a_name_with_dots(path: str, arguments: dict[str, Any]) -> None:
    details = parse_details([detail(**{path: {"prefix": "/srv/"}})])
    assert not permits(details, resource_uri=FILES, tool="read", arguments=arguments)


def test_a_name_with_dots_outside_the_bounded_path_is_permitted() -> None:
    details = parse_details([detail(**{"file.path": {"prefix": "/srv/"}})])
    arguments = {"file": {"path": "/srv/a"}, "file.name": "x", "x.path": "y"}
    assert permits(details, resource_uri=FILES, tool="read", arguments=arguments)


def winding(number: int) -> dict[str, Any]:
    """A glob of many whose every letter may stand at many places."""
    parts = ["aa"] * 84
    parts[number % 80], parts[number // 80] = "a?", "?a"
    return {"glob": "*" + "*".join(parts) + "*"}


def test_narrowing_the_largest_bounds_takes_bounded_time() -> None:
    outer = parse_details([detail(**{f"p{n}": winding(o * 28 + n) for n in range(28)}) for o in range(32)])
    inner = parse_details(
        [detail(**{f"p{n}": {"glob": "a" * (200 + n + 28 * i)} for n in range(28)}) for i in range(2)]
    )
    gc.collect()
    gc.disable()  # what other tests have left is not the work that is measured
    try:
        started = time.thread_time()
        assert narrow(outer, inner) == inner
        assert time.thread_time() - started < WORKS_S
    finally:
        gc.enable()


def test_the_caches_of_compared_patterns_are_bounded() -> None:
    patterns = [glob.prefix_pattern(f"{n:04}" + "x" * 1020) for n in range(300)]
    tracemalloc.start()
    try:
        for pattern in patterns:
            glob.includes(glob.prefix_pattern(""), pattern)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    limits = [cache.cache_parameters()["maxsize"] for cache in (glob._places, glob.glob_pattern, glob._matcher)]
    assert limits == [256, 1024, 1024]
    assert held < 64 << 20
