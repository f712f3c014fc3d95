"""A fleet as it begins: kinds of agents with their tools, and agents that each differ from their kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from ostiary.provenance.noticing.threats import ThreatList, find_network_list
from ostiaryd.watch.engines.lists import parse_list
from ostiaryd.watch.wire_threats import DEFAULT_POINTS

HOUR, DAY = 3_600_000_000, 86_400_000_000
FIRST_DAY = 20_400 * DAY
"""a Wednesday; microseconds since the epoch"""
PLACES: Mapping[str, tuple[float, float]] = {
    "frankfurt": (50.1, 8.7),
    "dublin": (53.3, -6.3),
    "ashburn": (39.0, -77.5),
    "portland": (45.5, -122.7),
    "singapore": (1.3, 103.8),
    "sydney": (-33.9, 151.2),
}
"""latitude and longitude"""
LIST = "198.51.0.0/16 ; a provider that asks nobody who they are"
"""the threat list, in the form in which they come"""
_VERBS = {
    "read": ("get", "list", "search", "export"),
    "write": ("put", "update"),
    "send": ("mail", "post"),
    "destroy": ("delete",),
    "pay": ("pay",),
}
_EFFECTS = ("read", "read", "read", "read", "write", "write", "send", "destroy", "pay")
_SHAPES = ("id:s8", "id:s8 limit:n2", "query:s40", "path:s20 text:s500", "to:s30 text:s200")
_CLASSES = ((), (), ("internal",), ("personal",))


@dataclass(frozen=True, slots=True)
class Tool:
    """`bytes` and `records`: what a call returns, half of the time less."""

    name: str
    effect: str
    classes: tuple[str, ...]
    shapes: tuple[str, ...]
    bytes: float
    records: float
    canary: bool = False

    @property
    def resource(self) -> str:
        return f"https://{self.name.partition('/')[0]}.example/mcp"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of agents. `steps`: for each tool, how often another one follows it; `first` which
    one a session begins with. `pace`: sessions an hour, by the hour of the day. `parts`: how often one is handed on.
    """

    name: str
    model: str
    tools: tuple[Tool, ...]
    first: tuple[float, ...]
    steps: tuple[tuple[float, ...], ...]
    pace: tuple[float, ...]
    calls: float
    parts: float
    denied: float
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Agent:
    """`rate` and `size` are times what its kind does; `likes` how much more of each tool."""

    id: str
    owner: str
    kind: int
    born: int
    """the day on which it starts"""
    rate: float
    size: float
    likes: tuple[float, ...]
    networks: tuple[str, ...]
    """two, where two copies of it run at once"""
    key: str
    guard: str
    """in its own process; empty: each resource has one for all"""


@dataclass(frozen=True, slots=True)
class Fleet:
    seed: int
    kinds: tuple[Kind, ...]
    agents: tuple[Agent, ...]
    places: Mapping[str, tuple[float, float]]
    """of networks"""
    threats: Mapping[str, tuple[str, int]]
    """networks that are on a threat list: which, with how many points"""


def draw(seed: int, *, agents: int, kinds: int = 8, days: int = 14) -> Fleet:
    """Draw a fleet; a twelfth of its agents starts on a later day."""
    dice = Random(f"{seed}/fleet")
    shop = [_tools(dice, f"r{number}") for number in range(2 * kinds)]
    made = tuple(_kind(dice, number, shop) for number in range(kinds))
    cities = sorted(PLACES)
    places = dict[str, tuple[float, float]]()
    for number, kind in enumerate(made):
        for network in kind.networks:
            places[network] = PLACES[cities[number % len(cities)]]
            places[moved(network)] = PLACES[cities[(number + number % 2) % len(cities)]]
    for block in ("203.0", "198.51"):
        places |= {f"{block}.{number}.0/24": at for number, at in enumerate(PLACES.values())}
    fleet = tuple(_agent(dice, number, made, days) for number in range(agents))
    return Fleet(seed, made, fleet, places, _threats(places))


def _threats(networks: Iterable[str]) -> dict[str, tuple[str, int]]:
    listed = parse_list("plain", LIST.encode(), now=FIRST_DAY, spared=frozenset())
    lists = {"tl_1": ThreatList("of a provider", DEFAULT_POINTS, listed.marks, listed.networks)}
    found = {network: find_network_list(network, lists) for network in networks}
    return {network: (one.name, one.points) for network, one in found.items() if one is not None}


def moved(network: str) -> str:
    """Where what was there is after a move: half of the kinds to another place."""
    return network.replace("10.0.", "10.1.", 1)


def _tools(dice: Random, resource: str) -> list[Tool]:
    tools = []
    for number in range(dice.randint(4, 9)):
        effect = _EFFECTS[number] if number < 2 else dice.choice(_EFFECTS)
        reads = effect == "read"
        tools.append(
            Tool(
                name=f"{resource}/{dice.choice(_VERBS[effect])}_{number}",
                effect=effect,
                classes=dice.choice(_CLASSES),
                shapes=tuple(dice.sample(_SHAPES, dice.randint(1, 2))),
                bytes=dice.lognormvariate(8, 1) if reads else 80.0,
                records=dice.lognormvariate(1.5, 1) if reads else 0,
            )
        )
    return tools


def _kind(dice: Random, number: int, shop: Sequence[Sequence[Tool]]) -> Kind:
    offered = [tool for resource in dice.sample(shop, dice.randint(1, 3)) for tool in resource]
    tools = tuple(dice.sample(offered, min(len(offered), dice.randint(4, 9))))
    steps = tuple(_few(dice, len(tools)) for _ in tools)
    start, length = dice.randint(0, 23), dice.choice((9, 10, 12, 24))
    pace = tuple(dice.uniform(0.5, 2) if (hour - start) % 24 < length else 0.0 for hour in range(24))
    return Kind(
        name=f"kind-{number}",
        model=f"model-{number % 3}",
        tools=tools,
        first=_few(dice, len(tools)),
        steps=steps,
        pace=pace,
        calls=dice.uniform(4, 14),
        parts=dice.choice((0.0, 0.0, 0.1, 0.3)),
        denied=dice.uniform(0, 0.02),
        networks=tuple(f"10.0.{4 * number + block}.0/24" for block in range(3)),
    )


def _few(dice: Random, count: int) -> tuple[float, ...]:
    """Weights of which two or three carry nearly all."""
    weights = [0.01] * count
    for at in dice.sample(range(count), min(count, 3)):
        weights[at] = dice.uniform(0.3, 1)
    return tuple(weights)


def _agent(dice: Random, number: int, kinds: Sequence[Kind], days: int) -> Agent:
    kind = number % len(kinds)
    return Agent(
        id=f"ag_{number:05}",
        owner=f"team-{number % 7}",
        kind=kind,
        born=dice.randrange(1, days) if dice.random() < 1 / 12 else 0,
        rate=dice.lognormvariate(0, 0.4),
        size=dice.lognormvariate(0, 0.3),
        likes=tuple(dice.lognormvariate(0, 0.5) if dice.random() < 0.8 else 0.02 for _ in kinds[kind].tools),
        networks=tuple(dice.sample(kinds[kind].networks, 2 if dice.random() < 0.2 else 1)),
        key=f"key-{number}",
        guard=f"rs_{number:05}" if kind % 2 else "",
    )
