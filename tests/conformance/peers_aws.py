"""Compare the API of AWS Secrets Manager with moto by moto's tests: `make peers CORPORA=DIR`.

DIR holds a copy of getmoto/moto, whose distribution has no tests. They run against this server and against moto's own
server; printed are the results by module, and each test whose result differs. `LISTED` are the differences that the
page on conformance gives reasons for; another difference is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.live_server import own_server
from tests.conformance.differences import MOTO as LISTED
from tests.conformance.peers_vault import PEERS, POLICY, Results, print_differences, print_table, read_report
from tests.secrets.backend_fixtures import KEY, KEY_ID, moto

MODULES = ("test_secretsmanager", "test_list_secrets", "test_policy", "test_secrets_duplication", "test_server")
REGION, ACCOUNT = "us-west-2", "123456789012"
TIMEOUT_S = 1800


def run_tests(source: Path, report: Path, url: str, key: str, secret: str, **more: str) -> Results:
    """Return the results of moto's tests against a server."""
    environment = {**os.environ, "PEER_URL": url, "TEST_SERVER_MODE": "true", "TEST_SERVER_MODE_ENDPOINT": url, **more}
    environment |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": REGION}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [str(PEERS), "-m", "pytest", "-q", "-p", "moto_plugin", "-p", "no:cacheprovider", "-W", "ignore"]
    command += ["-k", "not lambda", "-m", "not requires_docker"]  # moto runs functions of Lambda in Docker
    modules = [f"tests/test_secretsmanager/{module}.py" for module in MODULES]
    subprocess.run(
        [*command, f"--rootdir={source}", f"--junitxml={report}", *modules],
        cwd=source,
        env=environment,
        timeout=TIMEOUT_S,
        check=False,
        stdout=subprocess.DEVNULL,
    )
    return dict(read_report(report))


@contextmanager
def access_key(folder: Path) -> Iterator[tuple[str, str, str]]:
    """The URL of this server, and an access key of an agent that policies permit everything: its id and its secret."""
    settings = folder / "ostiary.toml"
    folder.mkdir()
    settings.write_text(f'aws_region = "{REGION}"\naws_account = "{ACCOUNT}"\n')
    with own_server(folder, "--config", str(settings)) as live:
        live.api("POST", "/policies", {"files": {"all.cedar": POLICY}})
        name, _ = live.agent()
        live.server.ostiary("agent", "allow-bearer", name, "--resource", "ostiary")
        key = live.server.ostiary("aws-key", "create", name, "--network", "127.0.0.0/8")
        yield key["endpoint"], key["access_key_id"], key["secret_access_key"]


def main(corpora: str) -> int:
    source = Path(corpora) / "moto"
    if not corpora or not (source / "tests/test_secretsmanager").is_dir():
        print("not run: getmoto/moto; fetch the repository and say CORPORA=DIR, the folder that holds it")
        return 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        with access_key(folder / "ours") as (url, key, secret):
            ours = run_tests(source, folder / "ours.xml", url, key, secret)
        (folder / "moto").mkdir()
        with moto(folder / "moto") as url:
            theirs = run_tests(source, folder / "theirs.xml", url, KEY_ID, KEY, PEER_IS_MOTO="true")
    print_table(ours, theirs, "moto")
    return print_differences(ours, theirs, "moto", LISTED)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
