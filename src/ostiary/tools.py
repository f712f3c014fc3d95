"""Tools that run in the agent's own process: each call is decided on its arguments, and recorded before the tool runs.

    tools = Tools(guard, agent)                # or a task of it: whose calls these are

    @tools.tool("read_file")                   # decides on the bound, defaulted arguments; raises Denied
    def read_file(path: str, encoding: str = "utf-8") -> str: ...

    with tools.admit("read_file", {"path": "/a"}) as running:     # what the decorator and every adapter stand on
        text = running.returned(read("/a"))

The guard is a resource of its own (`ostiary resource create`), whose catalogue lists the tools. The agent gets a token
for it and proves its key to the guard as it would to any server; that is done again whenever the token is a new one.

It fails closed: nothing but `Refused` is ever raised before a tool runs, and whatever goes wrong is one. Where nobody
is known to act, nothing is allowed: a program that serves several tasks says so with `Tools(guard)` and
`with tools.acting(task)`, and a thread that has lost its context acts for nobody, never for somebody else.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar, cast

import httpx2
import msgspec

from ostiary.caller import Caller, Shown, Who, caller_of
from ostiary.guard import Call, Denied, Guard, Verified
from ostiary.guard.listing import Says
from ostiary.outputs import is_model, output, size
from ostiary.protocol.errors import Conflict, Invalid, Malformed, Refused, Unauthenticated, Unavailable

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("ostiary.tools")


class Tools:
    """The tools of this process behind a guard, as somebody calls them. Thread-safe."""

    def __init__(self, guard: Guard, who: Who | None = None, *, wait: float = 0) -> None:
        """Without `who`, each context says with `acting` for whom it acts. `wait`: how many seconds a call waits for
        the person whom its policies ask; with 0 it is denied, and passes when it is made again after a yes.
        """
        self.guard, self.wait = guard, wait
        self._fixed = None if who is None else caller_of(guard, who)
        self._acting: ContextVar[Caller | Shown | None] = ContextVar("ostiary.acting", default=None)

    @contextmanager
    def acting(self, who: Who) -> Iterator[None]:
        """In this block, and in what it starts with its context, calls are those of `who`. Raises Conflict."""
        if self._fixed is not None:
            raise Conflict("these tools act for one caller", hint="Tools(guard), without a caller")
        token = self._acting.set(caller_of(self.guard, who))
        try:
            yield
        finally:
            self._acting.reset(token)

    def admit(self, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Running:
        """A call that is allowed and on record, to be run in a `with`. Raises Denied and other Refused, nothing else.

        The arguments are what the tool is about to get, with its defaults; `plain` says what of Python they may be.
        `says`: what the tool says of itself, which is compared with what its owner approved.
        """
        with closed():
            caller = self._caller()
            try:
                return admit(self.guard, caller.enter(), tool, arguments, says)
            except Denied as denied:
                if not (denied.approval and self.wait):
                    raise
                caller.wait(denied.approval, within=self.wait)
                return admit(self.guard, caller.enter(), tool, arguments, says)

    async def admit_async(self, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Running:
        """As `admit`; where a token must be fetched, or a budget asked for, a thread waits for it."""
        with closed():
            caller = self._caller()
            try:
                return await self._admit_async(caller, tool, arguments, says)
            except Denied as denied:
                if not (denied.approval and self.wait):
                    raise
                await caller.wait_async(denied.approval, within=self.wait)
                return await self._admit_async(caller, tool, arguments, says)

    async def _admit_async(
        self, caller: Caller | Shown, tool: str, arguments: Mapping[str, Any], says: Says
    ) -> Running:
        who = caller.held()
        if who is None:
            who = await asyncio.to_thread(caller.enter)
        return _running(self.guard, await self.guard.decide_async(who, tool, _plain(arguments), says))

    def tool(self, name: str, *, leave_out: Collection[str] = ()) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Let a function, blocking or not, run only as the tool of this name.

        `leave_out`: parameters that the caller does not choose (`self`, the context of a framework). Raises Invalid.
        """

        def guarded(function: Callable[P, T]) -> Callable[P, T]:
            bind = binder(function, frozenset(leave_out))

            @wraps(function)
            def blocking(*args: P.args, **kwargs: P.kwargs) -> T:
                with self.admit(name, bind(args, kwargs)) as running:
                    return running.returned(function(*args, **kwargs))

            @wraps(function)
            async def asynchronous(*args: P.args, **kwargs: P.kwargs) -> Any:
                with await self.admit_async(name, bind(args, kwargs)) as running:
                    return await running.returned_async(await cast(Awaitable[Any], function(*args, **kwargs)))

            return cast(Callable[P, T], asynchronous) if inspect.iscoroutinefunction(function) else blocking

        return guarded

    def _caller(self) -> Caller | Shown:
        caller = self._fixed or self._acting.get()
        if caller is None:
            raise Unauthenticated("nobody is known to act here", hint="with tools.acting(task): ..", code="nobody_acts")
        return caller


