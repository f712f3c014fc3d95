"""Tokens and proofs: requested when needed, cached while valid, renewed when a server refuses them."""

from __future__ import annotations

import httpx2
import pytest

from harness.clock import Clock, SeededRandom
from ostiary.client import Auth, Client, StepUpNeeded, Target, TokenRefused, run
from ostiary.client.flows import MARGIN_US, MAX_ATTEMPTS
from ostiary.client.sending import MAX_NONCES
from ostiary.keys import Credential
from ostiary.protocol import jose
from ostiary.protocol.errors import Forbidden, Malformed, Unauthenticated, Unavailable
from tests.sdk.server import API, ISSUER, Server

KEY = jose.generate("ES256")
TARGET = Target(API, "files:read")


@pytest.fixture
def server(clock: Clock) -> Server:
    return Server(clock, KEY)


@pytest.fixture
def http(server: Server) -> httpx2.Client:
    return httpx2.Client(transport=httpx2.MockTransport(server))


@pytest.fixture
def client(clock: Clock, dice: SeededRandom) -> Client:
    return Client(Credential(KEY, "ag_1", ISSUER), now=clock, random=dice)


def get(http: httpx2.Client, client: Client, target: Target = TARGET, url: str = f"{API}/report") -> httpx2.Response:
    return http.get(url, auth=Auth(client, target))


def test_the_first_request_gets_a_token_and_both_nonces(server: Server, http: httpx2.Client, client: Client) -> None:
    response = get(http, client)
    assert response.json() == {"token": "token-1", "for": API}
    assert server.log == [
        f"GET {ISSUER}/.well-known/oauth-authorization-server",
        f"POST {ISSUER}/token",
        f"POST {ISSUER}/token",
        f"GET {API}/report",
        f"GET {API}/report",
    ]
    assert server.forms[0]["scope"] == ["files:read"]
    assert server.forms[0]["resource"] == [API]
    assert "task" not in server.forms[0]


def test_later_requests_need_one_round_trip(server: Server, http: httpx2.Client, client: Client) -> None:
    get(http, client)
    before = len(server.log)
    get(http, client)
    assert len(server.log) == before + 1


def test_each_target_has_a_token_of_its_own(server: Server, http: httpx2.Client, client: Client) -> None:
    for target in (TARGET, Target(API, "files:read", "tk_1"), Target(API), TARGET):
        get(http, client, target)
    assert len(server.tokens) == 3
    assert server.forms[1]["task"] == ["tk_1"]


@pytest.mark.parametrize(("left_us", "is_kept"), [(1, True), (0, False), (-1, False)])
def test_a_token_is_renewed_before_it_expires(
    server: Server, http: httpx2.Client, client: Client, clock: Clock, left_us: int, is_kept: bool
) -> None:
    get(http, client)
    clock.advance(us=300_000_000 - MARGIN_US - left_us)
    get(http, client)
    assert len(server.tokens) == (1 if is_kept else 2)


@pytest.mark.parametrize(("left_us", "is_kept"), [(1, True), (0, False), (-1, False)])
def test_a_short_lived_token_is_renewed_when_a_fifth_of_its_lifetime_is_left(
    server: Server, http: httpx2.Client, client: Client, clock: Clock, left_us: int, is_kept: bool
) -> None:
    server.lifetime = 10
    get(http, client)
    clock.advance(us=8_000_000 - left_us)
    get(http, client)
    assert len(server.tokens) == (1 if is_kept else 2)


def test_a_request_succeeds_after_the_nonce_of_the_server_has_changed(
    server: Server, http: httpx2.Client, client: Client
) -> None:
    get(http, client)
    server.nonces = {"as": "as-nonce-2", "rs": "rs-nonce-2"}
    assert get(http, client).status_code == 200
    assert get(http, client, Target(API)).status_code == 200


def test_requests_to_a_server_that_always_demands_another_nonce_are_limited(
    server: Server, http: httpx2.Client, client: Client
) -> None:
    get(http, client)
    before = len(server.log)
    server.nonces["rs"] = "never the one"
    transport = httpx2.MockTransport(lambda request: wrong_nonce(server, request))
    response = httpx2.Client(transport=transport).get(f"{API}/report", auth=Auth(client, TARGET))
    assert response.status_code == 401
    assert len(server.log) - before == MAX_NONCES


def wrong_nonce(server: Server, request: httpx2.Request) -> httpx2.Response:
    """Return the response of the server with a nonce that the server does not accept, a new one each time."""
    response = server(request)
    if "dpop-nonce" in response.headers:
        response.headers["dpop-nonce"] = f"the one, number {len(server.log)}"
    return response


def test_requests_to_a_resource_that_refuses_each_token_are_limited(
    server: Server, http: httpx2.Client, client: Client
) -> None:
    get(http, client)
    server.revoked.update(f"token-{number}" for number in range(100))
    server.log.clear()
    assert http.get(f"{API}/report", auth=Auth(client, TARGET)).status_code == 401
    assert server.log.count(f"GET {API}/report") == MAX_ATTEMPTS


