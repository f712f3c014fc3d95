"""Write what is generated from the program: `make docs`. A test compares it with the tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import inspect

from docs import listings
from docs.typescript import client_types
from ostiaryd.app import ROUTES
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.edge import SMALL_BODY
from ostiaryd.ground.http.protocol import MAX_FIELDS, MAX_HEAD_BYTES, SLOWEST_S
from ostiaryd.ground.http.routes import Route
from ostiaryd.registry.model import SELF

DOCS = Path(__file__).parent


def configuration() -> str:
    """Every key that can be set, with its default and what it accepts."""
    fields = inspect.type_info(Config)
    assert isinstance(fields, inspect.StructType)
    rows = "\n".join(_row(field) for field in fields.fields)
    return f"""# Configuration

This page is for operators. After reading this page, you can set every option of the server.

A setting comes from three places, the last of which wins: the TOML file of `ostiary serve --config FILE`, the
environment variable `OSTIARY_<KEY>` (`OSTIARY_LISTEN` for `listen`), and the option of `ostiary serve`, if there is
one. An unknown key in the file is an error. Settings are read at the start of the server. This page is generated from
`Config` in `src/ostiaryd/ground/config.py`: `make docs`.

| key | default | accepts | meaning |
| --- | --- | --- | --- |
{rows}
"""


def _row(field: inspect.Field) -> str:
    assert isinstance(field.type, inspect.Metadata), f"{field.name} has no description"
    description = (field.type.extra_json_schema or {})["description"]
    default = "required" if field.required else f"`{msgspec.json.encode(field.default).decode()}`"
    return f"| `{field.encode_name}` | {default} | {_accepts(field.type.type)} | {description} |"


def _accepts(kind: inspect.Type) -> str:
    match kind:
        case inspect.LiteralType(values=values):
            return ", ".join(f"`{value}`" if value else "empty" for value in values)
        case inspect.IntType(ge=low, le=high):
            return f"{low} to {high}"
        case inspect.BoolType():
            return "`true`, `false`"
        case inspect.StrType():
            return "text"
    raise TypeError(f"say how {kind} is written")


def api() -> str:
    """Return every route by protocol, with its callers and statuses."""
    protocols = dict.fromkeys(route.protocol.name for route in ROUTES)
    tables = "\n\n".join(_routes_of(name) for name in protocols)
    return f"""# HTTP

This page is for developers of clients and tools of the HTTP API. After reading this page, you can call each route.

The server describes its routes in an OpenAPI 3.1 document with the schema, an example and the refusals of each:
`curl <public URL>/openapi.json`. The test command calls every operation of a real server with generated requests, and
compares each answer with the document. The npm package `@ostiary/api` in `clients/typescript` has a type for each JSON
operation. This page and those types are generated from the same values: `make docs`.

- **Callers.** A route with a scope requires an access token for `<public URL>/api/v1` with that scope and a DPoP proof.
  *Authenticated* means a token without a particular scope: the route then returns or changes only the caller's own
  objects. *Anonymous* routes require no token; OAuth endpoints authenticate the client by the members of the form.
- **Statuses.** The table lists the statuses of success and those refusals that are particular to the route. Every route
  can also answer 400 (malformed), 408 (request too slow), 413 (body too large), 431 (head too large), 500, 501 (a
  transfer coding other than `chunked`) and 503 (with `Retry-After`). A route with a token can answer 401 and 403, a
  route with a body 415 and 422. The answer for a path that is not listed is 404, and for a method that is not listed
  405 with `Allow`.
- **Refusals** of the administration API are JSON objects with the members `error` (the code), `message` and `hint`.
  Every other protocol has its own format of errors.
- **Limits.** The target and the fields of a request have at most {MAX_HEAD_BYTES >> 10} KiB in all, and there are at
  most {MAX_FIELDS} fields. A request arrives within {SLOWEST_S:g} seconds. A body has at most {SMALL_BODY >> 10} KiB;
  *large* routes accept `max_request_bytes` from an authenticated caller.
- **Flags.** *stops*: the route only stops or narrows something, and its act runs before all waiting acts. *grants*: the
  route grants access; after a forward jump of the wall clock, it is refused until an operator confirms the time
  ([clocks](../how-to/clocks.md)). *streams*: the response is sent while it is made. *people*: persons with a key may
  use the route too. *PEP*: the route accepts the API key of an AuthZEN gateway.

{tables}
"""


def _routes_of(protocol: str) -> str:
    rows = "\n".join(_route_row(route) for route in ROUTES if route.protocol.name == protocol)
    return f"""## {protocol}

| method | path | callers | operation | statuses | flags |
| --- | --- | --- | --- | --- | --- |
{rows}"""


COMMON_STATUSES = frozenset({400, 401, 403, 413, 415, 422, 500, 503})


def _route_row(route: Route) -> str:
    statuses = sorted({*route.answers, *(route.error_statuses.keys() - COMMON_STATUSES)})
    flags = [
        word
        for word, is_set in (
            ("stops", route.stops),
            ("grants", route.grants),
            ("large", route.is_large),
            ("streams", route.streams),
            ("people", route.allows_people),
            ("PEP", route.allows_peps),
        )
        if is_set
    ]
    summary = route.summary.replace("|", "\\|")
    return (
        f"| {route.method} | `{route.path}` | {_callers(route.scope)} | {summary} "
        f"| {', '.join(map(str, statuses))} | {', '.join(flags)} |"
    )


def _callers(scope: str) -> str:
    return {"": "anonymous", SELF: "authenticated"}.get(scope, f"`{scope}`")


PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "reference/configuration.md": configuration,
    DOCS / "reference/http.md": api,
    DOCS / "reference/cli.md": listings.commands,
    DOCS / "reference/sdk.md": listings.sdk,
    DOCS / "reference/reasons.md": listings.reasons,
    DOCS / "reference/events.md": listings.events,
    DOCS / "reference/glossary.md": listings.glossary,
    DOCS / "adr/README.md": listings.records,
    DOCS.parent / "clients/typescript/src/operations.ts": client_types,
}

if __name__ == "__main__":
    for path, render in PAGES.items():
        path.write_text(render(), "utf-8")
        print(path.relative_to(DOCS.parent))
