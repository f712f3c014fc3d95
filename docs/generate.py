"""Write the reference pages that are generated from the program: `make docs`. A test compares them with the tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import inspect

from ostiaryd.ground.config import Config

DOCS = Path(__file__).parent


def configuration() -> str:
    """Every key that can be set, with its default and what it accepts."""
    fields = inspect.type_info(Config)
    assert isinstance(fields, inspect.StructType)
    rows = "\n".join(_row(field) for field in fields.fields)
    return f"""# Configuration

One TOML file (`ostiary serve --config FILE`), then the environment (`OSTIARY_<KEY>`), then the command line; the later
ones win. An unknown key is an error. This page is generated: `make docs`.

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


PAGES: dict[Path, Callable[[], str]] = {DOCS / "configuration.md": configuration}

if __name__ == "__main__":
    for path, render in PAGES.items():
        path.write_text(render(), "utf-8")
        print(path.relative_to(DOCS.parent))
