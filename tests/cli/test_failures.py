"""A command that does not succeed says what is wrong in one line, what to do in another, and exits by its kind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import Commands, Ran, environment, run
from harness.live_server import free_port
from harness.patience import PATIENCE_S
from harness.server import COMMAND, Server, running


def check_said(ran: Ran, code: int, *words: str) -> None:
    """Check the exit code, and that standard error has one line and at most one hint with these words."""
    assert ran.code == code, ran
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert 1 <= len(lines) <= 2, ran.err
    assert all(line.startswith("hint: ") for line in lines[1:])
    for word in words:
        assert word in ran.err


@pytest.fixture
def closed() -> str:
    """A URL without a server."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    "words",
    [
        ("agent", "list"),
        ("person", "create", "bob", "--email", "b@example.org"),
        ("audit", "verify"),
        ("revoke", "agent", "writer"),
        ("policy", "list"),
        ("keys", "list"),
        ("feed", "list"),
    ],
)
def test_a_server_that_does_not_answer_is_exit_3(server: Server, closed: str, words: tuple[str, ...]) -> None:
    with environment(OSTIARY_URL=closed, OSTIARY_CREDENTIAL=str(server.folder / "admin.json")):
        check_said(run(*words), 3, f"the server {closed} does not answer", "start the server")


def test_an_untrusted_server_certificate_is_exit_3_and_the_hint_names_the_ca_file(tmp_path: Path) -> None:
    with running(tmp_path, "--tls", "auto"), environment(OSTIARY_DATA_DIR=str(tmp_path)):
        check_said(run("agent", "list"), 3, "is not trusted", "SSL_CERT_FILE", "ca.pem")
        with environment(SSL_CERT_FILE=str(tmp_path / "ca.pem")):
            assert run("agent", "list").code == 0


def test_an_export_names_the_authority_that_is_missing(tmp_path: Path) -> None:
    with running(tmp_path), environment(OSTIARY_DATA_DIR=str(tmp_path)):
        run("ca", "request", "--write", tmp_path / "request.pem")
        check_said(run("ca", "export"), 2, "the server has no root", "ostiary ca init")
        check_said(run("ca", "export", "--chain"), 2, "the server has no active intermediate", "ostiary ca show")
        assert run("ca", "init").code == 0
        assert run("ca", "export", "--chain").code == 0


@pytest.mark.parametrize("words", [("person", "deputy", "ann"), ("lease", "revoke")])
def test_an_argument_that_is_not_utf_8_is_exit_2(server: Server, words: tuple[str, ...]) -> None:
    with environment(OSTIARY_DATA_DIR=str(server.folder)):
        check_said(run(*words, "\udcff"), 2, "an argument contains bytes that are not UTF-8")


def test_the_doctor_of_a_server_that_does_not_answer_prints_its_line_and_exits_3(server: Server, closed: str) -> None:
    with environment(OSTIARY_URL=closed, OSTIARY_CREDENTIAL=str(server.folder / "admin.json")):
        ran = run("doctor", "--json")
    assert ran.code == 3
    [line] = json.loads(ran.out)
    assert (line["name"], line["state"]) == ("server", "fail")


def test_a_wrong_data_folder_is_exit_2_and_names_the_serve_command(tmp_path: Path) -> None:
    check_said(run("agent", "list", "--data-dir", tmp_path), 2, f"ostiary serve --data-dir {tmp_path}")
    check_said(run("doctor", "--data-dir", tmp_path), 2, f"ostiary serve --data-dir {tmp_path}")
    (tmp_path / "server.json").write_text("{")
    check_said(run("agent", "list", "--data-dir", tmp_path), 2, "server.json is damaged")


