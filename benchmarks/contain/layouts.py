"""Layouts in which a tool may return its data as plain text, each as some server does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Layout = Callable[[Any], str]


def key_value_lines(data: Any) -> str:
    """A line for each field, the fields of an object under it."""
    return "\n".join(_lines(data))


def yaml(data: Any) -> str:
    """YAML in block style, its scalars as JSON, which is YAML."""
    return "\n".join(_yaml(data))


def table(data: Any) -> str:
    """A Markdown table for a list of flat objects, under the name of the field that holds it; else lines."""
    if not (rows := _rows(data)):
        if isinstance(data, dict) and any(_rows(inner) for inner in data.values()):
            return "\n\n".join(f"{name}:\n{table(inner)}" for name, inner in data.items())
        return key_value_lines(data)
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def bullets(data: Any) -> str:
    """A bullet for each item, its fields in one line."""
    match data:
        case list():
            return "\n".join(f"- {_inline(inner)}" for inner in data) or "nothing found"
        case dict():
            return "\n".join(f"* {name}: {_inline(inner)}" for name, inner in data.items())
        case _:
            return plain(data)


def mail_headers(data: Any) -> str:
    """A block of headers for each object, a blank line, and the longest text as the body."""
    items = data if isinstance(data, list) else [data]
    if not items or not all(isinstance(item, dict) for item in items):
        return key_value_lines(data)
    return "\n\n---\n\n".join(_letter(item) for item in items)


def fenced_json(data: Any) -> str:
    """JSON in a fence, with a sentence before it."""
    return f"Here is the result:\n\n```json\n{json.dumps(data, indent=2, ensure_ascii=False)}\n```"


LAYOUTS: tuple[Layout, ...] = (key_value_lines, yaml, table, bullets, mail_headers, fenced_json)


def plain(value: Any) -> str:
    """Return a scalar as a person would write it."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    match value:
        case dict():
            for name, inner in value.items():
                if isinstance(inner, dict | list):
                    yield f"{indent}{name}:"
                    yield from _lines(inner, indent + "  ")
                else:
                    yield f"{indent}{name}: {plain(inner)}"
        case list():
            for inner in value:
                lines = list(_lines(inner, indent + "  "))
                yield f"{indent}- {lines[0].strip()}" if lines else f"{indent}-"
                yield from lines[1:]
        case _:
            yield f"{indent}{plain(value)}"


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    match value:
        case dict() if value:
            for name, inner in value.items():
                key = name if name.replace("_", "a").isalnum() else json.dumps(name, ensure_ascii=False)
                if isinstance(inner, dict | list) and inner:
                    yield f"{indent}{key}:"
                    yield from _yaml(inner, indent + "  ")
                else:
                    yield f"{indent}{key}: {json.dumps(inner, ensure_ascii=False)}"
        case list() if value:
            for inner in value:
                first, *rest = _yaml(inner, indent + "  ")
                yield f"{indent}- {first.strip()}"
                yield from rest
        case _:
            yield f"{indent}{json.dumps(value, ensure_ascii=False)}"


def _rows(data: Any) -> list[Mapping[str, Any]]:
    """The objects of a list that all have the same scalar fields; none for anything else."""
    if not isinstance(data, list) or not data or not all(isinstance(item, dict) and item for item in data):
        return []
    is_flat = all(not isinstance(inner, dict | list) for item in data for inner in item.values())
    return data if is_flat and len({tuple(item) for item in data}) == 1 else []


def _cell(value: Any) -> str:
    return plain(value).replace("|", "\\|").replace("\n", "<br>")


def _inline(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{name}: {_inline(inner)}" for name, inner in value.items())
        case list():
            return "; ".join(_inline(inner) for inner in value)
        case _:
            return plain(value)


def _letter(item: Mapping[str, Any]) -> str:
    texts = [name for name, inner in item.items() if isinstance(inner, str) and (" " in inner or "\n" in inner)]
    body = max(texts, key=lambda name: len(item[name]), default="")
    head = [f"{name.replace('_', '-').title()}: {_inline(inner)}" for name, inner in item.items() if name != body]
    return "\n".join(head) + (f"\n\n{item[body]}" if body else "")
