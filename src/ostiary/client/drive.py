"""Three ways to drive the flows of a client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TypeVar

import httpx2

from ostiary.client.flows import Client, Flow
from ostiary.client.target import Target

T = TypeVar("T")


class Auth(httpx2.Auth):
    """Tokens and proofs for any client of httpx2, blocking or not: `httpx2.AsyncClient(auth=agent.auth(...))`."""

    def __init__(self, client: Client, target: Target) -> None:
        self._client, self._target = client, target

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        flow = self._client.send(request, self._target)
        outgoing = next(flow)
        while True:
            response = yield outgoing
            if outgoing is not request or response.status_code == 401:
                response.read()  # what answers the caller is left unread: it may be a stream without end
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        flow = self._client.send(request, self._target)
        outgoing = next(flow)
        while True:
            response = yield outgoing
            if outgoing is not request or response.status_code == 401:
                await response.aread()
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return


def run(http: httpx2.Client, flow: Flow[T]) -> T:
    """Drive a flow to its end."""
    try:
        request = next(flow)
        while True:
            request = flow.send(http.send(request, auth=None))
    except StopIteration as done:
        value: T = done.value
        return value


async def arun(http: httpx2.AsyncClient, flow: Flow[T]) -> T:
    """Drive a flow to its end."""
    try:
        request = next(flow)
        while True:
            request = flow.send(await http.send(request, auth=None))
    except StopIteration as done:
        value: T = done.value
        return value
