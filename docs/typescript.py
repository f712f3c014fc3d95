"""The types of the TypeScript client: its operations with path, query, body and answer, from the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from textwrap import wrap
from typing import Any

from ostiaryd import openapi
from ostiaryd.app import ROUTES
from ostiaryd.ground.config import Config

Schema = Mapping[str, Any]

KINDS = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
TEXTS = ("text/plain", "text/csv")
_HEAD = "// Generated from the OpenAPI document of the server: make docs.\n"
_PREFIX = "#/components/schemas/"


def client_types() -> str:
    """Return the TypeScript source with a type for each schema, and `Operations` with the JSON operations."""
    document = openapi.describe_routes(ROUTES, Config(data_dir="."), version=metadata.version("ostiary"))
    return _Source(document).render()


class _Source:
    """The source that is rendered from one document."""

    def __init__(self, document: Schema) -> None:
        self._document = document
        self._schemas: dict[str, Schema] = document["components"]["schemas"]
        self._names = _type_names(self._schemas)

    def render(self) -> str:
        types = [
            f"{_comment(schema)}export type {self._names[name]} = {self._type(schema, '')};"
            for name, schema in sorted(self._schemas.items(), key=lambda item: self._names[item[0]])
        ]
        operations = [
            text
            for path, methods in sorted(self._document["paths"].items())
            for method, operation in methods.items()
            if (text := self._operation(method.upper(), path, operation)) is not None
        ]
        return "\n\n".join(
            [_HEAD.rstrip(), *types, "export interface Operations {\n" + "\n".join(operations) + "\n}\n"]
        )

    def _operation(self, method: str, path: str, operation: Schema) -> str | None:
        """Return the member of an operation; None if its request or its answer is neither JSON nor text."""
        body = operation.get("requestBody")
        answers = [
            self._resolve(one).get("content", {}) for code, one in operation["responses"].items() if code[0] in "23"
        ]
        content = {name: media for answer in answers for name, media in answer.items()}
        if body is not None and "application/json" not in body["content"]:
            return None
        if not content.keys() <= {"application/json", *TEXTS}:
            return None
        request = (
            "undefined" if body is None else self._type(body["content"]["application/json"].get("schema", {}), "    ")
        )
        kinds = [self._type(media["schema"], "    ") if "schema" in media else "string" for media in content.values()]
        kinds += ["undefined"] * any(not answer for answer in answers)
        return (
            f"{_comment({'description': operation['summary']}, '  ')}  {json.dumps(f'{method} {path}')}: {{\n"
            f"    path: {self._parameters(operation, 'path')};\n"
            f"    query: {self._parameters(operation, 'query')};\n"
            f"    body: {request}{' | undefined' if body is not None and not body['required'] else ''};\n"
            f"    answer: {' | '.join(dict.fromkeys(kinds))};\n"
            "  };"
        )

    def _parameters(self, operation: Schema, place: str) -> str:
        members = {one["name"]: one["schema"] for one in operation.get("parameters", ()) if one["in"] == place}
        required = [one["name"] for one in operation.get("parameters", ()) if one["required"]]
        return self._object({"properties": members, "required": required}, "    ") if members else "{}"

    def _resolve(self, value: Schema) -> Schema:
        """Return a response, which may be a reference to a shared one."""
        return self._document["components"]["responses"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value

    def _type(self, schema: Schema, indent: str) -> str:
        """Return the TypeScript type of the values that the schema accepts."""
        if "$ref" in schema:
            return self._names[schema["$ref"].removeprefix(_PREFIX)]
        if "enum" in schema:
            return " | ".join(json.dumps(value) for value in schema["enum"])
        if union := schema.get("anyOf") or schema.get("oneOf"):
            return " | ".join(dict.fromkeys(self._type(one, indent) for one in union))
        kinds = schema.get("type", [])
        kinds = kinds if isinstance(kinds, list) else [kinds]
        return " | ".join(self._kind(kind, schema, indent) for kind in kinds) or "unknown"

    def _kind(self, kind: str, schema: Schema, indent: str) -> str:
        if kind == "array":
            if "prefixItems" in schema:
                return f"[{', '.join(self._type(one, indent) for one in schema['prefixItems'])}]"
            item = self._type(schema.get("items") or {}, indent)
            return f"({item})[]" if " | " in item else f"{item}[]"
        return self._object(schema, indent) if kind == "object" else KINDS[kind]

    def _object(self, schema: Schema, indent: str) -> str:
        properties: Mapping[str, Schema] = schema.get("properties", {})
        if not properties:
            values = schema.get("additionalProperties")
            is_empty = values is False or ("properties" in schema and values is None)
            return "Record<string, never>" if is_empty else f"Record<string, {self._type(values or {}, indent)}>"
        required = schema.get("required", ())
        deeper = indent + "  "
        lines = [
            f"{_comment(sub, deeper)}{deeper}{_member(name)}{'?' * (name not in required)}: {self._type(sub, deeper)};"
            for name, sub in properties.items()
        ]
        return "{\n" + "\n".join(lines) + f"\n{indent}}}"


def _type_names(schemas: Mapping[str, Schema]) -> dict[str, str]:
    """Return a TypeScript name for each schema. A name with dots is that of a class whose short name is not unique."""
    names = {
        name: "".join(word[:1].upper() + word[1:] for word in re.split(r"[._]", name)[name.count(".") > 0 :])
        for name in schemas
    }
    [(name, count)] = Counter(names.values()).most_common(1)
    assert count == 1, f"two schemas have the TypeScript name {name}"
    return names


def _member(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_$][\w$]*", name) else json.dumps(name)


def _comment(schema: Schema, indent: str = "") -> str:
    text = " ".join(schema.get("description", "").replace("*/", "* /").split())
    lines = wrap(text, 116 - len(indent))
    if len(lines) < 2:
        return f"{indent}/** {text} */\n" if text else ""
    return f"{indent}/**\n" + "".join(f"{indent} * {line}\n" for line in lines) + f"{indent} */\n"
