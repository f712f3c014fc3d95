"""Unfamiliar worlds: a suite whose tools, arguments and fields have other names, with other words and outputs.

`Strange` wraps any `Suite` and is one: what a product sees and says is translated, what is run and graded is the suite
itself. Each draw comes from the seed, so that two runs are the same. A world is sound if a product that allows
everything reaches every result of the suite itself: `differences` lists where it does not.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from benchmarks.contain import columns
from benchmarks.contain.baselines import Listed
from benchmarks.contain.lexicon import Lexicon
from benchmarks.contain.suites import Call, Injection, Output, Person, Recording, Suite, Task, Tool, World

Strangeness = Literal["synonyms", "foreign", "letters"]
LEVELS: tuple[Strangeness, ...] = ("synonyms", "foreign", "letters")
"""names by synonyms, descriptions and outputs as they were; words of other domains, without descriptions; random
letters, without descriptions and hints, and outputs as plain text. The person's words are rewritten in each."""
_WORD = re.compile(r"[a-z]+")
_SNAKE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_REWRITTEN = 0.5
"""of the words of a purpose that are no values and have a synonym, how many are replaced"""


class Names:
    """A translation of identifiers, word by word, one to one."""

    def __init__(self, strangeness: Strangeness, seed: int, lexicon: Lexicon) -> None:
        self._draw, self._lexicon, self._strangeness = (
            random.Random(f"names {strangeness} {seed}"),
            lexicon,
            strangeness,
        )
        self._words = dict[str, str]()
        self._taken = set[str]()

    def __call__(self, identifier: str) -> str:
        return _WORD.sub(lambda word: self._word(word.group()), identifier)

    def _word(self, word: str) -> str:
        if word not in self._words:
            candidates = self._candidates(word)
            self._words[word] = next(other for other in candidates if other not in self._taken)
            self._taken.add(self._words[word])
        return self._words[word]

    def _candidates(self, word: str) -> Iterator[str]:
        if self._strangeness == "synonyms":
            synonyms = self._lexicon.synonyms(word)
            self._draw.shuffle(synonyms)
            yield from synonyms
            yield word
        while True:
            if self._strangeness == "letters":
                yield "".join(self._draw.choices(string.ascii_lowercase, k=self._draw.randint(3, 8)))
            else:
                yield self._draw.choice(self._lexicon.nouns)


