"""The Workload API as a workload meets it: py-spiffe of PyPI, and gRPC with its messages."""

from __future__ import annotations

import array
import asyncio
import json
import os
import resource
import shutil
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from h2.events import DataReceived, TrailersReceived
from msgspec.structs import replace
from spiffe import TrustDomain, WorkloadApiClient
from spiffe._proto import workload_pb2 as pb

from harness.clock import Clock
from harness.patience import PATIENCE_S, eventually_async
from harness.registry_fixtures import SECOND, is_live, newest_entry, register_agent, run_act
from ostiary.protocol import jose
from ostiary.protocol.errors import Forbidden
from ostiaryd.certs import flows as certs
from ostiaryd.certs.flows import bundles, svids, trust_domains, workloads
from ostiaryd.certs.flows.svid_cache import SvidCache
from ostiaryd.certs.model import RevocationReason, holding_id, serial_text
from ostiaryd.certs.model.bundle import parse_bundle, render_bundle
from ostiaryd.certs.model.jwt_svid import LIFETIME_S, sign_jwt_svid
from ostiaryd.certs.model.workload import Selectors, Workload
from ostiaryd.certs.store import certificates
from ostiaryd.certs.wire_workload_api import open_workload_api
from ostiaryd.ground.http.grpc import GrpcServer
from ostiaryd.ground.process import peer
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from tests.certs.svid_fixtures import document, jwt_jwk, root, token, x509_jwk
from tests.support.certificate_fixtures import put_policies
from tests.support.grpc_client import HEADERS, RawClient, frame

T = TypeVar("T")
EXECUTABLE = str(Path(sys.executable).resolve())
HEADER = (("workload.spiffe.io", "true"),)
DENIED, INVALID = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT
ID = "spiffe://example.org/agent/bot"
OTHER = "other.example"


@pytest.fixture
def database() -> str:
    return "sqlite"


@pytest.fixture
async def api(world: World, tmp_path: Path) -> AsyncIterator[GrpcServer]:
    server = open_workload_api(world, tmp_path / "api.sock")
    yield server
    await server.close()


async def add_workload(world: World, agent: str = "bot", **selectors: Any) -> Workload:
    """Register a workload; without selectors this process."""
    wanted = Selectors(**(selectors or {"uid": os.getuid(), "path": EXECUTABLE}))
    return await run_act(world, lambda a: workloads.add_workload(a, agent, wanted, config=world.config), "workload.add")


