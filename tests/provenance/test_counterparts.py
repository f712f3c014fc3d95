"""Counterparts: a recipient counts as known only if an earlier call had this recipient."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.cedar.ir import reads_within
from ostiary.protocol.errors import Malformed
from ostiary.provenance.history import MAX_COUNTERPARTS, MAX_MET, NOBODY, Counterpart, Counterparts, record_recipients
from ostiary.provenance.history.counterparts import MAX_USES, pack_counterparts, unpack_counterparts
from ostiaryd.policy.model.lower import lower

ANN, BOB, EVE = b"ann     ", b"bob     ", b"eve     "


def name(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_the_recipient_context_describes_the_least_known_recipient() -> None:
    known = record_recipients(
        record_recipients(record_recipients(NOBODY, (ANN,), day=10), (ANN, BOB), day=12), (ANN,), day=20
    )
    assert known.recipient_context((ANN,), is_more=False, day=21) == {"unknown": 0, "age_days": 11, "uses": 3}
    assert known.recipient_context((ANN, BOB), is_more=False, day=21) == {"unknown": 0, "age_days": 9, "uses": 1}
    assert known.recipient_context((ANN, EVE), is_more=False, day=21) == {"unknown": 1, "age_days": 0, "uses": 0}
    assert known.recipient_context((ANN,), is_more=True, day=21) == {"unknown": 1, "age_days": 0, "uses": 0}
    assert known.recipient_context((), is_more=False, day=21) == {"unknown": 0, "age_days": 0, "uses": 0}
    assert known.recipient_context((ANN,), is_more=False, day=9)["age_days"] == 0, (
        "a clock that went back makes nobody older"
    )


@pytest.mark.parametrize("count", [MAX_COUNTERPARTS - 1, MAX_COUNTERPARTS, MAX_COUNTERPARTS + 1])
def test_the_oldest_counterpart_with_one_use_is_removed_first(count: int) -> None:
    known = record_recipients(record_recipients(NOBODY, (ANN,), day=1), (ANN,), day=1)
    for number in range(count - 1):
        known = record_recipients(known, (name(number),), day=2 + number)
    values = {one.value for one in known.entries}
    assert len(values) == min(count, MAX_COUNTERPARTS)
    assert ANN in values, "a flood of new ones drives out none that was met before"
    assert (name(0) in values) is (count <= MAX_COUNTERPARTS)


@given(st.lists(st.tuples(st.lists(st.sampled_from([ANN, BOB, EVE]), max_size=3), st.integers(0, 3)), max_size=12))
def test_uses_and_ages_of_counterparts_agree_with_a_full_count(calls: list[tuple[list[bytes], int]]) -> None:
    known, day, days = NOBODY, 0, list[tuple[set[bytes], int]]()
    for values, later in calls:
        day += later
        known = record_recipients(known, set(values), day=day)
        days.append((set(values), day))
    for one in (ANN, BOB, EVE):
        when = [at for values, at in days if one in values]
        said = {"unknown": 0, "age_days": day - when[0], "uses": len(when)} if when else {"unknown": 1}
        assert said.items() <= known.recipient_context((one,), is_more=False, day=day).items()


def test_packed_counterparts_are_within_the_size_limit_and_unpack_to_the_same() -> None:
    full = Counterparts(
        tuple(Counterpart(name(number), (1 << 24) - 1, (1 << 24) - 1, MAX_USES) for number in range(MAX_COUNTERPARTS)),
        (1 << 53) - 1,
    )
    assert len(pack_counterparts(full)) <= MAX_MET
    assert unpack_counterparts(pack_counterparts(full)) == full
    assert record_recipients(full, (name(3),), day=1).entries[3].uses == MAX_USES


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x91\x91\x94\xc4\x01a\x01\x01\x01", pack_counterparts(NOBODY)[:-1]])
def test_malformed_counterparts_are_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        unpack_counterparts(body)


@pytest.mark.parametrize(
    ("condition", "looks"),
    [
        ("context.history.counterparts.uses > 3", True),
        ("context.history has counterparts", True),
        ("context.history == context.history", True),
        ("context has history && context.history.outside", False),
        ("context.history.recent.outside", False),
        ("context.counterparts.uses > 3", False),
        ("context == context", True),
    ],
)
def test_policies_that_read_counterparts_are_detected_by_their_text(condition: str, looks: bool) -> None:
    policies = lower(f"forbid (principal, action, resource) when {{ {condition} }};")
    assert reads_within(policies, "history", "counterparts") is looks