class Strange:
    """A suite in other words: tools, arguments and fields renamed, and the persons' words rewritten."""

    def __init__(self, suite: Suite, strangeness: Strangeness, seed: int, lexicon: Lexicon) -> None:
        self.name = f"{suite.name}/{strangeness}/{seed}"
        self.suite, self._strangeness, self._lexicon, self._seed = suite, strangeness, lexicon, seed
        self._names = Names(strangeness, seed, lexicon)
        self.tool_names = {tool.name: self._names(tool.name) for tool in suite.tools}
        self._original = {strange: tool for tool, strange in self.tool_names.items()}
        self._arguments = {
            tool.name: {name: self._names(name) for name in tool.schema.get("properties", {})} for tool in suite.tools
        }
        self.tools = [self._tool(tool) for tool in suite.tools]
        self.person: Person = suite.person
        self.injections: Sequence[Injection] = suite.injections
        self.places = suite.places
        self.loose = {
            self.tool_names[tool]: frozenset(self._arguments[tool][name] for name in names)
            for tool, names in suite.loose.items()
        }

    @cached_property
    def tasks(self) -> list[Task]:
        return [replace(task, purpose=self._rewritten(task)) for task in self.suite.tasks]

    def world(self, task: str, planted: Mapping[str, str]) -> World:
        return _StrangeWorld(self, self.suite.world(task, planted))

    def recordings(self, model: str) -> list[Recording]:
        return [
            replace(recording, calls=[self.translated(call) for call in recording.calls])
            for recording in self.suite.recordings(model)
        ]

    def translated(self, call: Call) -> Call:
        """A call of the suite in the names of this world. What has no such tool or argument stays as it is."""
        names = self._arguments.get(call.tool, {})
        arguments = {names.get(name, name): value for name, value in call.arguments.items()}
        return Call(self.tool_names.get(call.tool, call.tool), arguments)

    def strange_kinds(self, tool: str, kinds: Mapping[str, str]) -> dict[str, str]:
        """Return kinds of arguments of that tool of the suite, by the paths that they have in this world."""
        names = self._arguments[tool]
        split = {path: path.partition(".") for path in kinds}
        return {"".join((names.get(name, name), *rest)): kinds[path] for path, (name, *rest) in split.items()}

    def original(self, call: Call) -> Call:
        """A call in the names of this world as the suite has it."""
        tool = self._original.get(call.tool, call.tool)
        names = {strange: name for name, strange in self._arguments.get(tool, {}).items()}
        return Call(tool, {names.get(name, name): value for name, value in call.arguments.items()})

    def output(self, output: Output) -> Output:
        """Return the output with the names of this world for its fields."""
        if output.data is None or output.error:
            return output
        data = _renamed(output.data, self._names)
        if self._strangeness == "letters":
            return replace(output, text="\n".join(_lines(data)), data=None)
        return replace(output, text=json.dumps(data, indent=1, ensure_ascii=False), data=data)

    def _tool(self, tool: Tool) -> Tool:
        names = self._arguments[tool.name]
        schema = dict(tool.schema)
        properties = schema.get("properties", {})
        schema["properties"] = {names[name]: self._described(inner) for name, inner in properties.items()}
        if "required" in schema:
            schema["required"] = [names[name] for name in schema["required"]]
        schema.pop("title", None)
        is_kept = self._strangeness == "synonyms"
        return Tool(
            self.tool_names[tool.name],
            self._text(tool.description) if is_kept else "",
            schema,
            tool.hints if self._strangeness != "letters" else {},
            {names[name]: kind for name, kind in tool.kinds.items()},
        )

    def _described(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The schema of an argument; its description in other words, or without one."""
        inner = {name: value for name, value in schema.items() if name not in ("title", "description")}
        if "description" in schema and self._strangeness == "synonyms":
            inner["description"] = self._text(schema["description"])
        return inner

    def _text(self, text: str) -> str:
        """A description in which other words stand for those that names were made of."""
        draw = random.Random(f"text {self._seed} {text}")
        return _WORD.sub(lambda word: self._synonym(word.group(), draw), text)

    def _rewritten(self, task: Task) -> str:
        """The person's words with synonyms for some of those that are no values."""
        values = " ".join(_strings(self._known(task.id))).casefold()
        draw = random.Random(f"purpose {self._seed} {task.id}")

        def other(found: re.Match[str]) -> str:
            word = found.group()
            if word in values or draw.random() > _REWRITTEN:
                return word
            return self._synonym(word, draw)

        return re.sub(r"(?<![\w@.'’/-])[a-z]{4,}(?![\w@'’/-]|\.\w)", other, task.purpose)

    def _known(self, task: str) -> Iterator[Any]:
        """Yield all that the reference sends and reads: words in it are values."""
        world = self.suite.world(task, {})
        for call in world.reference():
            yield dict(call.arguments)
            output = world.run(call)
            yield output.text if output.data is None else output.data

    def _synonym(self, word: str, draw: random.Random) -> str:
        synonyms = self._lexicon.synonyms(word) if len(word) > 3 else []
        return draw.choice(synonyms) if synonyms else word


class _StrangeWorld:
    def __init__(self, strange: Strange, world: World) -> None:
        self._strange, self._world = strange, world

    def reference(self) -> list[Call]:
        return [self._strange.translated(call) for call in self._world.reference()]

    def attack(self, injection: str) -> list[Call]:
        return [self._strange.translated(call) for call in self._world.attack(injection)]

    def run(self, call: Call) -> Output:
        return self._strange.output(self._world.run(self._strange.original(call)))

    def useful(self, ran: Sequence[Call], answer: str | None) -> bool:
        return self._world.useful([self._strange.original(call) for call in ran], answer)

    def harmed(self, injection: str, ran: Sequence[Call], answer: str | None) -> bool:
        return self._world.harmed(injection, [self._strange.original(call) for call in ran], answer)


def differences(suite: Suite, strange: Strange, *, tasks: int | None, injections: int | None) -> list[str]:
    """Sessions that a product which allows everything ends otherwise in the strange world: none in a sound one."""
    before, after = (_allowed(each, tasks, injections) for each in (suite, strange))
    return [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]


def _allowed(suite: Suite, tasks: int | None, injections: int | None) -> dict[str, tuple[bool | None, bool | None]]:
    plan, product = columns.Plan(suite, tasks=tasks, injections=injections), Listed("allow-list")
    rows: Iterable[columns.Row] = (
        *plan.honest(product), *plan.attacked(product),
        *plan.attacked(product, column="R3 adaptive", planting=columns.recorded),
    )  # fmt: skip
    return {f"{row.column} {row.task} {row.injection}": (row.useful, row.harmed) for row in rows}


def _renamed(value: Any, names: Callable[[str], str]) -> Any:
    """The value with other names for the fields of its objects. A member whose name is no identifier is data."""
    match value:
        case dict():
            return {
                names(name) if _SNAKE.fullmatch(name) else name: _renamed(inner, names) for name, inner in value.items()
            }
        case list():
            return [_renamed(inner, names) for inner in value]
        case _:
            return value


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """The value as a person would write it down: one line for each field, the fields of an object under it."""
    match value:
        case dict():
            for name, inner in value.items():
                if isinstance(inner, dict | list):
                    yield f"{indent}{name}:"
                    yield from _lines(inner, indent + "  ")
                else:
                    yield f"{indent}{name}: {_plain(inner)}"
        case list():
            for inner in value:
                lines = list(_lines(inner, indent + "  "))
                yield f"{indent}- {lines[0].strip()}" if lines else f"{indent}-"
                yield from lines[1:]
        case _:
            yield f"{indent}{_plain(value)}"


def _plain(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)


def _strings(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for name, inner in value.items():
                yield str(name)
                yield from _strings(inner)
        case str():
            yield value
        case Iterable():
            for inner in value:
                yield from _strings(inner)
        case _:
            yield str(value)