def test_a_revoked_token_is_replaced_once(server: Server, http: httpx2.Client, client: Client) -> None:
    get(http, client)
    server.revoked.add("token-1")
    assert get(http, client).json()["token"] == "token-2"


def test_a_client_that_gets_no_new_token_returns_the_401_response_of_the_resource(
    server: Server, http: httpx2.Client, client: Client
) -> None:
    get(http, client)
    server.revoked.add("token-1")
    server.refuse_tokens = True
    before = len(server.log)
    response = get(http, client)
    assert len(server.log) - before == 3, "one request for a token, between two to the resource"
    assert response.status_code == 401
    assert "invalid_token" in response.headers["www-authenticate"]
    assert str(response.request.url) == f"{API}/report"


def test_a_refused_token_request_raises_an_error_with_its_reason_and_hint(
    server: Server, http: httpx2.Client, client: Client
) -> None:
    server.refuse_tokens = True
    with pytest.raises(TokenRefused, match="suspended") as refused:
        get(http, client)
    assert refused.value.code == "invalid_client"
    assert refused.value.hint == "ask its owner"


def test_a_client_takes_the_resource_from_the_metadata_of_the_challenge(
    server: Server, http: httpx2.Client, client: Client
) -> None:
    response = get(http, client, Target())
    assert response.json()["for"] == API
    assert "GET https://files.example.org/.well-known/oauth-protected-resource/api" in server.log
    before = len(server.log)
    get(http, client, Target(), f"{API}/other")
    assert len(server.log) == before + 1, "it is remembered"


def test_a_request_to_a_server_without_a_challenge_has_no_token(clock: Clock, client: Client) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert "authorization" not in request.headers
        return httpx2.Response(200)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    assert get(http, client, Target()).status_code == 200


@pytest.mark.parametrize(
    ("metadata_url", "resource"),
    [
        ("https://elsewhere.example.org/metadata", API),
        ("https://files.example.org/metadata", "https://elsewhere.example.org/api"),
        ("https://files.example.org/metadata", "https://files.example.org/ap"),
        ("https://files.example.org/metadata", "https://files.example.org/api/report/deeper"),
    ],
)
def test_a_challenge_with_metadata_of_another_resource_gets_no_token(
    server: Server, client: Client, metadata_url: str, resource: str
) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if str(request.url) == metadata_url:
            return httpx2.Response(200, json={"resource": resource})
        return httpx2.Response(401, headers={"www-authenticate": f'DPoP resource_metadata="{metadata_url}"'})

    with pytest.raises(Forbidden):
        get(httpx2.Client(transport=httpx2.MockTransport(answer)), client, Target())
    assert server.log == []


def test_an_issuer_whose_metadata_states_another_issuer_is_refused(clock: Clock, dice: SeededRandom) -> None:
    server = Server(clock, KEY, issuer="https://other.example.org")
    client = Client(Credential(KEY, "ag_1", ISSUER), now=clock, random=dice)

    def answer(request: httpx2.Request) -> httpx2.Response:
        return server(httpx2.Request("GET", str(request.url).replace(ISSUER, server.issuer)))

    with pytest.raises(Malformed, match="issuer"):
        run(httpx2.Client(transport=httpx2.MockTransport(answer)), client.discover())


def test_a_server_at_a_local_url_gets_tokens_for_its_public_url(clock: Clock, dice: SeededRandom) -> None:
    server = Server(clock, KEY)
    local = "http://127.0.0.1:8700"
    client = Client(Credential(KEY, "ag_1", local), url=local, now=clock, random=dice)

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert str(request.url).startswith(local)
        public = httpx2.Request(
            request.method, str(request.url).replace(local, ISSUER), headers=request.headers, content=request.content
        )
        return server(public)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    response = http.get(f"{local}/api/v1/agents", auth=Auth(client, Target(f"{ISSUER}/api/v1")))
    assert response.json()["for"] == f"{ISSUER}/api/v1"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {}, Unavailable),
        (200, {"issuer": ISSUER}, Malformed),
        (200, {"issuer": 5, "token_endpoint": "x"}, Malformed),
    ],
)
def test_missing_or_malformed_metadata_of_an_issuer_is_refused(
    client: Client, status: int, body: dict[str, object], kind: type[Exception]
) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, json=body))
    with pytest.raises(kind):
        run(httpx2.Client(transport=transport), client.discover())


def test_a_token_without_a_key_binding_is_refused(server: Server, client: Client) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        response = server(request)
        if str(request.url).endswith("/token") and response.status_code == 200:
            return httpx2.Response(200, json={"access_token": "t", "token_type": "Bearer", "expires_in": 300})
        return response

    with pytest.raises(Unauthenticated, match="not bound"):
        run(httpx2.Client(transport=httpx2.MockTransport(answer)), client.token(TARGET))


