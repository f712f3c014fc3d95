"""Generated Cedar expressions with entities, their attributes and tags, sets and records."""

from __future__ import annotations

from harness.cedar_differential.maker import (
    ENTITY_TYPES,
    TYPES,
    Maker,
    Production,
    construct,
    dotted,
    is_identifier,
    named,
    quoted,
)
from harness.cedar_differential.vocabulary import PATHS, STRINGS
from harness.cedar_differential.world import ACTIONS

# --- entities ---------------------------------------------------------------------------------------------------------


@construct("in", "bool")
def _in(make: Maker, depth: int) -> str:
    low, high = make.relatives()
    left = named(low) if make.chance(0.6) else make.make("entity", depth)
    return f"({left} in {named(high) if make.chance(0.8) else make.make('entity', depth)})"


@construct("in a set", "bool")
def _in_set(make: Maker, depth: int) -> str:
    low, high = make.relatives()
    items = [named(high), *(make.leaf("entity") for _ in range(make.random.randrange(3)))]
    if make.chance(0.12):
        items.append(make.element())
    make.random.shuffle(items)
    right = make.path("entities") if make.chance(0.2) else f"[{', '.join(items)}]"
    return f"({named(low) if make.chance(0.8) else make.leaf('entity')} in {right})"


@construct("in itself", "bool")
def _in_itself(make: Maker, depth: int) -> str:
    name = named(make.name())
    forms = ("({0} in {0})", "({0} in [{0}])", "({0} in [])", "(principal in principal)", "(resource in {0})")
    return make.random.choice((*forms, "(action in action)")).replace("{0}", name)


@construct("action in a group", "bool")
def _action_in(make: Maker, depth: int) -> str:
    groups = [named(action) for action in make.random.sample(ACTIONS, 2)]
    return make.random.choice(
        (f"(action in {groups[0]})", f"(action in [{', '.join(groups)}])", f"({groups[0]} in action)")
    )


@construct("is", "bool")
def _is(make: Maker, depth: int) -> str:
    left = named(make.name()) if make.chance(0.3) else make.make("entity", depth)
    return f"({left} is {make.random.choice(ENTITY_TYPES)})"


@construct("is in", "bool")
def _is_in(make: Maker, depth: int) -> str:
    low, high = make.relatives()
    kind = low[0] if make.chance(0.7) else make.random.choice(ENTITY_TYPES)
    left = named(low) if make.chance(0.7) else make.leaf("entity")
    return f"({left} is {kind} in {named(high) if make.chance(0.8) else make.leaf(make.random.choice(TYPES))})"


@construct("entity attribute", "bool")
def _entity_attribute(make: Maker, depth: int) -> str:
    base = make.random.choice(("principal", "resource", "action", named(make.name())))
    kind = make.random.choice(("long", "string", "bool", "set", "datetime"))
    text = dotted(base, make.random.choice(PATHS[kind]))
    return text if kind == "bool" else make.look_at(kind, text, depth)


@construct("deep attribute", "bool")
def _deep_attribute(make: Maker, depth: int) -> str:
    kind = make.random.choice(("long", "string", "set", "record", "entity"))
    text = dotted(make.base(), make.random.choice([path for path in PATHS[kind] if len(path) > 1]))
    return make.look_at(kind, text, depth)


@construct("attribute of a record", "bool")
def _record_attribute(make: Maker, depth: int) -> str:
    record = make.make("record", depth) if make.chance(0.4) else '{n: 1, s: {k: true}, "a-b": 3}'
    name = make.random.choice(("n", "n", "s", "a-b", "k"))
    return (
        f"({dotted(record, (name,))} {make.random.choice(('==', '!='))} {make.random.choice(('1', '3', '{k: true}'))})"
    )


@construct("odd attribute names", "long")
def _odd_names(make: Maker, depth: int) -> str:
    path = make.random.choice((("two words",), ("",), ("principal",), ("r", "a-b")))
    return dotted(make.base(), path)


@construct("has", "bool")
def _has(make: Maker, depth: int) -> str:
    base = make.base() if make.chance(0.6) else make.make(make.random.choice(("record", "entity")), depth)
    name = make.random.choice(("n", "r", "k", "two words", "", "if", "absent", "deep"))
    return f"({base} has {name if is_identifier(name) else quoted(name)})"