@asynccontextmanager
async def stub(server: GrpcServer) -> AsyncIterator[Callable[..., Any]]:
    """Return a function that calls a method of the API, with the header unless `metadata` is given."""
    async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:

        def call(method: str, request: Any, answer: Any, metadata: Any = HEADER) -> Any:
            callable = channel.unary_stream(
                f"/SpiffeWorkloadAPI/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            return callable(request, metadata=metadata, timeout=PATIENCE_S)

        yield call


async def code_of(stream: Any) -> grpc.StatusCode:
    """Read a stream to its end; return its status."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        status: grpc.StatusCode = error.code()
        return status
    return grpc.StatusCode.OK


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in ledger.search_entries(world.db.read(), {"action": action}, limit=100)]


def serial_of(response: Any, place: int = 0) -> str:
    return serial_text(leaf_of(response, place).serial_number)


def leaf_of(response: Any, place: int = 0) -> x509.Certificate:
    data = response.svids[place].x509_svid
    return x509.load_der_x509_certificate(data[: 4 + int.from_bytes(data[2:4], "big")])  # 30 82 length


# ---------------------------------------------------------------------------------------- A third-party library


async def test_the_py_spiffe_client_works_with_the_workload_api(world: World, api: GrpcServer) -> None:
    await register_agent(world)
    await add_workload(world)

    def use() -> None:
        with WorkloadApiClient(f"unix:{api.path}", default_timeout=PATIENCE_S) as client:
            svid = client.fetch_x509_svid()
            assert str(svid.spiffe_id) == ID
            context = client.fetch_x509_context()
            bundle = context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain("example.org"))
            assert bundle is not None
            verifier = (
                PolicyBuilder()
                .store(Store(list(bundle.x509_authorities)))
                .time(datetime.fromtimestamp(world.now() / SECOND, UTC))
                .build_client_verifier()
            )
            assert verifier.verify(svid.leaf, svid.cert_chain[1:]).subjects == [x509.UniformResourceIdentifier(ID)]
            assert context.default_svid.leaf == svid.leaf, "all workloads of the agent have the same"
            assert client.fetch_x509_bundles().get_bundle_for_trust_domain(TrustDomain("example.org")) is not None
            jwt_svid = client.fetch_jwt_svid({"api"})
            assert (str(jwt_svid.spiffe_id), jwt_svid.audience) == (ID, {"api"})
            assert str(client.validate_jwt_svid(jwt_svid.token, "api").spiffe_id) == ID
            keys = client.fetch_jwt_bundles().get_bundle_for_trust_domain(TrustDomain("example.org"))
            assert keys is not None
            assert len(keys.jwt_authorities) == 1

    await asyncio.to_thread(use)


async def test_an_x509_svid_has_the_form_of_the_specification(world: World, api: GrpcServer) -> None:
    """X509-SVID sections 2 to 4: one URI, a leaf, digitalSignature alone, both extended usages; at most an hour."""
    await register_agent(world)
    await add_workload(world)
    async with stub(api) as call:
        leaf = leaf_of(await call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse).read())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(ID)]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature) == (True, True)
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    both = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == both
    assert 0 < leaf.not_valid_after_utc.timestamp() - world.now() / SECOND <= 3600
    entry = entries(world, "cert.issue")[0]
    assert entry.detail is not None
    assert entry.detail["workload"].startswith("wl_")
    assert is_live(world, holding_id(serial_text(leaf.serial_number)))


@pytest.mark.parametrize(
    ("profile_s", "x509_s", "jwt_s"), [(120, 120, 120), (3599, 3599, 300), (3600, 3600, 300), (3601, 3600, 300)]
)
async def test_an_svid_lives_as_long_as_the_profile_of_agents_allows_and_at_most_an_hour(
    world: World, tmp_path: Path, profile_s: int, x509_s: int, jwt_s: int
) -> None:
    """At most five minutes, if it is a JWT-SVID."""
    profiles = tmp_path / "profiles.toml"
    names = '["uri:spiffe://{trust_domain}/agent/{name}"]'
    profiles.write_text(f"[profile.agent]\nlifetime_s = {profile_s}\nnames = {names}\n")
    config = replace(world.config, certificate_profiles=str(profiles))
    await register_agent(world)
    workload = await add_workload(world)
    now = world.now()
    kept = await run_act(world, lambda act: svids.issue_x509_svid(act, workload, config=config), "cert.issue")
    assert kept.certificate.not_after - now == x509_s * SECOND
    issue_jwt = partial(svids.issue_jwt_svid, workload=workload, audiences=["api"], config=config)
    _, jwt = await run_act(world, issue_jwt, "svid.issue")
    claims = json.loads(jose.unb64u(jwt.split(".")[1]))
    assert claims["exp"] - claims["iat"] == jwt_s


# ---------------------------------------------------------------------------------------- Refusals


async def test_a_process_that_matches_no_workload_is_denied_with_an_entry(world: World, api: GrpcServer) -> None:
    await register_agent(world)
    await add_workload(world, uid=os.getuid(), path="/usr/bin/other")
    calls = {
        "FetchX509SVID": (pb.X509SVIDRequest(), pb.X509SVIDResponse),
        "FetchX509Bundles": (pb.X509BundlesRequest(), pb.X509BundlesResponse),
        "FetchJWTSVID": (pb.JWTSVIDRequest(audience=["api"]), pb.JWTSVIDResponse),
        "FetchJWTBundles": (pb.JWTBundlesRequest(), pb.JWTBundlesResponse),
        "ValidateJWTSVID": (pb.ValidateJWTSVIDRequest(audience="a", svid="b"), pb.ValidateJWTSVIDResponse),
    }
    async with stub(api) as call:
        for method, (request, answer) in calls.items():
            assert await code_of(call(method, request, answer)) is DENIED, method
            entry = newest_entry(world)
            assert (entry.action, entry.outcome, entry.reasons[0].code) == ("workload.refuse", "refused", "no_identity")
            assert entry.detail == {"method": method, "uid": os.getuid(), "pid": os.getpid()}
    assert not entries(world, "cert.issue")
    assert not entries(world, "svid.issue")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        (("workload.spiffe.io", "True"),),
        (("workload.spiffe.io", ""),),
        (("workload.spiffe.io", "true"), ("workload.spiffe.io", "true")),
        (("workload.spiffe.io", "false"), ("workload.spiffe.io", "true")),
    ],
)
async def test_a_call_without_the_security_header_is_refused(world: World, api: GrpcServer, metadata: Any) -> None:
    await register_agent(world)
    await add_workload(world)
    async with stub(api) as call:
        stream = call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse, metadata)
        assert await code_of(stream) is INVALID
    assert newest_entry(world).reasons[0].code == "malformed"


async def test_wit_svids_are_not_implemented(world: World, api: GrpcServer) -> None:
    async with stub(api) as call:
        for method in ("FetchWITSVID", "FetchWITBundles"):
            stream = call(method, pb.X509SVIDRequest(), pb.X509SVIDResponse)
            assert await code_of(stream) is grpc.StatusCode.UNIMPLEMENTED


async def test_an_svid_that_no_policy_permits_is_denied(world: World, api: GrpcServer) -> None:
    await register_agent(world)
    await add_workload(world)
    await put_policies(world, 'permit (principal is Agent, action == Action::"issue_token", resource is Resource);')
    async with stub(api) as call:
        assert await code_of(call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)) is DENIED
        assert newest_entry(world).reasons[0].code == "access_denied"
        assert await code_of(call("FetchJWTSVID", pb.JWTSVIDRequest(audience=["api"]), pb.JWTSVIDResponse)) is DENIED
    assert [(entry.action, entry.outcome) for entry in entries(world, "svid.issue")] == [("svid.issue", "refused")]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.JWTSVIDRequest(), INVALID),
        (pb.JWTSVIDRequest(audience=[""]), INVALID),
        (pb.JWTSVIDRequest(audience=["a", "a"]), INVALID),
        (pb.JWTSVIDRequest(audience=["a"], spiffe_id="spiffe://example.org/agent/other"), DENIED),
        (pb.JWTSVIDRequest(audience=["a"], spiffe_id="no id"), INVALID),
        (pb.JWTSVIDRequest(audience=["a"], spiffe_id=ID), grpc.StatusCode.OK),
    ],
)
async def test_requests_for_jwt_svids_are_answered_or_refused(
    world: World, api: GrpcServer, request_: Any, code: grpc.StatusCode
) -> None:
    await register_agent(world)
    await add_workload(world)
    async with stub(api) as call:
        assert await code_of(call("FetchJWTSVID", request_, pb.JWTSVIDResponse)) is code
    assert (newest_entry(world).outcome == "ok") is (code is grpc.StatusCode.OK)


async def test_the_entry_of_a_denied_jwt_svid_names_the_requested_foreign_identity(
    world: World, api: GrpcServer
) -> None:
    await register_agent(world)
    await register_agent(world, "other")
    await add_workload(world)
    other = pb.JWTSVIDRequest(audience=["a"], spiffe_id="spiffe://example.org/agent/other")
    async with stub(api) as call:
        assert await code_of(call("FetchJWTSVID", other, pb.JWTSVIDResponse)) is DENIED
    [reason] = newest_entry(world).reasons
    assert reason.code == "no_identity"
    assert reason.message == "this process does not have the SPIFFE ID 'spiffe://example.org/agent/other'"


# ---------------------------------------------------------------------------------------- Streams


async def test_an_svid_is_renewed_on_the_stream(
    world: World, api: GrpcServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register_agent(world)
    await add_workload(world)
    monkeypatch.setattr(SvidCache, "_spread", lambda self, least, most: least if least < 60 * SECOND else 50_000)
    async with stub(api) as call:
        stream = call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)
        first = await stream.read()
        clock.advance(us=50_000)
        second = await stream.read()
        assert serial_of(first) != serial_of(second)
        assert first.svids[0].x509_svid_key != second.svids[0].x509_svid_key
        assert is_live(world, holding_id(serial_of(first))), "until its end"
    assert len(entries(world, "cert.issue")) == 2


async def test_an_svid_is_renewed_between_a_half_and_two_thirds_of_its_life(world: World, api: GrpcServer) -> None:
    await register_agent(world)
    workload = await add_workload(world)
    kept, renew_at = await world.get_singleton(SvidCache).get(workload)
    life = kept.certificate.not_after - world.now()
    assert life // 2 <= renew_at - world.now() <= life * 2 // 3


async def test_a_suspension_of_an_agent_ends_its_streams_and_a_resumed_agent_gets_a_new_svid(
    world: World, api: GrpcServer
) -> None:
    agent = await register_agent(world)
    await add_workload(world)
    async with stub(api) as call:
        streams = [
            call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse),
            call("FetchX509Bundles", pb.X509BundlesRequest(), pb.X509BundlesResponse),
            call("FetchJWTBundles", pb.JWTBundlesRequest(), pb.JWTBundlesResponse),
        ]
        first, *_ = [await stream.read() for stream in streams]
        await run_act(world, lambda a: registry.set_agent_state(a, agent.agent_id, Verb.SUSPEND))
        assert [await code_of(stream) for stream in streams] == [DENIED] * 3
        assert newest_entry(world).reasons[0].code == "agent_suspended"
        assert not is_live(world, holding_id(serial_of(first)))
        await run_act(world, lambda a: registry.set_agent_state(a, agent.agent_id, Verb.RESUME))
        again = await call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse).read()
        assert serial_of(again) != serial_of(first)


async def test_a_revoked_certificate_is_replaced_on_the_stream(world: World, api: GrpcServer) -> None:
    await register_agent(world)
    await add_workload(world)
    async with stub(api) as call:
        stream = call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)
        first = await stream.read()
        await run_act(world, lambda a: certs.revoke(a, serial_of(first), RevocationReason.UNSPECIFIED))
        assert serial_of(await stream.read()) != serial_of(first)


async def test_a_removed_workload_ends_the_stream(world: World, api: GrpcServer) -> None:
    await register_agent(world)
    workload = await add_workload(world)
    async with stub(api) as call:
        stream = call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)
        await stream.read()
        await run_act(world, lambda a: workloads.remove_workload(a, workload.workload_id))
        assert await code_of(stream) is DENIED


async def test_a_process_of_two_agents_gets_both_svids_and_keeps_one_after_a_quarantine(
    world: World, api: GrpcServer, clock: Clock
) -> None:
    await register_agent(world)
    other = await register_agent(world, "other")
    await add_workload(world)
    async with stub(api) as call:
        stream = call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)
        assert [svid.spiffe_id for svid in (await stream.read()).svids] == [ID]
        clock.advance(1)  # the SVIDs are in the order in which the workloads were registered
        await add_workload(world, "other", path=EXECUTABLE)
        both = await stream.read()
        assert [svid.spiffe_id for svid in both.svids] == [ID, "spiffe://example.org/agent/other"]
        request = pb.JWTSVIDRequest(audience=["api"])
        answer = await call("FetchJWTSVID", request, pb.JWTSVIDResponse).read()
        assert [svid.spiffe_id for svid in answer.svids] == [svid.spiffe_id for svid in both.svids]
        await run_act(world, lambda a: registry.set_agent_state(a, other.agent_id, Verb.QUARANTINE))
        assert [svid.spiffe_id for svid in (await stream.read()).svids] == [ID]


async def test_a_pending_agent_gets_no_svid(world: World, api: GrpcServer) -> None:
    await register_agent(world, has_key=False)
    await add_workload(world)
    async with stub(api) as call:
        assert await code_of(call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)) is DENIED
    assert newest_entry(world).reasons[0].code == "agent_pending"


# ---------------------------------------------------------------------------------------- Processes

CLIENT = """
import sys
from spiffe import WorkloadApiClient
with WorkloadApiClient("unix:" + sys.argv[1], default_timeout=300) as client:
    print(client.fetch_x509_svid().spiffe_id, client.fetch_jwt_svid({"api"}).spiffe_id)
"""


async def run_client(program: Path, server: GrpcServer) -> str:
    """Run py-spiffe in a separate process; return its output."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = await asyncio.create_subprocess_exec(
        program, "-c", CLIENT, str(server.path), stdout=-1, stderr=-1, env=environment
    )
    out, errors = await process.communicate()
    return out.decode() or errors.decode()