def test_a_client_caches_at_most_the_maximum_number_of_tokens(
    server: Server, http: httpx2.Client, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.client.flows.MAX_CACHED", 2)
    for task in ("tk_1", "tk_2", "tk_3"):
        get(http, client, Target(API, None, task))
    assert [target.task for target in client._tokens] == ["tk_2", "tk_3"]


async def test_an_asynchronous_client_fetches_a_token_for_its_first_request(server: Server, client: Client) -> None:
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(server)) as http:
        response = await http.get(f"{API}/report", auth=Auth(client, TARGET))
    assert response.json() == {"token": "token-1", "for": API}


def test_a_streamed_response_is_not_read_before_the_caller_reads_it(server: Server, client: Client) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        response = server(request)
        is_answer = str(request.url).startswith(API) and response.status_code == 200
        return httpx2.Response(200, content=iter([b"one", b"two"])) if is_answer else response

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    with http.stream("GET", f"{API}/report", auth=Auth(client, TARGET)) as response:
        assert not response.is_stream_consumed
        assert response.read() == b"onetwo"


SECOND_KEY = jose.generate("ES256")
DEMAND = 'acr_values="urn:a urn:b", max_age="60"'


@pytest.fixture
def strong(clock: Clock, dice: SeededRandom) -> Client:
    """The same with a second key."""
    return Client(Credential(KEY, "ag_1", ISSUER), second_key=SECOND_KEY, now=clock, random=dice)


def test_a_step_up_challenge_is_answered_with_its_parameters_and_the_second_key(
    server: Server, http: httpx2.Client, strong: Client
) -> None:
    get(http, strong)
    server.demand = DEMAND
    assert get(http, strong).json()["token"] == "token-2"
    assert server.forms[-1] | {"acr_values": ["urn:a urn:b"], "max_age": ["60"]} == server.forms[-1]
    assert server.bound == {"token-1": KEY.public.thumbprint, "token-2": SECOND_KEY.public.thumbprint}


@pytest.mark.parametrize(("after_s", "tokens"), [(59, 2), (60, 3)])
def test_a_step_up_token_is_kept_until_the_max_age_of_the_challenge(
    server: Server, http: httpx2.Client, strong: Client, clock: Clock, after_s: int, tokens: int
) -> None:
    server.demand = DEMAND
    get(http, strong)
    clock.advance(after_s)
    assert get(http, strong).status_code == 200
    assert len(server.tokens) == tokens


def test_a_step_up_challenge_that_no_token_satisfies_ends_with_a_401(
    server: Server, http: httpx2.Client, strong: Client
) -> None:
    get(http, strong)
    server.demand = 'acr_values="urn:a", max_age="60", more="never met"'
    refused = get(http, strong)
    assert (refused.status_code, str(refused.url)) == (401, f"{API}/report"), (
        "the caller never sees the issuer's answer"
    )
    assert len(server.tokens) == 3


def test_a_refused_step_up_raises_an_error_with_the_texts_of_resource_and_issuer(
    server: Server, http: httpx2.Client, client: Client
) -> None:
    get(http, client)
    server.demand, server.refuse_tokens = DEMAND, True
    with pytest.raises(
        StepUpNeeded, match=r"requires `acr` urn:a urn:b and .* within the last 60 s: the agent is suspended"
    ) as no:
        get(http, client)
    assert (no.value.acr_values, no.value.max_age) == ("urn:a urn:b", 60)


def test_a_client_whose_tokens_are_all_refused_returns_the_response_of_the_resource(
    server: Server, http: httpx2.Client, client: Client
) -> None:
    get(http, client)
    server.revoked |= {f"token-{number}" for number in range(1, 9)}
    refused = get(http, client)
    assert (refused.status_code, str(refused.url)) == (401, f"{API}/report")


@pytest.mark.parametrize("hours", [1, -1, 24 * 365])
def test_a_client_with_a_wrong_clock_uses_the_time_of_the_issuer(
    server: Server, http: httpx2.Client, dice: SeededRandom, hours: int
) -> None:
    """Otherwise an administrator could not stop an agent from a machine whose clock has jumped."""
    clock = Clock(server.clock() + hours * 3_600_000_000)
    client = Client(Credential(KEY, "ag_1", ISSUER), now=clock, random=dice)
    assert get(http, client).status_code == 200
    before = len(server.log)
    clock.advance(60)
    server.clock.advance(60)
    assert get(http, client).status_code == 200
    assert len(server.log) == before + 1


def test_a_refusal_of_an_issuer_that_states_no_time_is_not_retried(
    server: Server, http: httpx2.Client, client: Client
) -> None:
    server.refuse_tokens = True
    with pytest.raises(TokenRefused):
        get(http, client)
    assert server.log.count(f"POST {ISSUER}/token") == 2  # one for the nonce
