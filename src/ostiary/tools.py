"""Tools that run in the agent's own process: each call is decided on its arguments, and recorded before the tool runs.

    tools = Tools(guard, agent)                # the caller: an agent, or a task of it

    @tools.tool("read_file")                   # decides on the bound, defaulted arguments; raises Denied
    def read_file(path: str, encoding: str = "utf-8") -> str: ...

    with tools.admit("read_file", {"path": "/a"}) as running:     # the decorator and every adapter use this
        text = running.returned(read("/a"))

The guard has a resource of its own (`ostiary resource create`), whose catalogue lists the tools. The agent gets tokens
for this resource, and proves its key to the guard with each new token, as to any server.

The tools fail closed: before a tool runs, any error is raised as `Refused`. Without a known caller, every call is
denied. A program that serves several tasks uses `Tools(guard)` and `with tools.acting(task)`; a thread outside of this
context has no caller.
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

import msgspec

from ostiary.caller import AnyCaller, Caller, VerifiedCaller, caller_of
from ostiary.guard import Call, Denied, Guard, Verified
from ostiary.guard.closed import fail_closed
from ostiary.guard.listing import Says
from ostiary.outputs import is_model, output, size
from ostiary.protocol.errors import Conflict, Invalid, Malformed, Unauthenticated, check_list

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("ostiary.tools")


class Tools:
    """The tools of this process behind a guard, for one fixed caller or for the caller of each context. Thread-safe."""

    def __init__(self, guard: Guard, caller: AnyCaller | None = None, *, wait: float = 0) -> None:
        """Create the tools for `caller`. Without a caller, each context sets its own caller with `acting`.

        `wait`: maximum number of seconds that a call waits for a person's approval. With 0 the call is denied, and can
        be repeated after the approval.
        """
        self.guard, self.wait = guard, wait
        self._fixed = None if caller is None else caller_of(guard, caller)
        self._acting: ContextVar[Caller | VerifiedCaller | None] = ContextVar("ostiary.acting", default=None)

    @contextmanager
    def acting(self, caller: AnyCaller) -> Iterator[None]:
        """Set the caller for calls in this block, and in tasks that inherit its context. Raises Conflict if
        these tools have a fixed caller.
        """
        if self._fixed is not None:
            raise Conflict("these tools have a fixed caller", hint="create the tools without a caller: Tools(guard)")
        token = self._acting.set(caller_of(self.guard, caller))
        try:
            yield
        finally:
            self._acting.reset(token)

    def admit(self, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Running:
        """Decide and record a call. Return a context manager, in whose block the tool must run. Raises Denied or
        another Refused, and no other exception.

        If the authentication of the agent is too weak or too old for the call, the agent first gets another token for
        the same task. If a person's approval is requested, the call waits at most `self.wait` seconds, and is then
        decided again.

        `arguments`: the final arguments of the tool, with its defaults; `json_argument` defines the allowed Python
        values. `says`: function that returns the present definition of the tool, which is compared with the approved
        one.
        """
        with fail_closed():
            caller = self._caller()
            try:
                return admit(self.guard, caller.enter(), tool, arguments, says)
            except Denied as denied:
                if denied.step_up is not None and isinstance(caller, Caller):
                    return admit(self.guard, caller.step_up(denied.step_up), tool, arguments, says)
                if not (denied.approval and self.wait):
                    raise
                caller.wait(denied.approval, within=self.wait)
                return admit(self.guard, caller.enter(), tool, arguments, says)

    async def admit_async(self, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Running:
        """Decide a call (`admit`) without blocking the event loop: requests for a token run in a thread."""
        with fail_closed():
            caller = self._caller()
            try:
                return await self._admit_async(caller, tool, arguments, says)
            except Denied as denied:
                if denied.step_up is not None and isinstance(caller, Caller):
                    verified = await asyncio.to_thread(caller.step_up, denied.step_up)
                    return _running(self.guard, await self.guard.decide_async(verified, tool, _plain(arguments), says))
                if not (denied.approval and self.wait):
                    raise
                await caller.wait_async(denied.approval, within=self.wait)
                return await self._admit_async(caller, tool, arguments, says)

    async def _admit_async(
        self, caller: Caller | VerifiedCaller, tool: str, arguments: Mapping[str, Any], says: Says
    ) -> Running:
        verified = caller.cached()
        if verified is None:
            verified = await asyncio.to_thread(caller.enter)
        return _running(self.guard, await self.guard.decide_async(verified, tool, _plain(arguments), says))

    def tool(self, name: str, *, leave_out: Collection[str] = ()) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Return a decorator that guards a function, blocking or asynchronous, as the tool of this name.

        `leave_out`: parameters that the caller does not choose (`self`, the context of a framework). Raises Invalid if
        the function cannot be guarded.
        """

        def guarded(function: Callable[P, T]) -> Callable[P, T]:
            bind = make_binder(function, frozenset(check_list("leave_out", leave_out)))

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

    def _caller(self) -> Caller | VerifiedCaller:
        caller = self._fixed or self._acting.get()
        if caller is None:
            raise Unauthenticated(
                "the caller is not known",
                hint="call the tool inside the block: with tools.acting(task): ..",
                code="nobody_acts",
            )
        return caller


