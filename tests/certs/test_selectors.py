"""Selectors of workloads, and the facts that the cgroup of a process states."""

from __future__ import annotations

from inspect import signature

import pytest
from msgspec.structs import replace

from ostiary.cli.workloads import add
from ostiary.protocol.errors import Invalid
from ostiaryd.certs.model.workload import (
    MAX_ID,
    MAX_PATH,
    OVERFLOW_ID,
    Selectors,
    WorkloadFacts,
    check_selectors,
    is_ambiguous,
    is_match,
    parse_cgroup,
    pod_of,
    unit_of,
)

SHA256 = "0" * 64
POD = "2c48913c-b29f-11e7-9350-020968147796"
FACTS = WorkloadFacts(1000, 100, "/usr/bin/app", SHA256, "app.service", "/system.slice/app.service", POD)


@pytest.mark.parametrize(
    "selectors",
    [
        Selectors(uid=0),
        Selectors(uid=MAX_ID),
        Selectors(uid=1000, gid=0),
        Selectors(path="/usr/bin/app"),
        Selectors(path="/" + "x" * (MAX_PATH - 1)),
        Selectors(sha256=SHA256),
        Selectors(unit="app@1.service"),
        Selectors(unit="session-2.scope"),
        Selectors(cgroup="/system.slice"),
        Selectors(pod=POD),
        Selectors(pod="0" * 32),
    ],
)
def test_specific_selectors_are_accepted(selectors: Selectors) -> None:
    assert check_selectors(selectors) is selectors


@pytest.mark.parametrize(
    "selectors",
    [
        Selectors(uid=-1),
        Selectors(uid=MAX_ID + 1),
        Selectors(uid=OVERFLOW_ID),
        Selectors(uid=1, gid=OVERFLOW_ID),
        Selectors(path="usr/bin/app"),
        Selectors(path="/usr/bin/../bin/app"),
        Selectors(path="//usr/bin/app"),
        Selectors(path="/usr/bin/app/"),
        Selectors(path="/usr/bin/a\0"),
        Selectors(path="/"),
        Selectors(path=""),
        Selectors(path="/" + "x" * MAX_PATH),
        Selectors(sha256=SHA256[1:]),
        Selectors(sha256=SHA256 + "0"),
        Selectors(sha256="A" * 64),
        Selectors(unit="app"),
        Selectors(unit="user.slice"),
        Selectors(unit="a/b.service"),
        Selectors(cgroup="/"),
        Selectors(cgroup="system.slice"),
        Selectors(pod="pod" + POD),
        Selectors(pod=POD.upper()),
    ],
)
def test_malformed_selectors_are_refused(selectors: Selectors) -> None:
    with pytest.raises(Invalid):
        check_selectors(selectors)


@pytest.mark.parametrize("selectors", [Selectors(), Selectors(gid=100)])
def test_a_group_alone_is_not_specific_enough(selectors: Selectors) -> None:
    with pytest.raises(Invalid) as refused:
        check_selectors(selectors)
    assert refused.value.code == "too_broad"


ALL = Selectors(
    uid=1000, gid=100, path="/usr/bin/app", sha256=SHA256, unit="app.service", cgroup="/system.slice", pod=POD
)


def test_each_selector_has_a_process_fact_and_a_command_option() -> None:
    assert Selectors.__struct_fields__ == WorkloadFacts._fields
    assert set(Selectors.__struct_fields__) == set(signature(add).parameters) - {"name", "session"}


def test_every_selector_must_match() -> None:
    assert is_match(ALL, FACTS)
    others = WorkloadFacts(1001, 101, "/usr/bin/other", "1" * 64, "other.service", "/user.slice", "0" * 32)
    for name, value in others._asdict().items():
        other = WorkloadFacts(**FACTS._asdict() | {name: value})
        assert not is_match(ALL, other), name
        assert is_match(replace(ALL, **{name: None}), other), name