def test_a_missing_server_or_credential_names_the_options_that_set_them() -> None:
    nothing = {"OSTIARY_URL": None, "OSTIARY_CREDENTIAL": None, "OSTIARY_DATA_DIR": None}
    with environment(**nothing):
        check_said(run("agent", "list"), 2, "no server is named", "--data-dir DIR", "OSTIARY_URL")
    with environment(**nothing | {"OSTIARY_URL": "http://127.0.0.1:9"}):
        check_said(run("agent", "list"), 2, "no credential is named", "OSTIARY_CREDENTIAL")
    with environment(**nothing | {"OSTIARY_URL": "not a url", "OSTIARY_CREDENTIAL": "/nowhere.json"}):
        check_said(run("agent", "list"), 2, "cannot read the credential /nowhere.json", "--generate-key")


@pytest.mark.parametrize("words", [("agent", "list"), ("serve",), ()])
def test_data_dir_without_a_folder_is_exit_2(words: tuple[str, ...]) -> None:
    check_said(run(*words, "--data-dir"), 2, "--data-dir requires an argument")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("127.0.0.1:8700", "the URL of the server begins with neither"),
        ("http://[::1", "'http://[::1' is not the URL of a server"),
        ("http://127.0.0.1:x", "'http://127.0.0.1:x' is not the URL of a server"),
        ("http://127.0.0.1:65536", "'http://127.0.0.1:65536' is not the URL of a server"),
    ],
)
def test_a_text_that_is_not_the_url_of_a_server_is_wrong_usage(server: Server, url: str, why: str) -> None:
    with environment(OSTIARY_URL=url, OSTIARY_CREDENTIAL=str(server.folder / "admin.json")):
        check_said(run("agent", "list"), 2, why, "check OSTIARY_URL and `issuer` in the credential file")


@pytest.mark.parametrize("options", [("--scope", ""), ("--scope", " "), ("--resource", "")])
def test_an_empty_option_of_a_token_is_not_an_absent_option(
    ostiary: Commands, server: Server, options: tuple[str, str]
) -> None:
    credential = server.folder / "admin.json"
    agent = json.loads(credential.read_text())["client_id"]
    proxy = ("proxy", "--to", server.url, "--as", credential, "--listen", "127.0.0.1:0", "--purpose", "p")
    tasks = ostiary.json("task", "list", "--agent", agent)
    for words in (("token", "--agent", agent, "--key", credential), proxy, (*proxy, "--guard", credential)):
        check_said(ostiary(*words, *options), 2, "a token is requested for an empty")
    assert ostiary.json("task", "list", "--agent", agent) == tasks, "no task is declared"


