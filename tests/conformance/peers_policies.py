"""Compare the translation of Vault policies with OpenBao: `make peers`.

Random policies are stored at an OpenBao. A token that names them has capabilities on random paths, and the translation
must give the same. Paths of few segments and few letters meet often, so priorities matter.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import hvac

from ostiaryd.secrets.model import acl
from tests.secrets.backend_fixtures import openbao

ROUNDS = 300
PATHS_IN_A_ROUND = 40
SEGMENTS = ("a", "b", "ab", "+", "+", "abc")
ENDINGS = ("", "", "*", "/", "/*", "b*")
CAPABILITIES = sorted(acl.CAPABILITIES)


def random_pattern(chance: random.Random) -> str:
    """Return a path of a policy."""
    segments = [chance.choice(SEGMENTS) for _ in range(chance.randint(1, 4))]
    pattern = "/".join(segments) + chance.choice(ENDINGS)
    return pattern.replace("+*", "+/*").replace("+b*", "+/b*")


def random_policy(chance: random.Random) -> str:
    """Return a policy in JSON, with few paths."""
    rules = {}
    for _ in range(chance.randint(1, 6)):
        wanted = ["deny"] if chance.random() < 0.15 else chance.sample(CAPABILITIES, chance.randint(1, 3))
        rules[random_pattern(chance)] = {"capabilities": wanted}
    return json.dumps({"path": rules})


def random_path(chance: random.Random) -> str:
    """Return a path of a request."""
    segments = [chance.choice(("a", "b", "ab", "abc", "abb")) for _ in range(chance.randint(1, 4))]
    return "/".join(segments) + chance.choice(("", "", "/"))


def compare(client: hvac.Client, chance: random.Random) -> list[str]:
    """Return the differences of one round in words."""
    texts = [random_policy(chance) for _ in range(chance.randint(1, 3))]
    names = [f"random-{number}" for number in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        client.sys.create_or_update_acl_policy(name, text)
    made = client.auth.token.create(policies=names, no_default_policy=True, ttl="1h")
    paths = [random_path(chance) for _ in range(PATHS_IN_A_ROUND)]
    token = made["auth"]["client_token"]
    answer = client.adapter.post("/v1/sys/capabilities", json={"token": token, "paths": paths})["data"]
    access = acl.AccessList([acl.parse_policy(text) for text in texts])
    differences = []
    for path in paths:
        ours, theirs = sorted(access.find_capabilities(path)) or ["deny"], sorted(answer[path])
        if ours != theirs:
            differences.append(f"{path}: {ours}, OpenBao {theirs}: {texts}")
    return differences


def main() -> int:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    chance = random.Random(seed)
    with TemporaryDirectory() as folder, openbao(Path(folder)) as client:
        found = [one for _ in range(ROUNDS) for one in compare(client, chance)]
    print(f"Vault policies: {ROUNDS * PATHS_IN_A_ROUND:,} paths, {len(found)} differ (seed {seed})")
    for one in found[:20]:
        print(f"  {one}")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