def test_an_unknown_fact_matches_no_selector() -> None:
    for name in ("path", "sha256", "unit", "cgroup", "pod"):
        assert not is_match(ALL, WorkloadFacts(**FACTS._asdict() | {name: ""})), name
    assert is_match(ALL, FACTS._replace(sha256=""), with_digest=False)


def test_a_cgroup_selector_covers_only_the_cgroup_and_the_cgroups_below() -> None:
    selectors = Selectors(cgroup="/system.slice/app.service")
    for cgroup, is_covered in (
        ("/system.slice/app.service", True),
        ("/system.slice/app.service/worker", True),
        ("/system.slice/app.service2", False),
        ("/system.slice", False),
    ):
        assert is_match(selectors, FACTS._replace(cgroup=cgroup)) is is_covered, cgroup


def test_a_user_selector_alone_is_ambiguous_with_every_selector_of_the_user() -> None:
    user, user_and_group = Selectors(uid=1000), Selectors(uid=1000, gid=1)
    program = Selectors(uid=1000, path="/usr/bin/app")
    assert is_ambiguous(user, user)
    assert is_ambiguous(user, program)
    assert is_ambiguous(program, user_and_group)
    assert not is_ambiguous(program, Selectors(uid=1000, path="/usr/bin/other"))
    assert not is_ambiguous(user, Selectors(uid=1001))
    assert not is_ambiguous(user, Selectors(path="/usr/bin/app"))


# ---------------------------------------------------------------------------------------- Cgroups

V1 = """12:pids:/system.slice/docker.service
11:memory:/other
1:name=systemd:/system.slice/docker.service
"""
HYBRID = "1:name=systemd:/system.slice/app.service\n0::/\n"


@pytest.mark.parametrize(
    ("lines", "cgroup"),
    [
        ("0::/system.slice/app.service\n", "/system.slice/app.service"),
        (V1, "/system.slice/docker.service"),
        (HYBRID, "/system.slice/app.service"),
        ("0::/\n", ""),
        ("0::/../../outside\n", ""),
        ("0::/system.slice/a:b.service\n", "/system.slice/a:b.service"),
        ("", ""),
        ("garbage", ""),
    ],
)
def test_the_cgroup_of_a_process_is_read_from_version_2_or_from_systemd(lines: str, cgroup: str) -> None:
    assert parse_cgroup(lines) == cgroup


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/app.service", "app.service"),
        ("/system.slice/system-app.slice/app@1.service", "app@1.service"),
        ("/system.slice/app.service/worker", "app.service"),
        ("/init.scope", "init.scope"),
        ("/user.slice/user-1000.slice/session-2.scope", "session-2.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app.service", "user@1000.service"),
        ("/docker/0123", ""),
        ("/system.slice", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_process_is_the_unit_of_the_system_manager(cgroup: str, unit: str) -> None:
    """A user's own manager can name a unit `app.service` below its own."""
    assert unit_of(cgroup) == unit


@pytest.mark.parametrize(
    "cgroup",
    [
        f"/kubepods/burstable/pod{POD}/9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961",
        f"/kubepods/pod{POD}/9bca",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/c-9.scope",
        f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-9.scope",
    ],
)
def test_the_pod_of_a_process_is_read_from_the_cgroup_of_the_kubelet(cgroup: str) -> None:
    assert pod_of(cgroup) == POD


@pytest.mark.parametrize(
    "cgroup",
    [
        f"/user.slice/user-1000.slice/user@1000.service/kubepods/pod{POD}/9bca",
        f"/system.slice/kubepods-pod{POD}.slice",
        f"/kubepods/besteffort/podother/pod{POD}",
        f"/kubepods/burstable/xpod{POD}/9bca",
        "/kubepods/burstable/pod12/9bca",
        "",
    ],
)
def test_a_cgroup_that_is_not_of_the_kubelet_names_no_pod(cgroup: str) -> None:
    assert pod_of(cgroup) == ""
