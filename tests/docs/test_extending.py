"""The pages of docs/extending: each section names files and names that exist. The recipes, followed in a copy of the
source, keep the rules; their server, commands and adapter run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S
from harness.server import COMMAND, running
from tests.support.sources import ROOT, files

DID = "did:web:issuer.example.org"
FOLDER = ROOT / "docs" / "extending"
RECIPES = (FOLDER / "recipes.md").read_text("utf-8")
DECISIONS = (FOLDER / "index.md").read_text("utf-8")
"""The page whose table says where each decision is made."""
_BLOCK = re.compile(
    r"(?:^`(?P<path>(?:src|tests|console|docs)/[\w/.-]+|pyproject\.toml)`:\n\n)?^```(?P<kind>python|sql|tsx|diff)\n(?P<text>.*?)^```",
    re.M | re.S,
)
FRAMEWORK = "framework"
"""The folder of the framework that the adapter of the page is for."""
_CHECKS = ("src", "harness", "tests", "benchmarks", "console", "clients", "pyproject.toml", "docs")
"""The source, and the rules of imports and layers as `make check` and `make test` apply them."""


def follow(folder: Path) -> list[str]:
    """Write the files of the recipes, and add their lines to files that exist; return the paths of the new files."""
    path, written = "", []
    for block in _BLOCK.finditer(RECIPES):
        path = block["path"] or path
        target = folder / path
        if block["kind"] == "diff":
            anchor, *added = block["text"].splitlines()
            text = target.read_text("utf-8")
            assert text.count(f"{anchor[1:]}\n") == 1, f"{path} has the line once: {anchor[1:]}"
            lines = "".join(f"{line[1:]}\n" for line in added if line.startswith("+"))
            target.write_text(text.replace(f"{anchor[1:]}\n", f"{anchor[1:]}\n{lines}"), "utf-8")
        else:
            assert not target.exists(), f"{path} is new"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block["text"], "utf-8")
            written.append(path)
    return written


def _sections() -> dict[str, str]:
    """Return the sections of the pages, each as one line, and the rows of the table of decisions, by their heading."""
    pages = [path.read_text("utf-8") for path in sorted(FOLDER.glob("*.md")) if path.stem not in {"index", "recipes"}]
    parts = [part.partition("\n") for page in pages for part in re.split(r"^## ", page, flags=re.M)[1:]]
    rows = [row.strip("| ").partition(" | ") for row in DECISIONS.splitlines() if re.match(r"\| [^-]", row)]
    return {heading: " ".join(text.split()) for heading, _, text in (*parts, *rows)}


SECTIONS = _sections()


def _missing(section: str) -> list[str]:
    """Return the paths of a section that do not exist, and its names that none of its files has."""
    code = [word for word in re.findall(r"`([^`]+)`", section) if "NAME" not in word and "NNNN" not in word]
    paths = {word: ROOT / word for word in code if "/" in word or (ROOT / word).is_file()}
    texts = [path.read_text("utf-8") for path in paths.values() if path.is_file()]
    texts += [file.read_text("utf-8") for path in paths.values() if path.is_dir() for file in path.glob("*.*")]
    names = [
        word.rpartition(".")[2]
        for word in code
        if word not in paths and re.fullmatch(r"[A-Za-z]*[A-Z_]\w+(\.\w+)?", word)
    ]
    gone = [word for word, path in paths.items() if not path.exists()]
    return gone + [name for name in names if not any(re.search(rf"\b{name}\b", text) for text in texts)]


def _section(name: str) -> str:
    """Return the section whose heading begins with `name`, in any case of its letters."""
    [heading] = [heading for heading in SECTIONS if heading.lower().startswith(name.lower())]
    return SECTIONS[heading]


def test_each_file_and_name_of_the_sections_exists() -> None:
    assert len(SECTIONS) > 150
    assert {heading: gone for heading, text in SECTIONS.items() if (gone := _missing(text))} == {}
    assert _missing("`src/ostiaryd/app.py`, `LOOPS`, `Loops`, `tests/app/test_gone.py`") == [
        "tests/app/test_gone.py",
        "Loops",
    ]


def test_the_index_links_to_each_section() -> None:
    links = re.findall(r"^- \[(.+)\]\(\w+\.md#", DECISIONS, re.M)
    headings = re.findall(r"^### ", DECISIONS, re.M)
    rows = [row for row in DECISIONS.splitlines() if re.match(r"\| [^-]", row)]
    assert len(headings) == len(list(FOLDER.glob("*.md"))) - 2
    assert {link[0].upper() + link[1:] for link in links} == set(list(SECTIONS)[: len(SECTIONS) - len(rows)])


_PLACE = re.compile(
    r"(?P<names>(?:`\w+`(?:, | and | or |, and ))*`\w+`),? (?:all |both )?(?:in|of) `(?P<path>\w+/[\w/.-]+\.py)`"
)
"""Names that the page gives a place, such as `a` and `b` in `src/ostiaryd/app.py`."""


def _undefined(section: str) -> list[str]:
    """Return the names that are neither definitions nor commands of the module in which a section places them."""
    gone = []
    for place in _PLACE.finditer(section):
        text = (ROOT / place["path"]).read_text("utf-8")
        for name in re.findall(r"`(\w+)`", place["names"]):
            defined = rf"\b(?:def|class) {name}\b|^\s*{name}\b.*[=:]|\b{name}(?:, \w+)* = |name=\"{name}\""
            if not re.search(defined, text, re.M):
                gone.append(name)
    return gone


def test_each_name_is_defined_in_the_module_that_the_section_states() -> None:
    places = [place["names"] for text in SECTIONS.values() for place in _PLACE.finditer(text)]
    assert sum(names.count("`") for names in places) > 600
    assert {heading: gone for heading, text in SECTIONS.items() if (gone := _undefined(text))} == {}
    assert _undefined("`LOOPS`, `every` and `ground` in `src/ostiaryd/app.py`") == ["every", "ground"]


_EXAMPLES = {
    "a state of an agent": r"State\.QUARANTINED|\"quarantined\"",
    "a kind of database in which": r"mysql_driver|mysql_accounts|\"mysql\":",
    "a selector of workloads": r"\bcgroup\b",
    "an attribute of an agent that policies read": r"\brisk_tier\b",
    "a condition of bounds": r"\b(glob|one_of)\?:|condition\.(glob|one_of)|one_of: tuple|\"glob\":",
    "a filter of the list of agents": r"\bAGENT_QUERY\b|\bAgentFilter\b|\bAgentCountsBody\b|readAgentSearch\(",
    "an effect of a tool": r"Effect\.PAY\b|\"pay\"[:)]|pay: Long",
    "a kind of an argument": r"\bKind\.(ACCOUNT|AMOUNT)\b",
    "a source of untrusted content": r"\b(WRITTEN|is_of_record)\b|def is_outside\b",
    "an attribute of a policy's context": r"\bonly_address\b",
    "an action that policies decide": r"\bread_account_token\b",
    "a limit on the rate of calls": r"kind == \"narrow\"|\"narrow\": 0|Literal\[\"throttle\"",
    "a label of outgoing text": r"\"reveals\"",
    "an ACME challenge type": r"\"(http-01|dns-01)\"|\bACME_TLS\b|\bpeer_certificate\b|\bacme_tls_port\b",
    "an OAuth grant type": r"\bDEVICE_CODE\b",
    "a claim of ID tokens": r'"preferred_username"[,\]]|preferred_username:',
    "a reason code": r"\"approval_mismatch\"",
    "a format of threat lists": r"\"stix\"",
    "an object of the kill switch": r'case "segment"|\("segment", agent|"owner", "segment", "model"\)|\bfacts\.stops\b'
    r'|check_none_stopped\([^)]*"resource"',
    "a property of a stop": r"\bStopFact\b|\bStopDelta\(",
    "a rule of the decision of one call": r"\bcheck_(restrictions|liveness)\(",
    "a rule about the origin": r"\bneeds_origins\(|\bis_settled\(",
    "a secret engine whose": r"\baws_accounts\b|\bAwsAccounts\b",
    "a type of transit keys": r"\bkind (not )?in (CURVES|KEY_BYTES)\b",
    "a place for secrets": r"case Place\.BODY|\bPlace\(StrEnum\)|\(\"body\", body\)",
    "a login method of Vault": r"KubernetesRole|log_in_by_service_account|\"kubernetes\"[:,)]",
    "a kind of approval request": r"\bELEVATE\b",
    "a kind of object with an id": r"\bIdList\(|\bLISTS\[|\bID_PREFIXES = ",
    "a state of a task": r"\"done\", \"failed\", \"cancelled\"|\bOUTCOMES\b|task\.state = 'live'|\"task\": Guarded\(",
    "a kind of database for the server": r"\bdb\.is_sqlite\b",
    "a member of client metadata": r"\bbackchannel_logout_uri\b",
    "a language of policies": r"\bread_program\b|\"\.rego\"",
    "a property of a person": r"\bidentity\.email|\bIdentity\(|person\.email",
    "a notification channel for a chat": r"\"slack\", *\"|== \"slack\"|case \"slack\"",
    "a playbook action": r"\"freeze\"",
    "a client authentication method": r"\bSELF_SIGNED\b|\bClientProof\.SECRET\b|client\.has_secret",
    "a parameter of an authorization request": r"\bdpop_jkt\b",
    "a login method of people": r"\bhas_totp\b|person_passkey|passkeys_of\(|\"passkey\":",
    "a level of assurance": r"\bPERSON_PHR\b|\bTWO_KEYS\b",
    "a login provider": r"\bSamlSettings\b|\bposts_response\b|saml_metadata\b",
    "a credential of an agent": r"\btokens_of_secrets\(|\bsecret_holders\(|agents/\{name\}/secrets",
    "a claim of access tokens": r"AccessClaims\(",
    "a signing key of the server": r"\bID_TOKEN_ALGS =|\bUSES: |\btoken_alg: |\bSigningKeyRotation\b|\"/keys/rotate\"",
    "a back end whose secrets": r"BackendKind\.KUBERNETES|KubernetesBackend",
    "a kind of value in threat lists": r"case \"digest\"|\"digest\": \"|\"digest\", value",
    "a signal: ": r"session-revoked|SESSION_REVOKED|\blevel_changed\(",
    "a row or a connected agent": r"\bRowKind\b|\bRELATIONS\b|\bTIMELINE_COLUMNS\b",
    "a detector": r"event\.late\b|late: int = 0|late=0 if",
    "an attribute or a kind of act": r"\bWANTED\b|activity\.model",
    "a finding of a guard": r"\bevent\.signs\b|    signs: tuple|\b_SIGNS\b|\btraced\(.*origins\)\._asdict",
    "a finding of the server itself": r"\bNEGLECTED_CERTIFICATE\b|\bSIGNAL\b",
    "an encoding that is looked": r"\bis_odd\(text\)",
    "a property of a threat list": r"\bThreatSource\b|\"POST\", \"/threat-lists\"|interface ThreatList\b",
    "a notification channel for alerts with": r"== \"mail\"|\"signed\" \| \"mail\"|\"mail\"\](;|\n)|outbound\.mail",
    "a channel for requests": r"\bdue_subscriptions\b|import .*wire_push\b|wire_push,",
    "a format of `ostiary audit export`": r"\bbundleIncident\b|def (render_files|walk)\b",
    "a key type of certificates": r'"P-384"(: (ec\.|bytes|"secp)|, "Ed25519")|case "P-384"',
    "a key type or a signature algorithm": r"\"ES384\"",
    "a kind of budget": r"\bVolume\b",
    "a setting of a detector": r"\bself\._place_of\b|config\.places|\._given\.places|class Orders\b",
    "a method of the SDK": r"_agent\._renew\(|def _renew\(self, task",
    "a property of an agent that": r"\bset_segment\b|\"segment\": agent\.segment|class (AgentSpec|AgentChange)\b",
    "a field of a certificate profile": r"profile\.(usages|wildcards|max_names)|\bSVID_USAGES\b",
    "a secret engine that signs": r"\b(find_mount_of|forget_certificates|PkiRole|PkiCertificate)\b",
    "data in the extent": r"flows\.blast\b|def blast\b|\.blast\(",
    "a metric": r"\bCertificateFigures\b",
    "a method of MCP": r"prompts/get",
    "an action of a person on an incident": r"rotate-secrets|rotate_secrets",
    "a field of the feed": r"\bSecretUseFact\b|\bThreatFact\b",
    "a chapter of": r"\bchapter\(",
    "a command": r"ostiary\.cli\.leases:lease|App\(name=\"lease\"",
    "an exit code": r"exit\(DENIED\)|\bDENIED: \"the ",
    "a client library": r"\bsignedFetch\b",
    "an adapter": r"\"crewai\": \"crewai\"| crewai +guarded|from crewai|import crewai",
    "a transport of MCP servers": r"\bis_sse\b|\bSseUpstream\b",
    "a guard for another web framework": r"\bRouteTable\b",
    "a button of the console": r"\bActionDialog\b|\bACTS: Record",
    "a figure on the overview": r"findings: NotRequired\[int\]|findings\?: number",
    "a column of the console's": r"last_used_at: number|\bAgentTableRow\b|\bAgentRow\(N|agent\.last_used_at\} />",
    "an error of the HTTP API": r"\bclass TooLarge\b|\bTooLarge:",
    "an HTTP header": r"access-control-(allow|expose)-headers",
    "a program whose configuration": r"\.vscode",
    "a filter of the search in the ledger": r"Query\(\"about\"|\bsubjects_of\b|\"about\": (id_of|NameTable)\(",
    "a rate limit of a route": r"\b(Device|Registration)Buckets\b",
    "a ledger action": r"(?<!WEAKEN = )\"policy\.weaken\"",
    "an option of `Guard`": r"\blearns?=|self\._learns\b|round\(max_age|limit=spool_limit",
    "an error code of an OAuth": r"\bUnsupportedGrantType\b",
    "a built-in function of Rego": r"\bREFUSED\.intersection|_native\.load",
    "a member of the record of a call": r"\brecord\.noticed\b|noticed=\[replace|noticed: Annotated",
}
"""Sections, each with a pattern that finds the newest or clearest examples of the section in the source."""
_SEARCHED = ("src/", "console/src/", "clients/typescript/src/")
_GENERATED = "clients/typescript/src/operations.ts"


@pytest.fixture(scope="module")
def searched() -> dict[str, str]:
    """Return the texts of the source files by their paths."""
    names = [name for name in files() if name.startswith(_SEARCHED) and name != _GENERATED]
    return {name: (ROOT / name).read_text("utf-8", "replace") for name in names}


@pytest.mark.parametrize(("section", "pattern"), _EXAMPLES.items(), ids=list(_EXAMPLES))
def test_a_section_names_every_file_that_its_example_touches(
    section: str, pattern: str, searched: dict[str, str]
) -> None:
    named = tuple(word for word in re.findall(r"`([^`]+)`", _section(section)) if "/" in word)
    touched = {name for name, text in searched.items() if re.search(pattern, text)}
    assert len(touched) > 1
    assert {name for name in touched if not name.startswith(named)} == set()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in files():
        if name.startswith(_CHECKS):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    (folder / FRAMEWORK).mkdir()
    shutil.copy(Path(__file__).with_name("minikit.py"), folder / FRAMEWORK)
    assert len(follow(folder)) >= 14
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    assert check(folder, "ruff", "check", "--no-cache", "--fix-only", "src/ostiaryd/app.py").returncode == 0
    return folder


def check(copy: Path, *command: str | Path, framework: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of our environment on the copy."""
    path = os.pathsep.join(map(str, (copy / "src", copy / FRAMEWORK)))
    environment = os.environ | {"PYTHONPATH": path, "OSTIARY_TEST_FRAMEWORK": framework}
    program = [Path(sys.executable).with_name(str(command[0])), *command[1:]]
    return subprocess.run(
        program, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


@pytest.mark.slow
def test_the_recipes_keep_style_imports_and_layers(copy: Path) -> None:
    for command in (
        ("ruff", "check", "--no-cache", "src"),
        ("ruff", "format", "--no-cache", "--check", "src/ostiaryd"),
        ("lint-imports", "--no-logo", "--no-cache"),
        ("pytest", "-q", "-p", "no:cacheprovider", "tests/architecture/test_doors.py"),
        ("pytest", "-q", "-p", "no:cacheprovider", "tests/app/test_gate.py", "-k", "hides"),
    ):
        run = check(copy, *command)
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_the_console_page_of_the_recipe_passes_the_type_check(copy: Path) -> None:
    modules = ROOT / "console/node_modules"
    if not modules.exists():
        pytest.skip("the tools of the console are not installed: make console")
    (copy / "console/node_modules").symlink_to(modules)
    command = (modules / ".bin/tsc", "--noEmit", "--project", copy / "console")
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_a_recipe_that_breaks_a_layer_fails_the_check(copy: Path) -> None:
    """The control: the checks look at the new packages."""
    model = copy / "src/ostiaryd/credentials/model.py"
    text = model.read_text("utf-8")
    model.write_text(
        text.replace("import msgspec\n", "import msgspec\n\nfrom ostiaryd.credentials import flows\n"), "utf-8"
    )
    try:
        run = check(copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/architecture/test_doors.py")
    finally:
        model.write_text(text, "utf-8")
    assert run.returncode == 1
    assert "ostiaryd.credentials.flows" in run.stdout


@pytest.mark.slow
def test_the_server_of_the_recipes_serves_the_new_routes(copy: Path, tmp_path: Path) -> None:
    command = ("env", f"PYTHONPATH={copy / 'src'}", "OSTIARY_DID_HOST=did.example.org:8443", COMMAND)
    with running(tmp_path / "data", command=command) as server:
        document = httpx2.get(f"{server.url}/.well-known/did.json")
        assert document.json() == {"id": "did:web:did.example.org%3A8443"}
        assert httpx2.post(f"{server.url}/api/v1/credential-issuers", json={"did": DID}).status_code == 401
        with ServerFixture(server, tmp_path) as fixture:
            assert fixture.api("POST", "/credential-issuers", {"did": DID})["did"] == DID
            [entry] = fixture.api("GET", "/audit", action="credential.trust_issuer")["entries"]
            lines = {line["name"]: line["saw"] for line in fixture.api("GET", "/doctor")["lines"]}
        assert (entry["object"], lines["issuers"]) == (DID, "trusted issuers: 1")
        for words, code, told in (
            (("list",), 0, DID),
            (("trust", "did:web:b.example.org"), 0, "did:web:b.example.org"),
            (("trust", "did:web:b.example.org"), 1, "the issuer is trusted already"),
            (("trust", "did:key:z6Mk"), 1, "`did` is not a DID of the method `did:web`"),
        ):
            run = check(copy, "ostiary", "--data-dir", server.folder, "issuer", *words)
            assert (run.returncode, told in run.stdout + run.stderr) == (code, True), run.stdout + run.stderr
        for preset, told in (
            ("onelogin", "the issuer does not have the form of the preset `onelogin`"),
            ("OneLogin", "one of onelogin, "),
        ):
            options = ("--issuer", "https://example.org", "--client-id", "c", "--preset", preset)
            run = check(copy, "ostiary", "--data-dir", server.folder, "login-provider", "add", "corp", *options)
            assert (run.returncode, told in run.stderr) == (1, True), run.stdout + run.stderr
        assert check(copy, "ostiary", "--data-dir", server.folder, "audit", "verify").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "tests", "passed"),
    [
        (("tests/cli/test_doctor.py", "tests/docs/test_doctor_page.py"), "no_failing_line or row_for_each_line", 2),
        (("tests/trust/test_oidc_login.py", "tests/docs/test_company_login.py"), "preset and not google_preset", 7),
        (
            ("tests/watch", "tests/docs/test_detectors_page.py"),
            "large_answer or 100_mb or every_detector_is or points_are",
            8,
        ),
    ],
)
def test_the_tests_of_each_recipe_pass(copy: Path, files: tuple[str, ...], tests: str, passed: int) -> None:
    run = check(copy, "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", tests)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{passed} passed" in run.stdout, run.stdout


