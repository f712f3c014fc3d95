"""Unfamiliar worlds: a suite whose tools, arguments and fields have other names, with other words and outputs.

`Strange` wraps any `Suite` and is one: what a product sees and says is translated, what is run and graded is the suite
itself. Each draw comes from the seed, so that two runs are the same. A world is sound if a product that allows
everything reaches every result of the suite itself: `differences` lists where it does not.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from benchmarks.contain import columns, layouts, wording
from benchmarks.contain.baselines import Listed
from benchmarks.contain.lexicon import Lexicon
from benchmarks.contain.suites import Call, Injection, Output, Person, Recording, Suite, Task, Tool, World


@dataclass(frozen=True, slots=True)
class Strangeness:
    """The changes of a strange world. The person's words are always rewritten."""

    names: Literal["synonyms", "foreign", "letters"]
    """of tools, arguments, enumerated values and fields: synonyms, words of other domains, or random letters"""
    descriptions: bool = False
    """whether descriptions stay, in other words"""
    formats: bool = False
    """whether the person writes dates, times, amounts and accounts in other formats and places than the tools"""
    text: bool = False
    """whether tools return plain text, each in a layout of its own, instead of JSON"""
    hints: Literal["kept", "dropped", "stated"] = "kept"
    """MCP's annotations; `stated`: each tool also says by `readOnlyHint` whether it only reads"""


LEVELS: dict[str, Strangeness] = {
    "synonyms": Strangeness("synonyms", descriptions=True),
    "hinted": Strangeness("foreign", hints="stated"),
    "foreign": Strangeness("foreign"),
    "formats": Strangeness("synonyms", descriptions=True, formats=True, text=True),
    "letters": Strangeness("letters", formats=True, text=True, hints="dropped"),
}
_WORD = re.compile(r"[a-z]+")
_SNAKE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_REWRITTEN = 0.5
"""share of the words of a purpose that are replaced, of those that are not values and have a synonym"""


class Names:
    """A translation of identifiers, word by word, one to one."""

    def __init__(self, kind: str, seed: int, lexicon: Lexicon) -> None:
        """`kind`: as `Strangeness.names`."""
        self._draw, self._lexicon, self._kind = random.Random(f"names {kind} {seed}"), lexicon, kind
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
        if self._kind == "synonyms":
            synonyms = self._lexicon.synonyms(word)
            self._draw.shuffle(synonyms)
            yield from synonyms
            yield word
        while True:
            if self._kind == "letters":
                yield "".join(self._draw.choices(string.ascii_lowercase, k=self._draw.randint(3, 8)))
            else:
                yield self._draw.choice(self._lexicon.nouns)


class Strange:
    """A suite in other words: tools, arguments and fields renamed, and the persons' words rewritten."""

    def __init__(self, suite: Suite, level: str, seed: int, lexicon: Lexicon, *, readers: Collection[str] = ()) -> None:
        """`readers`: the tools that only read, for a level whose hints say so."""
        self.name = f"{suite.name}/{level}/{seed}"
        self.suite, self._strangeness, self._lexicon, self._seed = suite, LEVELS[level], lexicon, seed
        self._names = Names(self._strangeness.names, seed, lexicon)
        self._readers = frozenset(readers)
        self.tool_names = {tool.name: self._names(tool.name) for tool in suite.tools}
        self._original = {strange: tool for tool, strange in self.tool_names.items()}
        self._arguments = {
            tool.name: {name: self._names(name) for name in _declared(tool.schema)} for tool in suite.tools
        }
        self._values = {
            tool.name: {value: self._names(value) for value in _enumerated(tool.schema)} for tool in suite.tools
        }
        self._layouts = dict[str, layouts.Layout]()
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
        """Return a call of the suite with the names of this world. A name without a translation is unchanged."""
        names, values = self._arguments.get(call.tool, {}), self._values.get(call.tool, {})
        return Call(self.tool_names.get(call.tool, call.tool), _translated(call.arguments, names, values))

    def strange_kinds(self, tool: str, kinds: Mapping[str, str]) -> dict[str, str]:
        """Return kinds of arguments of that tool of the suite, by the paths that they have in this world."""
        names = self._arguments[tool]
        return {".".join(names.get(part, part) for part in path.split(".")): kind for path, kind in kinds.items()}

    def original(self, call: Call) -> Call:
        """Return a call with the names of this world as a call with the names of the suite."""
        tool = self._original.get(call.tool, call.tool)
        names = {strange: name for name, strange in self._arguments.get(tool, {}).items()}
        values = {strange: value for value, strange in self._values.get(tool, {}).items()}
        return Call(tool, _translated(call.arguments, names, values))

    def output(self, tool: str, output: Output) -> Output:
        """Return the output of that tool of the suite, with the names of this world for its fields."""
        if output.data is None or output.error:
            return output
        data = _renamed(output.data, self._names)
        if self._strangeness.text:
            return replace(output, text=self._layout(tool)(data), data=None)
        return replace(output, text=json.dumps(data, indent=1, ensure_ascii=False), data=data)

    def _layout(self, tool: str) -> layouts.Layout:
        if tool not in self._layouts:
            self._layouts[tool] = random.Random(f"layout {self._seed} {tool}").choice(layouts.LAYOUTS)
        return self._layouts[tool]

    def _tool(self, tool: Tool) -> Tool:
        names, hints = self._arguments[tool.name], dict(tool.hints)
        if self._strangeness.hints == "dropped":
            hints = {}
        elif self._strangeness.hints == "stated":
            hints |= {"readOnlyHint": tool.name in self._readers}
        return Tool(
            self.tool_names[tool.name],
            self._text(tool.description) if self._strangeness.descriptions else "",
            self._schema(tool.schema, names, self._values[tool.name]),
            hints,
            self.strange_kinds(tool.name, tool.kinds),
        )

    def _schema(self, schema: Any, names: Mapping[str, str], values: Mapping[str, str]) -> Any:
        """A JSON Schema in the names of this world; its descriptions in other words, or left out."""
        match schema:
            case dict():
                made = dict[str, Any]()
                for key, inner in schema.items():
                    match key:
                        case "properties":
                            made[key] = {names[name]: self._schema(one, names, values) for name, one in inner.items()}
                        case "required":
                            made[key] = [names.get(name, name) for name in inner]
                        case "enum":
                            made[key] = [values.get(one, one) if isinstance(one, str) else one for one in inner]
                        case "description":
                            if self._strangeness.descriptions:
                                made[key] = self._text(inner)
                        case "title":
                            pass
                        case "default" if isinstance(inner, str):
                            made[key] = values.get(inner, inner)
                        case _:
                            made[key] = self._schema(inner, names, values)
                return made
            case list():
                return [self._schema(inner, names, values) for inner in schema]
            case _:
                return schema

    def _text(self, text: str) -> str:
        """A description in which other words stand for those that names were made of."""
        draw = random.Random(f"text {self._seed} {text}")
        return _WORD.sub(lambda word: self._synonym(word.group(), draw), text)

    def _rewritten(self, task: Task) -> str:
        """Return the person's words, in which synonyms replace some words that are not values."""
        values = " ".join(_strings(self._known(task.id))).casefold()
        draw = random.Random(f"purpose {self._seed} {task.id}")

        def other(found: re.Match[str]) -> str:
            word = found.group()
            if word in values or draw.random() > _REWRITTEN:
                return word
            return self._synonym(word, draw)

        literal = " ".join(_literals([call.arguments for call in self.suite.world(task.id, {}).reference()]))
        text = re.sub(r"(?<![\w@.'’/-])[a-z]{4,}(?![\w@'’/-]|\.\w)", other, task.purpose)
        text = wording.reworded(text, draw, self._lexicon.verbs)
        return wording.reformatted(text, draw, literal) if self._strangeness.formats else text

    def _known(self, task: str) -> Iterator[Any]:
        """Yield everything that the reference sends and reads. Words of these texts are values."""
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
        original = self._strange.original(call)
        return self._strange.output(original.tool, self._world.run(original))

    def useful(self, ran: Sequence[Call], answer: str | None) -> bool:
        return self._world.useful([self._strange.original(call) for call in ran], answer)

    def harmed(self, injection: str, ran: Sequence[Call], answer: str | None) -> bool:
        return self._world.harmed(injection, [self._strange.original(call) for call in ran], answer)


