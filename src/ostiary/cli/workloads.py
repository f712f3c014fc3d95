"""`ostiary agent workload`: processes that get the SVIDs of an agent from the Workload API."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, table
from ostiary.cli.session import PAGE, Here

workload = App(name="workload", help="Register, list and remove the processes that get SVIDs of an agent.")


@workload.command(name="add")
def add(
    name: str,
    /,
    *,
    uid: int | None = None,
    gid: int | None = None,
    path: str | None = None,
    sha256: str | None = None,
    unit: str | None = None,
    cgroup: str | None = None,
    pod: str | None = None,
    session: Here,
) -> None:
    """Register a workload: processes that match all the selectors get SVIDs of the agent.

    With `--uid` alone, every process of the user matches; a user can be registered so for one agent only.

    Args:
        name: Name or id of the agent.
        uid: Effective user of the process.
        gid: Effective group of the process.
        path: Path of the executable, as the server sees it.
        sha256: SHA-256 of the executable in hexadecimal digits, as sha256sum prints it.
        unit: Unit of systemd, such as billing.service.
        cgroup: Cgroup of the process, or a cgroup above this cgroup, as in /proc/PID/cgroup.
        pod: UID of the Kubernetes pod.
    """
    selectors = {
        "uid": uid,
        "gid": gid,
        "path": path,
        "sha256": sha256,
        "unit": unit,
        "cgroup": cgroup,
        "pod": pod,
    }
    body = {selector: value for selector, value in selectors.items() if value is not None}
    session.show(session.api("POST", f"/agents/{name}/workloads", body), lambda made: facts(_row(made)))


@workload.command(name="list")
def list_workloads(name: str | None = None, /, *, limit: int = PAGE, session: Here) -> None:
    """List workloads with their selectors and SPIFFE IDs.

    Args:
        name: Name or id of an agent; without it, the workloads of all agents.
        limit: Largest number of rows.
    """
    columns = {"agent": "AGENT", "selectors": "SELECTORS", "spiffe_id": "SPIFFE ID", "workload_id": "ID"}
    rows = session.pages("/workloads", "workloads", limit=limit, query={"agent": name})
    empty = "no workloads: ostiary agent workload add --help"
    session.show(rows, lambda rows: table([_row(row) for row in rows], columns, empty=empty))


@workload.command(name="remove")
def remove(workload_id: str, /, *, session: Here) -> None:
    """Remove a workload. Its processes lose the SVIDs of the agent.

    Args:
        workload_id: Id from `ostiary agent workload list`.
    """
    session.show(session.api("DELETE", f"/workloads/{workload_id}"), lambda removed: facts(_row(removed)))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"selectors": " ".join(f"{name}={value}" for name, value in row["selectors"].items())}