@pytest.mark.slow
def test_the_command_of_the_recipe_passes_the_tests_of_commands(copy: Path) -> None:
    run = check(
        copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/cli/test_help.py", "-k", "issuer or text_of_each_command"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "5 passed" in run.stdout, "the group, its two commands, the list, and the control of the list"


@pytest.mark.slow
def test_the_adapter_of_the_recipe_passes_the_contract_tests(copy: Path) -> None:
    file = "tests/frameworks/test_minikit.py"
    run = check(copy, "pytest", "-q", "-p", "no:cacheprovider", file, framework="minikit")
    assert run.returncode == 0, run.stdout + run.stderr
    contract = (copy / "tests/frameworks/contract.py").read_text("utf-8")
    assert int(re.findall(r"(\d+) passed", run.stdout)[0]) >= len(re.findall(r"^def test_", contract, re.M))


def test_the_plug_ins_of_the_recipes_give_the_expected_results(copy: Path) -> None:
    program = """
import json
from types import SimpleNamespace
from ostiary.provenance.noticing import Event
from ostiaryd.ledger.exporters.ecs import render_entry
from ostiaryd.ledger.model import Entry
from ostiaryd.secrets.flows import find_operation
from ostiaryd.secrets.model.request import VaultMethod, VaultRequest
from ostiaryd.watch.model.batch import Batch
from ostiaryd.watch.model.detector import detectors, zeros

detector = detectors()["large_answer"]
sizes = (99_999_999, 100_000_000)
events = [Event(at=n, action="tool.call", outcome="allow", bytes=size) for n, size in enumerate(sizes)]
findings = detector.notice(Batch(events, [1, 1], [0, 0]), zeros(detector, agents=2, peers=1))
request = VaultRequest(method=VaultMethod.READ, path="passwords/db", body={}, query={})
mount, operation, _ = find_operation(None, request)
act = SimpleNamespace(tx=SimpleNamespace(random=bytes))
print(json.dumps({
    "rows": [finding.row for finding in findings],
    "secret": [mount, operation.path, operation.run(act).data["password"]],
    "document": render_entry(7, Entry(at=0, action="tool.call", outcome="deny", agent="ag_1")),
}))
"""
    run = check(copy, Path(sys.executable).name, "-c", program)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        "rows": [1],
        "secret": ["passwords", "db", "A" * 24],
        "document": {
            "@timestamp": "1970-01-01T00:00:00+00:00",
            "event": {"id": "7", "action": "tool.call", "outcome": "failure"},
            "user": {"id": "ag_1"},
        },
    }