def test_a_credential_of_another_server_names_both_servers(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    credential = json.loads((server.folder / "admin.json").read_text())
    other.touch(0o600)
    other.write_text(json.dumps(credential | {"client_id": "ag_" + "0" * 32, "issuer": "https://id.example"}))
    with environment(OSTIARY_URL=server.url, OSTIARY_CREDENTIAL=str(other)):
        check_said(run("agent", "list"), 1, "the credential is of https://id.example", server.url)
        other.write_text(json.dumps(credential | {"client_id": "ag_" + "0" * 32}))
        assert "the credential is of" not in run("agent", "list").err


def test_a_credential_without_the_scope_names_the_command_that_grants_the_scope(
    ostiary: Commands, server: Server, tmp_path: Path
) -> None:
    key = tmp_path / "reader.json"
    ostiary.json("agent", "create", "lacking", "--owner", "ada", "--purpose", "p", "--generate-key", str(key))
    with environment(OSTIARY_URL=server.url, OSTIARY_CREDENTIAL=str(key)):
        check_said(run("agent", "list"), 1, "lacks the scope `ostiary:read`", "ostiary agent allow")


def test_an_empty_folder_of_secrets_is_an_empty_list(ostiary: Commands) -> None:
    listed = ostiary("secret", "list", "secret/nothing-here/")
    assert (listed.code, "no secret in secret/nothing-here/: ostiary secret put --help" in listed.out) == (0, True)
    assert ostiary.json("secret", "list", "secret/nothing-here/") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("agent", "show", "nobody"), "ostiary agent list"),
        (("person", "show", "nobody"), "ostiary person list"),
        (("resource", "show", "nothing"), "ostiary resource list"),
        (("task", "show", "tk_none"), "ostiary task list"),
        (("policy", "show", "nothing"), "ostiary policy list"),
        (("agent", "create", "x", "--owner", "nobody", "--purpose", "p"), "nobody"),
        (("agent", "create", "No!", "--owner", "ada", "--purpose", "p"), "capital letter n"),
        (("audit", "search", "--agent", "nobody"), "ostiary agent list"),
        (("audit", "show", "999999"), "ostiary audit search"),
        (("approvals", "show", "ap_none"), "ostiary approvals list"),
        (("secret", "get", "secret/nothing/here"), "ostiary secret list"),
        (("agent", "create", "x", "--owner", "nobody", "--purpose", "p"), "ostiary person create"),
        (("audit", "prove", "999999"), "no entry 999999"),
        (("revoke", "token", "tok_none"), "token not found"),
        (("revoke", "key", "-abc"), "no agent has a key with this thumbprint"),
        (("trust-anchor", "remove", "-abc"), "ostiary trust-anchor list"),
        (("login-provider", "unlink", "none", "-abc"), "ostiary login-provider list"),
        (("approvals", "approve", "ap_none", "--value", "-abc", "--reason", "r"), "only a person can answer"),
        (("policy", "show", "-a-bc"), "ostiary policy list"),
        (("policy", "show", "--", "-a-bc"), "ostiary policy list"),
        (("keys", "rotate", "--use", "token", "--alg", "none"), "no none key"),
        (("person", "create", "ada", "--email", "a@example.org"), "ada"),
    ],
)
def test_a_refusal_by_the_server_is_exit_1_with_its_message(
    ostiary: Commands, words: tuple[str, ...], said: str
) -> None:
    check_said(ostiary(*words), 1, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("agent", "crate"), "ostiary agent create --help"),
        (("agnet", "list"), "ostiary agent --help"),
        (("agent", "create", "x"), "--owner"),
        (("agent", "create", "x", "--owner"), "--owner"),
        (("agent", "list", "--bogus"), "--bogus"),
        (("agent", "list", "surplus"), "surplus"),
        (("agent", "list", "--limit", "many"), "many"),
        (("revoke", "anything", "x"), "agent"),
        (("agent", "show", "../persons"), "not a name or an id"),
        (("agent", "show", "a?b"), "not a name or an id"),
        (("agent", "show", ""), "not a name or an id"),
        (("agent", "show", ".a"), "names begin with a letter or a digit"),
        (("protect", ":app", "--name", "a", "--uri", "http://a"), "`:app` is no module:application"),
        (("protect", "ftp://a", "--uri", "http://a"), "`ftp://a` is no module:application"),
        (("decide", "/nowhere.json"), "cannot read /nowhere.json: No such file"),
        (("decide", "/etc"), "cannot read /etc"),
        (("policy", "put", "/nowhere"), "/nowhere is not a folder"),
        (("audit", "verify", "/nowhere"), "/nowhere is not a folder"),
        (("audit", "verify", "--key", "nothing"), "cannot read nothing"),
        (("audit", "verify", "--seen", "/nowhere"), "/nowhere"),
        (("audit", "search", "--since", "yesterday"), "cannot read 'yesterday' as a time"),
        (("key", "add", "admin"), "no key is named"),
        (("key", "add", "admin", "--generate-key", "/a", "--jwk", "/b"), "`--generate-key` and `--jwk` exclude each"),
        (("key", "list", "a b"), "'a b' is not a name or an id"),
        (
            ("egress", "add", "a", "--origin", "https://a.example", "--secret", "secret/a", "--header", ""),
            "--header 'Authorization: Bearer {secret}'",
        ),
        (
            ("egress", "add", "a", "--origin", "https://a.example", "--secret", "secret/a", "--query", "key"),
            "--query 'key={secret}'",
        ),
        (
            ("egress", "add", "a", "--origin", "https://a.example", "--secret", "secret/a", "--body", "=x"),
            "--body 'key={secret}'",
        ),
        *(
            (
                ("egress", "add", "a", "--origin", "https://a.example", "--secret", "secret/a", "--scopes", empty),
                "`--scopes` is empty",
            )
            for empty in ("", " ")
        ),
        *(
            (("run", "--agent", name, "--http", "a=http://a", "--", "true"), "is not the name of an agent")
            for name in ("", "../a", "A", "a b", "a" * 64)
        ),
        (("secret", "put", "secret/a"), "no value is given"),
        (("secret", "put", "secret/a", "b=c", "--source", "/nowhere"), "`--source` and NAME=VALUE exclude each other"),
        (("enforce", "admin"), "`ostiary run` has registered no resource for the agent `admin`"),
        (("agent", "create", "x", "--owner", "ada", "--purpose", "p", "--generate-key", "/nowhere/k"), "/nowhere"),
        (("token", "--agent", "ag_1", "--key", "/nowhere"), "cannot read /nowhere"),
        (("audit", "export", "/proc/nothing"), "/proc/nothing"),
    ],
)
def test_wrong_usage_is_exit_2_and_names_the_problem(ostiary: Commands, words: tuple[str, ...], said: str) -> None:
    check_said(ostiary(*words), 2, said)