async def test_concurrent_workloads_get_their_own_identities(world: World, api: GrpcServer, tmp_path: Path) -> None:
    programs = {name: tmp_path / name for name in ("one", "two", "three")}
    content = await asyncio.to_thread(Path(EXECUTABLE).read_bytes)
    for name, program in programs.items():
        await asyncio.to_thread(program.write_bytes, content)
        await asyncio.to_thread(program.chmod, 0o755)
        if name != "three":
            await register_agent(world, name)
            await add_workload(world, name, uid=os.getuid(), path=str(program))
    one, two, three = await asyncio.gather(*(run_client(program, api) for program in programs.values()))
    assert set(one.split()) == {"spiffe://example.org/agent/one"}
    assert set(two.split()) == {"spiffe://example.org/agent/two"}
    assert "PERMISSION_DENIED" in three, "the same program at another path"


HANDS_OVER = """
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
with socket.socket(socket.AF_UNIX) as other:
    other.connect(sys.argv[2])
    other.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
    other.recv(1)
if sys.argv[3:]: os.execv(sys.argv[3], sys.argv[3:])
"""


@asynccontextmanager
async def descriptor_of(
    server: GrpcServer, folder: Path, *next_program: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, socket.socket, socket.socket]]:
    """A child that has connected, its connection, and a socket: after a byte on it, the child ends, or runs another
    program."""
    with socket.socket(socket.AF_UNIX) as heir:
        heir.bind(str(folder / "heir.sock"))
        heir.listen()
        heir.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            EXECUTABLE, "-c", HANDS_OVER, str(server.path), str(folder / "heir.sock"), *next_program
        )
        try:
            receiving, _ = await asyncio.get_running_loop().sock_accept(heir)
            with receiving:
                receiving.setblocking(True)
                _, ancillary, _, _ = await asyncio.to_thread(receiving.recvmsg, 1, socket.CMSG_SPACE(4))
                with socket.socket(fileno=array.array("i", ancillary[0][2])[0]) as handed:
                    handed.setblocking(False)
                    yield process, handed, receiving
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def test_a_connection_ends_with_the_process_that_opened_the_connection(
    world: World, api: GrpcServer, tmp_path: Path
) -> None:
    """The child that connected hands its descriptor to this process, which is a workload as well."""
    await register_agent(world)
    await add_workload(world)
    loop = asyncio.get_running_loop()
    async with descriptor_of(api, tmp_path) as (process, handed, receiving):
        await eventually_async(lambda: any(one.peer.pid == process.pid for one in api._connections))
        receiving.sendall(b"x")
        await process.wait()
        await eventually_async(lambda: all(one.peer.pid != process.pid for one in api._connections))
        async with asyncio.timeout(PATIENCE_S):
            while await loop.sock_recv(handed, 65536):
                pass


