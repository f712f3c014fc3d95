"""Workloads: processes that act for an agent, identified by selectors, which are facts about a process that the kernel
states.

A process belongs to a workload if it matches all selectors of the workload. A process gets the identities of all
workloads that it matches.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple, NewType

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.registry.model import AgentId

WorkloadId = NewType("WorkloadId", str)
MAX_OF_AGENT = 16
MAX_MATCHES = 64
"""Maximum number of agents that one process may match; a process that matches more is refused."""
MAX_PATH = 4096
MAX_ID = (1 << 32) - 2
OVERFLOW_ID = 65_534
"""Id that the kernel shows for each user or group that a user namespace does not map."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,247}\.(?:service|scope)")
_UUID = r"[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD_ID = re.compile(_UUID)
_POD = re.compile(rf"(?:kubepods(?:-[a-z]+)?-)?pod({_UUID})(?:\.slice)?")


class Selectors(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Facts that a process must have: effective user and group, path and SHA-256 (hexadecimal) of its executable,
    systemd unit, cgroup (or a cgroup below it), and UID of its Kubernetes pod. None: any value matches.
    """

    uid: int | None = None
    gid: int | None = None
    path: str | None = None
    sha256: str | None = None
    unit: str | None = None
    cgroup: str | None = None
    pod: str | None = None

    @property
    def is_user_alone(self) -> bool:
        """Return whether the selectors name a user, and nothing else except possibly a group."""
        return self == Selectors(uid=self.uid, gid=self.gid) and self.uid is not None


SPECIFIC = tuple(name for name in Selectors.__struct_fields__ if name not in ("uid", "gid"))
"""The selectors that identify a process more closely than its user and group do."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A registered workload: the processes that match the selectors act for the agent."""

    workload_id: WorkloadId
    agent: AgentId
    selectors: Selectors
    created_at: int


class WorkloadFacts(NamedTuple):
    """The facts about a process that are compared with selectors; an unknown fact is empty."""

    uid: int
    gid: int
    path: str
    sha256: str
    unit: str
    cgroup: str
    pod: str


def check_selectors(selectors: Selectors) -> Selectors:
    """Return the selectors if they are well-formed and specific enough to identify an agent's processes. Raises Invalid
    otherwise.
    """
    for name in ("uid", "gid"):
        value = getattr(selectors, name)
        if value is not None and (not 0 <= value <= MAX_ID or value == OVERFLOW_ID):
            raise Invalid(
                f"`{name}` must be 0 to {MAX_ID}, and not {OVERFLOW_ID}",
                hint=f"the kernel shows {OVERFLOW_ID} for every {name} that it cannot map",
            )
    for name in ("path", "cgroup"):
        if (value := getattr(selectors, name)) is not None and not _is_absolute(value):
            raise Invalid(
                f"`{name}` is not an absolute path in its shortest form", hint="write the path without `..` and `//`"
            )
    for name, form, hint in (
        ("sha256", _SHA256, "write 64 hexadecimal digits in lower case, as sha256sum prints them"),
        ("unit", _UNIT, "write a unit as billing.service"),
        ("pod", _POD_ID, "write the `metadata.uid` of the pod"),
    ):
        if (value := getattr(selectors, name)) is not None and not form.fullmatch(value):
            raise Invalid(f"`{name}` is malformed", hint=hint)
    if selectors == Selectors(gid=selectors.gid):
        raise Invalid(
            "the selectors are not specific enough",
            hint=f"name at least one of {', '.join(('uid', *SPECIFIC))}",
            code="too_broad",
        )
    return selectors


def _is_absolute(path: str) -> bool:
    return (
        1 < len(path) <= MAX_PATH
        and path.startswith("/")
        and not path.startswith("//")
        and posixpath.normpath(path) == path
        and path.isprintable()
    )


def is_match(selectors: Selectors, facts: WorkloadFacts, *, with_digest: bool = True) -> bool:
    """Return whether the process matches all selectors. Without `with_digest`, the digest of the executable is
    not compared.
    """
    return (
        selectors.uid in (None, facts.uid)
        and selectors.gid in (None, facts.gid)
        and selectors.path in (None, facts.path)
        and (not with_digest or selectors.sha256 in (None, facts.sha256))
        and selectors.unit in (None, facts.unit)
        and (
            selectors.cgroup is None
            or facts.cgroup == selectors.cgroup
            or facts.cgroup.startswith(f"{selectors.cgroup}/")
        )
        and (selectors.pod is None or facts.pod == selectors.pod.replace("_", "-"))
    )


def is_ambiguous(one: Selectors, other: Selectors) -> bool:
    """Return whether both selectors name the same user, and at least one of them names nothing else except possibly a
    group.
    """
    return (one.is_user_alone or other.is_user_alone) and one.uid == other.uid


def parse_cgroup(lines: str) -> str:
    """Return the cgroup of a process from the text of /proc/PID/cgroup: the cgroup of version 2, otherwise of the
    hierarchy of systemd.

    The result is empty for a process in the root cgroup, or outside the cgroup namespace of the server.
    """
    paths = {}
    for line in lines.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" or controllers == "name=systemd":
            paths[controllers] = path
    chosen = next((path for name in ("", "name=systemd") if (path := paths.get(name, "/")) != "/"), "")
    return "" if ".." in chosen.split("/") else chosen


def unit_of(cgroup: str) -> str:
    """Return the systemd unit in the path of a cgroup: the first part that is not a slice; empty if it is not a unit.

    Deeper parts are ignored, because a user's own service manager can choose their names.
    """
    part = next((part for part in cgroup.split("/")[1:] if not part.endswith(".slice")), "")
    return part if _UNIT.fullmatch(part) else ""


def pod_of(cgroup: str) -> str:
    """Return the UID of the Kubernetes pod in the path of a cgroup that the kubelet created; empty for other
    cgroups.
    """
    parts = cgroup.split("/")[1:]
    if not parts or parts[0] not in ("kubepods", "kubepods.slice"):
        return ""
    pod = next((match for part in parts[1:3] if (match := _POD.fullmatch(part)) is not None), None)
    return "" if pod is None else pod[1].replace("_", "-")