class Running:
    """The context of an admitted call, in which its tool runs. The outcome is recorded when the block ends."""

    def __init__(self, guard: Guard, call: Call) -> None:
        self._guard, self._call = guard, call

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._call.ok = self._call.ok and kind is None
        self._guard.finish(self._call)

    def returned(self, value: T, *, ok: bool = True, is_out: bool = False) -> T:
        """Record the output of the tool, and whether it succeeded (`ok`); return the output. Raises Withheld if the
        output must not be returned to the agent.

        `is_out`: true if the agent already has the output, so that limits on results cannot be enforced.
        """
        self._measure(value, ok=ok, is_out=is_out)
        if self._call.watched is not None:
            self._guard.observe(self._call, output(value))
        return value

    async def returned_async(self, value: T, *more: object, ok: bool = True, is_out: bool = False) -> T:
        """Record the output of the tool, and whether it succeeded (`ok`), without blocking the event loop; return the
        output. `more`: further parts of the output. `is_out`, and errors: see `returned`.
        """
        self._measure(value, ok=ok, is_out=is_out)
        if self._call.watched is not None:
            for one in (value, *more):
                await self._guard.observe_async(self._call, output(one))
        return value

    def _measure(self, value: object, *, ok: bool, is_out: bool) -> None:
        self._call.enforces = self._call.enforces and not is_out
        self._call.result(ok=ok, bytes=size(value), records=len(value) if isinstance(value, list | tuple) else None)


def admit(guard: Guard, caller: Verified, tool: str, arguments: Mapping[str, Any], says: Says = None) -> Running:
    """Decide a call of a caller whose token the guard has verified (see `Tools.admit`)."""
    with fail_closed():
        return _running(guard, guard.decide(caller, tool, _plain(arguments), says))


def _running(guard: Guard, call: Call) -> Running:
    call.check()
    return Running(guard, call)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json_argument(value, name) for name, value in arguments.items()}


def json_argument(value: object, name: str) -> Any:
    """Return an argument as the JSON value on which the guard decides. Dates, enumerations, paths and dataclasses have
    their usual form.

    Raises Malformed for a value without such a form, and for subclasses of `str` and numbers: they could show the guard
    another value than the tool.
    """
    try:
        return msgspec.to_builtins(value, enc_hook=_described)
    except (TypeError, ValueError, RecursionError) as error:
        raise Malformed(f"argument `{name[:64]}` cannot be judged: {error}", code="bad_arguments") from None


def _described(value: object) -> object:
    """Return the JSON form of a value that msgspec does not support: a path, or a Pydantic model by its fields.
    The serializers of a model are not used, since they may leave fields out.
    """
    if isinstance(value, PurePath):
        return os.fspath(value)
    if is_model(value):
        return dict(cast(Iterable[tuple[str, object]], value))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def fill_defaults(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments, with absent ones set to the defaults of the tool's JSON Schema. A null default is
    ignored.
    """
    properties = schema.get("properties", {})
    defaults = {name: inner.get("default") for name, inner in properties.items() if isinstance(inner, Mapping)}
    return {name: value for name, value in defaults.items() if value is not None} | dict(arguments)


def make_binder(
    function: Callable[..., Any], leave_out: frozenset[str]
) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """Return a function that binds positional and keyword arguments to the names of the parameters, with defaults.
    Raises Invalid for a generator, and for unknown names in `leave_out`.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise Invalid(
            "a generator cannot be guarded, because it runs after its call has returned",
            hint="guard the function that consumes it",
        )
    signature = inspect.signature(function)
    if unknown := leave_out - signature.parameters.keys():
        raise Invalid(
            f"`leave_out` names {', '.join(sorted(unknown))}, which the function has no parameter for",
            hint="name parameters of the function",
        )
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
                raise Malformed(
                    f"extra arguments repeat the names of declared ones: {', '.join(sorted(clash))}",
                    code="bad_arguments",
                )
            named |= more
        return named

    return bind
