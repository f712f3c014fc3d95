"""Compare the Vault API with OpenBao by the integration tests of hvac: `make peers`.

The tests come with the source distribution of hvac. They run against this server and against OpenBao; printed are the
results by module, and each test whose result differs. `LISTED` are the differences that the page on conformance gives
reasons for; another difference is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree.ElementTree import Element, parse

from harness.live_server import ServerFixture, own_server
from tests.conformance.differences import HVAC as LISTED
from tests.secrets.backend_fixtures import openbao

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".peers/bin/python"
MODULES = (
    "secrets_engines/test_kv_v1",
    "secrets_engines/test_kv_v2",
    "secrets_engines/test_transit",
    "secrets_engines/test_pki",
    "auth_methods/test_approle",
    "auth_methods/test_token",
    "auth_methods/test_jwt",
    "system_backend/test_wrapping",
    "system_backend/test_policy",
    "system_backend/test_policies",
    "system_backend/test_mount",
    "system_backend/test_auth",
    "system_backend/test_lease",
    "system_backend/test_health",
)
POLICY = """
@id("all") permit (principal is Agent, action, resource is Secret);
@id("issue-token") permit (principal is Agent, action == Action::"issue_token", resource is Resource);
"""
TIMEOUT_S = 1800

Results = dict[str, tuple[str, str]]
"""`MODULE::TEST` to the result (passed, failed, skipped) and its message."""


def fetch_tests(folder: Path) -> Path:
    """Return the folder of the source distribution of the version of hvac that is installed."""
    program = "from importlib.metadata import version; print(version('hvac'))"
    version = subprocess.check_output([PEERS, "-c", program], text=True).strip()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "hvac", "--dest"]
    subprocess.run([*command, str(folder), f"hvac=={version}"], check=True)
    with tarfile.open(folder / f"hvac-{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / f"hvac-{version}"


def run_tests(source: Path, url: str, token: str, version: str, report: Path) -> Results:
    """Return the results of hvac's tests against a server."""
    environment = {**os.environ, "PEER_URL": url, "PEER_TOKEN": token, "PEER_VERSION": version}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [
        str(PEERS),
        "-m",
        "pytest",
        "-q",
        "--override-ini=addopts=",
        "-p",
        "hvac_plugin",
        "-p",
        "no:cacheprovider",
    ]
    modules = [f"tests/integration_tests/api/{module}.py" for module in MODULES]
    subprocess.run(
        [*command, "-W", "ignore", f"--junitxml={report}", *modules],
        cwd=source,
        env=environment,
        timeout=TIMEOUT_S,
        check=False,
        stdout=subprocess.DEVNULL,
    )
    return dict(read_report(report))


def read_report(report: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the results of a report in the format of JUnit."""
    for case in parse(report).getroot().iter("testcase"):
        names = (case.get("classname") or "").split(".")
        module = next(name for name in reversed(names) if name.startswith("test_"))
        yield f"{module}::{case.get('name')}", _result(case)


def _result(case: Element) -> tuple[str, str]:
    for kind, result in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (found := case.find(kind)) is not None:
            return result, " ".join((found.get("message") or "").split())[:300]
    return "passed", ""


@contextmanager
def administrator(folder: Path) -> Iterator[tuple[ServerFixture, str]]:
    """This server with an agent that policies permit everything, and the Vault token of the agent."""
    import httpx2

    with own_server(folder) as live:
        live.api("POST", "/policies", {"files": {"all.cedar": POLICY}})
        name, _ = live.agent()
        live.server.ostiary("agent", "allow-bearer", name, "--resource", "ostiary")
        made = live.server.ostiary("agent", "create-secret", name)
        login = {"role_id": made["client_id"], "secret_id": made["client_secret"]}
        answer = httpx2.post(f"{live.server.url}/v1/auth/approle/login", json=login)
        yield live, answer.json()["auth"]["client_token"]


def print_table(ours: Results, theirs: Results, other: str) -> None:
    """Print passed, failed and skipped of this server and of another by module."""
    rest = f"{'failed':>8}{'skipped':>9}"
    print(f"{'module':<26}{'Ostiary: passed':>16}{rest}{f'{other}: passed':>17}{rest}")
    modules = sorted({test.partition("::")[0] for test in (*ours, *theirs)})
    for module in (*modules, ""):
        line = f"{module or 'all':<26}"
        for results, widths in ((ours, (16, 8, 9)), (theirs, (17, 8, 9))):
            counts = Counter(
                result for test, (result, _) in results.items() if test.startswith(f"{module}::" if module else "")
            )
            line += "".join(f"{counts[k]:>{w}}" for k, w in zip(("passed", "failed", "skipped"), widths, strict=True))
        print(line)


def print_differences(ours: Results, theirs: Results, other: str, listed: Iterable[str]) -> int:
    """Print the tests that fail here alone and are not listed; return 1 if there is one, else 0."""
    unlisted = 0
    for test in sorted({*ours, *theirs}):
        (our, why), (their, _) = ours.get(test, ("missing", "")), theirs.get(test, ("missing", ""))
        if our == "failed" and their != "failed" and not any(test.startswith(one) for one in listed):
            unlisted += 1
            print(f"  {test}: {our}, {other} {their}: {why}")
    return min(unlisted, 1)


def main() -> int:
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = fetch_tests(folder)
        with administrator(folder / "ours") as (live, token):
            ours = run_tests(source, live.server.url, token, "1.15.0", folder / "ours.xml")
        (folder / "bao").mkdir()
        with openbao(folder / "bao") as client:
            theirs = run_tests(source, client.url, client.token, "2.7.2", folder / "theirs.xml")
    print_table(ours, theirs, "OpenBao")
    return print_differences(ours, theirs, "OpenBao", LISTED)


if __name__ == "__main__":
    sys.exit(main())