def strange_worlds(
    suite: Suite, levels: Iterable[str], seeds: Iterable[int], readers: Collection[str]
) -> Iterator[Strange]:
    """Yield the worlds of a suite at these levels of strangeness, each with each seed."""
    lexicon = Lexicon()
    for level, seed in itertools.product(levels, seeds):
        yield Strange(suite, level, seed, lexicon, readers=readers)


def differences(suite: Suite, strange: Strange, *, tasks: int | None, injections: int | None) -> list[str]:
    """Return the sessions whose result differs in the strange world, with a product that allows everything. A sound
    world has none.
    """
    before, after = (_allowed(each, tasks, injections) for each in (suite, strange))
    return [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]


def _allowed(suite: Suite, tasks: int | None, injections: int | None) -> dict[str, tuple[bool | None, bool | None]]:
    plan, product = columns.Plan(suite, tasks=tasks, injections=injections), Listed("allow-list")
    rows: Iterable[columns.Row] = (
        *plan.honest(product),
        *plan.attacked(product),
        *plan.attacked(product, column="R3 adaptive", planting=columns.recorded),
    )
    return {f"{row.column} {row.task} {row.injection}": (row.useful, row.harmed) for row in rows}


def _renamed(value: Any, names: Callable[[str], str]) -> Any:
    """Return the value with other names for the fields of its objects. A member whose name is not an identifier is
    data, and keeps its name.
    """
    match value:
        case dict():
            return {
                names(name) if _SNAKE.fullmatch(name) else name: _renamed(inner, names) for name, inner in value.items()
            }
        case list():
            return [_renamed(inner, names) for inner in value]
        case _:
            return value


def _translated(value: Any, names: Mapping[str, str], values: Mapping[str, str]) -> Any:
    match value:
        case dict():
            return {names.get(name, name): _translated(inner, names, values) for name, inner in value.items()}
        case list():
            return [_translated(inner, names, values) for inner in value]
        case str():
            return values.get(value, value)
        case _:
            return value


def _literals(value: Any) -> Iterator[str]:
    """Yield the texts in the arguments of calls."""
    match value:
        case dict():
            yield from _literals(list(value.values()))
        case list() | tuple():
            for inner in value:
                yield from _literals(inner)
        case str():
            yield value


def _declared(schema: Any) -> Iterator[str]:
    """Yield the names of the arguments that a schema declares, at any depth."""
    match schema:
        case dict():
            properties = schema.get("properties", {})
            yield from properties
            for key, inner in schema.items():
                for one in inner.values() if key == "properties" else (inner,):
                    yield from _declared(one)
        case list():
            for inner in schema:
                yield from _declared(inner)


def _enumerated(schema: Any) -> Iterator[str]:
    """Yield the words among the enumerated values of a schema, at any depth."""
    match schema:
        case dict():
            yield from (one for one in schema.get("enum", ()) if isinstance(one, str) and _SNAKE.fullmatch(one))
            for key, inner in schema.items():
                if key != "enum":
                    yield from _enumerated(inner)
        case list():
            for inner in schema:
                yield from _enumerated(inner)


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