@construct("has a path", "bool")
def _has_path(make: Maker, depth: int) -> str:
    paths = (
        "r.n",
        "r.deep",
        "r.deep.b",
        "r.deep.deep.n",
        "r.deep.e.n",
        "e.e.n",
        "n.n",
        "r.absent.n",
        "e.r.deep.b",
        "r.n.x",
    )
    return f"({make.base()} has {make.random.choice(paths)})"


@construct("has on what is missing", "bool")
def _has_missing(make: Maker, depth: int) -> str:
    base = make.random.choice(('User::"ghost"', 'Nowhere::"x"', 'App::Doc::"ghost"', "principal", "resource", "action"))
    return make.random.choice(
        (
            f"({base} has n)",
            f"({base} has e.n)",
            f"({base} has n || {base}.n == 1)",
            f"(!({base} has n))",
            f"({base}.n == 1)",
        )
    )


@construct("hasTag", "bool")
def _has_tag(make: Maker, depth: int) -> str:
    return f"{make.make('entity', depth)}.hasTag({make.make('string', depth)})"


@construct("getTag", "bool")
def _get_tag(make: Maker, depth: int) -> str:
    entity, tag = make.make("entity", 0), quoted(make.random.choice(STRINGS[:5]))
    other = make.leaf(make.random.choice(("long", "string")))
    read = f"({entity}.getTag({tag}) {make.random.choice(('==', '!='))} {other})"
    return f"({entity}.hasTag({tag}) && {read})" if make.chance(0.7) else read


# --- sets and records -------------------------------------------------------------------------------------------------


@construct("set", "set")
def _set(make: Maker, depth: int) -> str:
    kinds = ("long", "bool", "string", "set", "record", "duration", "decimal", "ip", "datetime", "entity")
    return f"[{', '.join(make.make(make.random.choice(kinds), depth) for _ in range(make.random.randrange(4)))}]"


@construct("set of entities", "entities")
def _set_of_entities(make: Maker, depth: int) -> str:
    return f"[{', '.join(make.make('entity', depth) for _ in range(make.random.randrange(4)))}]"


@construct("set equality", "bool")
def _set_equality(make: Maker, depth: int) -> str:
    items = [make.element() for _ in range(make.random.randrange(4))]
    other = [*items, *items[:1]] if make.chance(0.6) else [*items[1:], make.element()]
    make.random.shuffle(other)
    return f"([{', '.join(items)}] {make.random.choice(('==', '!='))} [{', '.join(other)}])"


@construct("contains", "bool")
def _contains(make: Maker, depth: int) -> str:
    if make.chance(0.6):
        return f"{make.leaf('set')}.contains({make.element()})"
    kind = make.random.choice(TYPES)
    item = make.make(kind, depth)
    return f"[{item}, {make.element()}].contains({make.same_again(kind, item, depth)})"


def _two_sets(method: str) -> Production:
    def production(make: Maker, depth: int) -> str:
        if make.chance(0.5):
            items = [make.element() for _ in range(make.random.randrange(5))]
            few = make.random.sample(items, make.random.randrange(len(items) + 1))
            return (
                f"[{', '.join(items)}].{method}([{', '.join([*few, *([make.element()] if make.chance(0.4) else [])])}])"
            )
        return f"{make.make('set', depth)}.{method}({make.make('set', depth)})"

    return production


construct("containsAll", "bool")(_two_sets("containsAll"))
construct("containsAny", "bool")(_two_sets("containsAny"))


@construct("isEmpty", "bool")
def _is_empty(make: Maker, depth: int) -> str:
    sets = ("[]", make.path("set"), make.make("set", depth), make.make("entities", depth))
    return f"{make.random.choice(sets)}.isEmpty()"


@construct("record", "record")
def _record(make: Maker, depth: int) -> str:
    names = make.random.sample(("n", "s", "k", "deep", "two words", "if"), make.random.randrange(4))
    fields = (f"{quoted(name)}: {make.make(make.random.choice(TYPES), depth)}" for name in names)
    return "{" + ", ".join(fields) + "}"


@construct("record equality", "bool")
def _record_equality(make: Maker, depth: int) -> str:
    names = make.random.sample(("k", "n", "s", "a-b", "", "if"), make.random.randrange(1, 4))
    fields = [(name, make.element()) for name in names]
    other = [(name, make.element() if make.chance(0.15) else item) for name, item in fields]
    make.random.shuffle(other)
    left, right = ("{" + ", ".join(f"{quoted(name)}: {item}" for name, item in part) + "}" for part in (fields, other))
    return f"({left} {make.random.choice(('==', '!='))} {right})"