def test_a_dash_reads_standard_input(server: Server) -> None:
    where = ["--data-dir", str(server.folder)]
    for words, given, code, said in (
        (("decide", "-"), "{", 2, "-: not JSON"),
        (
            ("agent", "enrol", "--join-token", "-", "--generate-key", f"{server.folder}/no"),
            "x\n",
            1,
            "invalid_join_token",
        ),
    ):
        command = [str(COMMAND), *words, *where]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        check_said(Ran(done.returncode, done.stdout, done.stderr), code, said)


def test_malformed_files_are_named_in_the_error(ostiary: Commands, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    for content, said in ((b"{", "not JSON"), (b'{"a":1,"a":2}', "twice"), (b"\xff\xfe", "")):
        bad.write_bytes(content)
        check_said(ostiary("decide", bad), 2, str(bad), said)
        check_said(ostiary("resource", "catalogue", "ostiary", bad), 2, str(bad))
        check_said(ostiary("agent", "create", "x", "--owner", "ada", "--purpose", "p", "--jwk", bad), 2, str(bad))
        bad.chmod(0o600)
        check_said(ostiary("token", "--agent", "ag_1", "--key", bad), 2, str(bad))
    (tmp_path / "x.cedar").write_bytes(b"\xff")
    check_said(ostiary("policy", "put", tmp_path), 2, "x.cedar is not UTF-8 text")
    check_said(ostiary("policy", "put", tmp_path / "empty"), 2, "is not a folder")


def test_an_existing_key_file_is_not_overwritten_and_no_agent_is_registered(ostiary: Commands, tmp_path: Path) -> None:
    there = tmp_path / "key.json"
    there.write_text("mine")
    asked = ("agent", "create", "unlucky", "--owner", "ada", "--purpose", "p", "--generate-key", there)
    check_said(ostiary(*asked), 2, "exists")
    assert there.read_text() == "mine"
    assert ostiary("agent", "show", "unlucky").code == 1


def test_errors_are_json_where_json_is_asked_for(ostiary: Commands) -> None:
    for words, code, error in (
        (("agent", "show", "nobody"), 1, "not_found"),
        (("agent", "crate"), 2, "usage"),
    ):
        ran = ostiary(*words, "--json")
        assert (ran.code, ran.out) == (code, "")
        said = json.loads(ran.err)
        assert (said["error"], said.keys()) == (error, {"error", "message", "hint"})


def test_a_server_that_is_not_an_ostiary_server_is_exit_3(ostiary: Commands, server: Server, tmp_path: Path) -> None:
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        Thread(target=other.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{other.server_address[1]}"
            with environment(OSTIARY_URL=url, OSTIARY_CREDENTIAL=str(server.folder / "admin.json")):
                ran = run("agent", "list")
        finally:
            other.shutdown()
    check_said(Ran(ran.code, ran.out, "\n".join(ran.err.splitlines()[-2:])), 3, "check the URL of the issuer")


def test_ctrl_c_and_a_closed_pipe_print_no_error(server: Server) -> None:
    follow = [str(COMMAND), "audit", "tail", "-f", "--data-dir", str(server.folder)]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()  # a test run that ignores SIGINT must fail here, not wait for ever
    assert (process.returncode, err) == (130, "")
    piped = f"{COMMAND} audit search --limit 1000 --data-dir {server.folder} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("words", ["", "--help", "--version", "help", "help stopping", "completion bash", "agent list"])
def test_a_command_with_an_unread_output_pipe_exits_with_0(server: Server, words: str) -> None:
    piped = f"{COMMAND} {words} | exec 0<&-; exit ${{PIPESTATUS[0]}}"
    with environment(OSTIARY_DATA_DIR=str(server.folder)):
        done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--listen", "nonsense"), 2, "is not HOST:PORT"),
        (("--listen", "127.0.0.1:65536"), 2, "is not HOST:PORT"),
        (("--listen", "127.0.0.1:²"), 2, "is not HOST:PORT"),
        (("--listen", "no.such.host.invalid:0"), 3, "cannot listen on no.such.host.invalid"),
        (("--config", "/nowhere.toml"), 2, "/nowhere.toml"),
        (("--database", "mysql://x"), 2, "the database URL has the unknown scheme `mysql`"),
        (("--database", "sqlite:////nowhere/x.db"), 3, "cannot open the database: /nowhere/x.db"),
        (("--database", "postgresql://nobody@127.0.0.1:1/x"), 3, "cannot connect to PostgreSQL"),
    ],
)
def test_a_server_that_cannot_start_prints_the_reason(
    tmp_path: Path, words: tuple[str, str], code: int, said: str
) -> None:
    given = {"--listen": "127.0.0.1:0"} | {words[0]: words[1]}
    options = [part for option in given.items() for part in option]
    command = [str(COMMAND), "serve", "--data-dir", str(tmp_path / "data"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    check_said(Ran(done.returncode, done.stdout, done.stderr), code, said)


def test_a_used_port_a_readable_root_key_and_a_missing_data_folder_are_errors(server: Server, tmp_path: Path) -> None:
    host = server.url.removeprefix("http://")
    (tmp_path / "root.key").write_text("x")
    (tmp_path / "root.key").chmod(0o644)
    for words, code, said in (
        (("--data-dir", str(tmp_path), "--listen", host), 3, "cannot listen"),
        (("--data-dir", str(tmp_path), "--listen", "127.0.0.1:0"), 2, "root.key is open to other users"),
        ((), 2, "--data-dir"),
    ):
        done = subprocess.run(
            [str(COMMAND), "serve", *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        check_said(Ran(done.returncode, done.stdout, done.stderr), code, said)


def test_server_commands_without_the_server_packages_name_the_install_command() -> None:
    for command, package in (("serve", "uvicorn"), ("demo", "mcp"), ("demo", "numpy")):
        code = f"import sys; sys.modules[{package!r}] = None; from ostiary.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=False)
        ran = Ran(done.returncode, done.stdout, done.stderr)
        check_said(ran, 2, f"`{package}`", 'pip install "ostiary[server,detect,postgres,mcp]"')


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_with_closed_standard_streams_runs(server: Server, closing: str, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    words = f"person add-key ada --generate-key {key} --json --data-dir {server.folder}"
    done = subprocess.run(["bash", "-c", f"{COMMAND} {words} {closing}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(key.read_text())["d"], "the file contains the key alone"


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_that_a_command_starts_has_all_standard_streams(closing: str) -> None:
    child = "import sys; sys.exit(None in (sys.stdin, sys.stdout, sys.stderr))"
    start = f"import subprocess; sys.exit(subprocess.call([sys.executable, '-c', '{child}']))"
    code = f"import sys; from ostiary.cli import _replace_closed_streams; _replace_closed_streams(); {start}"
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "{code}" {closing}'], check=False)
    assert done.returncode == 0


def test_arguments_that_a_command_does_not_have_are_named(ostiary: Commands) -> None:
    check_said(
        ostiary("agent", "list", "extra", "more"), 2, "usage: unexpected arguments: extra more", "agent list --help"
    )