class Running:
    """Around a tool that may run: how it went goes on record when the block ends."""

    def __init__(self, guard: Guard, call: Call) -> None:
        self._guard, self._call = guard, call

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._call.ok = self._call.ok and kind is None
        self._guard.finish(self._call)

    def returned(self, value: T, *, ok: bool = True, is_out: bool = False) -> T:
        """What the tool returned, and whether that is a success. Raises Withheld, unless it `is_out` already."""
        self._measure(value, ok=ok, is_out=is_out)
        if self._call.watched is not None:
            self._guard.observe(self._call, output(value))
        return value

    async def returned_async(self, value: T, *, ok: bool = True, is_out: bool = False) -> T:
        """As `returned`; the event loop goes on."""
        self._measure(value, ok=ok, is_out=is_out)
        if self._call.watched is not None:
            await self._guard.observe_async(self._call, output(value))
        return value

    def _measure(self, value: object, *, ok: bool, is_out: bool) -> None:
        self._call.enforces = self._call.enforces and not is_out
        self._call.result(ok=ok, bytes=size(value), records=len(value) if isinstance(value, list | tuple) else None)


def admit(guard: Guard, who: Verified, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Running:
    """A call of somebody who has shown a token: as `Tools.admit`."""
    with closed():
        return _running(guard, guard.decide(who, tool, _plain(arguments), says))


def _running(guard: Guard, call: Call) -> Running:
    call.check()
    return Running(guard, call)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value, name) for name, value in arguments.items()}


@contextmanager
def closed() -> Iterator[None]:
    """Whatever goes wrong in here is a refusal."""
    try:
        yield
    except Refused:
        raise
    except httpx2.HTTPError as error:
        raise Unavailable(f"no token is to be had: {error}", hint="is the server running?") from error
    except Exception as error:
        log.exception("the guard of a tool failed, and refuses")
        raise Unavailable("the guard failed, and refuses", code="guard_failed") from error


def plain(value: object, name: str) -> Any:
    """The JSON value that an argument is judged as: dates, enumerations, paths, dataclasses as everybody writes them.

    Raises Malformed for what has no such form: subclasses of `str` and numbers too, for they may say one thing to the
    guard and another to the tool.
    """
    try:
        return msgspec.to_builtins(value, enc_hook=_described)
    except (TypeError, ValueError, RecursionError) as error:
        raise Malformed(f"argument `{name[:64]}` cannot be judged: {error}", code="bad_arguments") from None


def _described(value: object) -> object:
    """What msgspec does not know: paths, and pydantic's models by their fields, whose serializers may say less."""
    if isinstance(value, PurePath):
        return os.fspath(value)
    if is_model(value):
        return dict(cast(Iterable[tuple[str, object]], value))
    raise TypeError(f"{type(value).__name__} is no JSON")


def filled(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the defaults that the tool's JSON Schema has for them; null is no default but an absence."""
    properties = schema.get("properties", {})
    defaults = {name: inner.get("default") for name, inner in properties.items() if isinstance(inner, Mapping)}
    return {name: value for name, value in defaults.items() if value is not None} | dict(arguments)


def binder(
    function: Callable[..., Any], leave_out: frozenset[str]
) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """What binds the arguments of a call to the names of the parameters, defaults filled in. Raises Invalid."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise Invalid("a generator runs after its call has returned", hint="guard the function that consumes it")
    signature = inspect.signature(function)
    if unknown := leave_out - signature.parameters.keys():
        raise Invalid(f"the tool has no parameter {', '.join(sorted(unknown))}")
    rest = {parameter.name: parameter.kind for parameter in signature.parameters.values()}

    def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name in leave_out:
                continue
            more = value if rest[name] is inspect.Parameter.VAR_KEYWORD else {name: value}
            if clash := named.keys() & more.keys():
                raise Malformed(f"two arguments are called {', '.join(sorted(clash))}", code="bad_arguments")
            named |= more
        return named

    return bind
