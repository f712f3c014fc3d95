"""The one way out: requests to a URL that the operator has configured, bounded in time and size.

No redirect is followed, no proxy and no credential taken from the environment. Off this machine it must be https.
What is fetched is not logged: the URL of a webhook may hold a secret.
"""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

import httpx2

from ostiary.core.errors import Invalid, Unavailable

MAX_ANSWER = 64 << 10
logging.getLogger("httpx2").setLevel(logging.WARNING)
_HERE = frozenset({"127.0.0.1", "localhost", "::1"})


def check_origin(url: str, *, name: str) -> None:
    """Whether a configured URL may be fetched from. Raises Invalid."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise Invalid(f"{name} `{url}` must be http(s)://HOST[:PORT][/PATH]")
    if parts.scheme == "http" and parts.hostname not in _HERE:
        raise Invalid(f"{name} off this machine must be https")
    if url.endswith("/"):
        raise Invalid(f"{name} must not end in a slash")


async def deliver(url: str, body: bytes, *, headers: dict[str, str], within_s: float) -> tuple[int, str]:
    """Status and `Retry-After` of the answer to a POST of JSON; what it says is neither read nor kept.

    On a connection of its own, which ends with it. Raises Unavailable, in words that hold nothing of the answer.
    """
    sent = {"content-type": "application/json", "user-agent": "ostiary", **headers}
    try:
        async with (
            asyncio.timeout(within_s),
            httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=within_s) as client,
            client.stream("POST", url, content=body, headers=sent) as response,
        ):
            return response.status_code, response.headers.get("retry-after", "")
    except TimeoutError:
        raise Unavailable(f"it took longer than {within_s:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable(f"it is not reached: {type(error).__name__}") from None


class Fetcher:
    """Keeps connections to one origin."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False)

    async def post(self, path: str, body: bytes, *, within_s: float) -> bytes:
        """The body of a 200 of type JSON. `path` begins with a slash, and its letters need no escape.

        Raises Unavailable, in words that hold nothing of the answer.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._post(self._origin + path, body)
        except TimeoutError:
            raise Unavailable(f"it took longer than {within_s:g} s", code="engine_failed") from None
        except httpx2.HTTPError as error:
            raise Unavailable(f"it is not reached: {type(error).__name__}", code="engine_failed") from None

    async def _post(self, url: str, body: bytes) -> bytes:
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.status_code != 200 or kind != "application/json":
                raise Unavailable(f"it answers {response.status_code} of the type {kind[:50]!a}", code="engine_failed")
            answer = b""
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise Unavailable(f"it answers with more than {MAX_ANSWER} bytes", code="engine_failed")
            return answer

    async def close(self) -> None:
        await self._client.aclose()