async def test_a_process_that_runs_another_program_loses_its_identity(
    world: World, api: GrpcServer, tmp_path: Path
) -> None:
    """The process, its user and its connection stay the same."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    await register_agent(world)
    await register_agent(world, "other")
    await add_workload(world)
    async with (
        descriptor_of(api, tmp_path, sleep, "1000") as (process, handed, receiving),
        RawClient(None, handed) as client,
    ):
        headers = [(":path", "/SpiffeWorkloadAPI/FetchX509Bundles"), *(one for one in HEADERS if one[0] != ":path")]
        client.h2.send_headers(1, [*headers, *HEADER])
        client.h2.send_data(1, frame(b""), end_stream=True)
        await client.send()
        assert await client.read_until(DataReceived)
        receiving.sendall(b"x")
        await eventually_async(lambda: os.readlink(f"/proc/{process.pid}/exe") != EXECUTABLE)
        await add_workload(world, "other", path="/usr/bin/other")  # this wakes every stream
        trailers = dict((await client.read_until(TrailersReceived)).headers)
        assert trailers["grpc-status"] == str(DENIED.value[0])
        assert newest_entry(world).action == "workload.refuse"


# ---------------------------------------------------------------------------------------- Validation and federation


async def federate(world: World, body: bytes) -> None:
    """Federate with another trust domain that publishes this bundle."""
    await run_act(
        world, lambda a: trust_domains.add_trust_domain(a, OTHER, f"https://{OTHER}/bundle", config=world.config)
    )
    await run_act(world, lambda a: trust_domains.take_bundle(a, OTHER, parse_bundle(body), config=world.config))


async def test_federated_bundles_reach_the_workloads_of_allowed_agents(world: World, api: GrpcServer) -> None:
    await register_agent(world)
    await add_workload(world)
    authority = root()
    await federate(world, document(x509_jwk(authority), jwt_jwk(), spiffe_sequence=1))
    async with stub(api) as call:
        svids = call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)
        roots = call("FetchX509Bundles", pb.X509BundlesRequest(), pb.X509BundlesResponse)
        keys = call("FetchJWTBundles", pb.JWTBundlesRequest(), pb.JWTBundlesResponse)
        assert not (await svids.read()).federated_bundles
        assert set((await roots.read()).bundles) == {"spiffe://example.org"}
        assert set((await keys.read()).bundles) == {"spiffe://example.org"}
        await run_act(world, lambda a: trust_domains.allow_agent(a, OTHER, "bot"))
        assert dict((await svids.read()).federated_bundles) == {f"spiffe://{OTHER}": authority}
        assert (await roots.read()).bundles[f"spiffe://{OTHER}"] == authority
        assert b'"kid":"k"' in (await keys.read()).bundles[f"spiffe://{OTHER}"]
        await run_act(world, lambda a: trust_domains.disallow_agent(a, OTHER, "bot"))
        assert not (await svids.read()).federated_bundles
        assert set((await roots.read()).bundles) == {"spiffe://example.org"}


async def validate(server: GrpcServer, svid: str, audience: str = "api") -> Any:
    async with stub(server) as call:
        request = pb.ValidateJWTSVIDRequest(audience=audience, svid=svid)
        return await call("ValidateJWTSVID", request, pb.ValidateJWTSVIDResponse).read()


async def refusal(server: GrpcServer, svid: str, audience: str = "api") -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await validate(server, svid, audience)
    assert refused.value.code() is INVALID
    details: str = refused.value.details()
    return details


async def test_own_jwt_svids_are_valid_while_the_agent_is_active(world: World, api: GrpcServer, clock: Clock) -> None:
    await register_agent(world)
    await add_workload(world)
    caller = await register_agent(world, "caller")
    await add_workload(world, "caller", path=EXECUTABLE)
    async with stub(api) as call:
        request = pb.JWTSVIDRequest(audience=["api"], spiffe_id="spiffe://example.org/agent/caller")
        [svid] = (await call("FetchJWTSVID", request, pb.JWTSVIDResponse).read()).svids
    answer = await validate(api, svid.svid)
    assert answer.spiffe_id == "spiffe://example.org/agent/caller"
    claims = {"sub": answer.spiffe_id, "aud": ["api"]}
    assert {name: answer.claims[name] for name in ("exp", "iat")} == {
        "exp": world.now() // SECOND + LIFETIME_S,
        "iat": world.now() // SECOND,
    }
    assert (answer.claims["sub"], list(answer.claims["aud"])) == (claims["sub"], claims["aud"])
    assert "another audience" in await refusal(api, svid.svid, "other")
    foreign_key, _ = sign_jwt_svid(jose.generate("ES256"), answer.spiffe_id, ["api"], now=world.now())
    assert "kid" in await refusal(api, foreign_key)
    await run_act(world, lambda a: registry.set_agent_state(a, caller.agent_id, Verb.SUSPEND))
    assert "suspended" in await refusal(api, svid.svid)
    await run_act(world, lambda a: registry.set_agent_state(a, caller.agent_id, Verb.RESUME))
    clock.advance(LIFETIME_S - 1)
    await validate(api, svid.svid)
    clock.advance(1)
    assert "expired" in await refusal(api, svid.svid)


async def test_jwt_svids_of_a_foreign_trust_domain_are_valid_for_allowed_agents(world: World, api: GrpcServer) -> None:
    await register_agent(world)
    await add_workload(world)
    foreign = token(sub=f"spiffe://{OTHER}/workload", exp=world.now() // SECOND + 60)
    assert "not trusted" in await refusal(api, foreign)
    await federate(world, document(x509_jwk(root()), jwt_jwk(), spiffe_sequence=1))
    assert "not trusted" in await refusal(api, foreign), "federated, and trusted by no agent"
    await run_act(world, lambda a: trust_domains.allow_agent(a, OTHER, "bot"))
    assert (await validate(api, foreign)).spiffe_id == f"spiffe://{OTHER}/workload"
    largest = token(sub=f"spiffe://{OTHER}/workload", exp=world.now() // SECOND + 60, number=10**308)
    assert (await validate(api, largest)).claims["number"] == 1e308
    too_large = token(sub=f"spiffe://{OTHER}/workload", exp=world.now() // SECOND + 60, number=10**309)
    assert "range of a double" in await refusal(api, too_large)
    as_ours = token(sub=ID, exp=world.now() // SECOND + 60)
    assert "kid" in await refusal(api, as_ours), "a key of another trust domain signs for that one alone"
    newer = parse_bundle(document(spiffe_sequence=2))
    await run_act(world, lambda a: trust_domains.take_bundle(a, OTHER, newer, config=world.config))
    assert "kid" in await refusal(api, foreign), "an empty bundle revokes every key"
    await run_act(world, lambda a: trust_domains.remove_trust_domain(a, OTHER))
    assert "not trusted" in await refusal(api, foreign)


@pytest.mark.parametrize(("svid", "audience"), [("", "api"), ("a.b.c", "api"), ("x", ""), ("\0", "api")])
async def test_a_malformed_jwt_svid_is_invalid(world: World, api: GrpcServer, svid: str, audience: str) -> None:
    await register_agent(world)
    await add_workload(world)
    await refusal(api, svid, audience)
    assert newest_entry(world).action == "workload.refuse"


async def test_the_digest_of_the_executable_is_a_selector(world: World, api: GrpcServer) -> None:
    content = await asyncio.to_thread(Path(EXECUTABLE).read_bytes)
    await register_agent(world)
    workload = await add_workload(world, sha256=sha256(content).hexdigest())
    async with stub(api) as call:
        assert len((await call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse).read()).svids) == 1
        await run_act(world, lambda a: workloads.remove_workload(a, workload.workload_id))
        await add_workload(world, sha256=sha256(content + b"x").hexdigest())
        assert await code_of(call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)) is DENIED


async def test_digests_of_executables_use_at_most_one_thread(
    world: World, api: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executable of half a gigabyte takes a second, and every user can have one."""
    content = await asyncio.to_thread(Path(EXECUTABLE).read_bytes)
    await register_agent(world)
    await add_workload(world, sha256=sha256(content).hexdigest())
    may_go_on, reading = threading.Event(), list[int]()

    class SlowDigests(peer._Digests):
        def get(self, descriptor: int, state: peer.FileState) -> str:
            reading.append(descriptor)
            may_go_on.wait(PATIENCE_S)
            return super().get(descriptor, state)

    monkeypatch.setattr(peer, "_digests", SlowDigests())
    async with stub(api) as call:
        streams = [call("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse) for _ in range(40)]
        await eventually_async(lambda: sum(len(one._streams) for one in api._connections) == len(streams))
        await eventually_async(lambda: reading)
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(50):
                await asyncio.to_thread(int)
        assert len(reading) == 1
        may_go_on.set()
        assert [len((await stream.read()).svids) for stream in streams] == [1] * len(streams)


async def test_a_server_without_descriptors_is_unavailable_and_refuses_no_identity(
    world: World, api: GrpcServer
) -> None:
    await register_agent(world)
    await add_workload(world)
    async with stub(api) as call:
        bundles = ("FetchX509Bundles", pb.X509BundlesRequest(), pb.X509BundlesResponse)
        before = (await call(*bundles).read()).bundles
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            assert await code_of(call(*bundles)) is grpc.StatusCode.UNAVAILABLE
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not entries(world, "workload.refuse")
        assert (await call(*bundles).read()).bundles == before


async def test_the_published_bundle_has_a_sequence_number_and_parses_back(world: World, api: GrpcServer) -> None:
    await register_agent(world)
    await add_workload(world)
    first = bundles.own_bundle(world.db.read(), world.config)
    assert parse_bundle(render_bundle(first)) == first
    assert first.sequence == world.now() // 1000
    assert (len(first.x509), len(first.jwt), first.refresh_hint_s) == (1, 1, 300)


async def test_refused_renewals_of_an_svid_are_counted(world: World, api: GrpcServer, clock: Clock) -> None:
    agent = await register_agent(world)
    workload = await add_workload(world)
    svids = world.get_singleton(SvidCache)
    kept, renew_at = await svids.get(workload)
    await put_policies(world, 'forbid (principal, action == Action::"issue_certificate", resource);')
    clock.advance(us=renew_at - world.now())
    for count in (1, 2, 3):
        with pytest.raises(Forbidden):
            await svids.get(workload)
        found = certificates.neglected(world.db.read(), now=world.now(), until=0, long=1, failures=1, limit=9)
        assert [(one.serial, failed) for one, failed in found] == [(kept.certificate.serial, count)]
    clock.advance(us=kept.certificate.not_after - world.now())
    with pytest.raises(Forbidden):
        await svids.get(workload)
    assert certificates.neglected(world.db.read(), now=0, until=0, long=1, failures=4, limit=9) == [], agent.name
