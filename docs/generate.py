"""Write the reference pages that are generated from the program: `make docs`. A test compares them with the tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import inspect

from docs import listings
from ostiaryd.app import ROUTES
from ostiaryd.ground.config import Config
from ostiaryd.registry.model import SELF

DOCS = Path(__file__).parent


def configuration() -> str:
    """Every key that can be set, with its default and what it accepts."""
    fields = inspect.type_info(Config)
    assert isinstance(fields, inspect.StructType)
    rows = "\n".join(_row(field) for field in fields.fields)
    return f"""# Configuration

This page is for operators. After reading this page, you can set every option of the server.

One TOML file (`ostiary serve --config FILE`), then the environment (`OSTIARY_<KEY>`), then the command line; the later
ones win. An unknown key of the file is an error. This page is generated: `make docs`.

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
            return ", ".join(f"`{value}`" for value in values)
        case inspect.IntType(ge=low, le=high):
            return f"{low} to {high}"
        case inspect.BoolType():
            return "`true`, `false`"
        case inspect.StrType():
            return "text"
    raise TypeError(f"say how {kind} is written")


def api() -> str:
    """Every route, with who may use it."""
    rows = "\n".join(f"| {one.method} | `{one.path}` | {_who(one.scope)} | {_first_line(one.wire)} |" for one in ROUTES)
    return f"""# HTTP

This page is for developers of clients and tools of the HTTP API. After reading this page, you can call each route.

Every route of the server. Who calls a route that asks for a scope shows an access token for `<public URL>/api/v1` with
that scope and a DPoP proof; *anybody known* is whoever has such a token at all, and the route says what is theirs. The
OAuth endpoints are open to everybody and authenticate the client by its form. Errors of the administration are
`{{"error", "message", "hint"}}`, those of OAuth and AuthZEN have their protocol's form. This page is generated:
`make docs`.

| method | path | who | what |
| --- | --- | --- | --- |
{rows}
"""


def _who(scope: str) -> str:
    return {"": "everybody", SELF: "anybody known"}.get(scope, f"`{scope}`")


def _first_line(wire: Callable[..., object]) -> str:
    text = (wire.__doc__ or wire.__name__.replace("_", " ")).strip().split("\n")[0]
    return text.replace("|", "\\|")


PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "reference/configuration.md": configuration,
    DOCS / "reference/http.md": api,
    DOCS / "reference/cli.md": listings.commands,
    DOCS / "reference/sdk.md": listings.sdk,
    DOCS / "reference/reasons.md": listings.reasons,
    DOCS / "reference/events.md": listings.events,
    DOCS / "reference/glossary.md": listings.glossary,
    DOCS / "adr/README.md": listings.records,
}

if __name__ == "__main__":
    for path, render in PAGES.items():
        path.write_text(render(), "utf-8")
        print(path.relative_to(DOCS.parent))
