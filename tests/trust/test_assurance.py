"""The assurance of a session: independent proofs count, and a level is as old as the oldest proof that it needs."""

from __future__ import annotations

from itertools import permutations
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.authorization.assurance import PERSON_LEVELS, PERSON_MFA, PERSON_PHR, PERSON_SINGLE, meets
from ostiaryd.trust.flows.credentials import LocalLogin
from ostiaryd.trust.model.passkeys import Passkey
from ostiaryd.trust.model.sessions import METHODS, Method, Proof, Session, add_proof, assess, fresh_proofs, ways_to_meet

SECOND = 1_000_000
PASSWORD, TOTP = Proof(method="password", at=1), Proof(method="totp", at=2)
RECOVERY, PASSKEY = Proof(method="recovery", at=3), Proof(method="passkey", at=4, source="k")
GOOGLE, OKTA = (Proof(method="federated", at=5, source=f"https://{host}") for host in ("google", "okta"))
CASES = [
    ([PASSWORD], PERSON_SINGLE),
    ([TOTP], PERSON_SINGLE),
    ([TOTP, RECOVERY], PERSON_SINGLE),
    ([GOOGLE], PERSON_SINGLE),
    ([GOOGLE, OKTA], PERSON_SINGLE),
    ([PASSWORD, TOTP], PERSON_MFA),
    ([PASSWORD, RECOVERY], PERSON_MFA),
    ([GOOGLE, TOTP], PERSON_MFA),
    ([GOOGLE, PASSWORD], PERSON_MFA),
    ([Proof(method="federated", at=5, source="https://idp", acr=PERSON_MFA)], PERSON_MFA),
    ([Proof(method="federated", at=5, source="https://idp", acr=PERSON_PHR)], PERSON_PHR),
    ([PASSKEY], PERSON_PHR),
    ([PASSKEY, PASSWORD, TOTP], PERSON_PHR),
]


def test_each_login_method_has_factors_and_a_local_login_lists_its_methods() -> None:
    assert set(METHODS) == set(get_args(Method))
    assert all(facts.factors for facts in METHODS.values())
    key = Passkey("k", "pe_1", "phone", b"", 0, "", added_at=0, used_at=None)
    every = LocalLogin(has_password=True, has_totp=True, passkeys=[key], recovery_codes=1)
    assert every.methods == METHODS.keys() - {"recovery", "federated"}


@pytest.mark.parametrize(("proofs", "acr"), CASES)
def test_the_assurance_level_of_a_session_follows_from_independent_proofs_in_any_order(
    proofs: list[Proof], acr: str
) -> None:
    for order in permutations(proofs):
        assert assess(order).acr == acr
    assert ("mfa" in assess(proofs).amr) == (acr != PERSON_SINGLE)


def test_a_level_is_as_old_as_the_oldest_proof_that_it_needs() -> None:
    assert assess([PASSWORD, TOTP]).authenticated_at == PASSWORD.at
    assert assess([PASSWORD, TOTP, RECOVERY]).authenticated_at == PASSWORD.at
    assert assess([PASSWORD, TOTP, PASSKEY]).authenticated_at == PASSKEY.at
    assert assess([TOTP, RECOVERY]).authenticated_at == RECOVERY.at
    assert assess([PASSWORD, TOTP]).amr == ("mfa", "otp", "pwd")


proofs = st.lists(
    st.builds(
        Proof,
        method=st.sampled_from(["password", "totp", "recovery", "passkey", "federated"]),
        at=st.integers(0, 1000),
        source=st.sampled_from(["", "a", "b"]),
        acr=st.sampled_from(["", PERSON_MFA]),
    ),
    min_size=1,
    max_size=6,
)


@given(given_proofs=proofs, more=proofs)
def test_a_further_proof_never_lowers_a_level_and_a_repeated_one_never_raises_it(
    given_proofs: list[Proof], more: list[Proof]
) -> None:
    before = PERSON_LEVELS.index(assess(given_proofs).acr)
    assert PERSON_LEVELS.index(assess([*given_proofs, *more]).acr) >= before
    again = [Proof(method=one.method, at=one.at + 1, source=one.source, acr=one.acr) for one in given_proofs]
    assert PERSON_LEVELS.index(assess([*given_proofs, *again]).acr) == before


def test_a_session_meets_an_assurance_demand_with_fresh_proofs_only() -> None:
    session = Session(
        id="se_1",
        person="pe_1",
        proofs=(Proof(method="password", at=100 * SECOND), Proof(method="totp", at=200 * SECOND)),
        network="",
        browser="",
        created_at=0,
        used_at=0,
        expires_at=10**12,
    )
    now = 300 * SECOND
    both = session.meet(now=now, acr_values=[PERSON_MFA], max_age=200)
    assert both is not None
    assert (both.acr, both.authenticated_at) == (PERSON_MFA, 100 * SECOND)
    assert session.meet(now=now, acr_values=[PERSON_MFA], max_age=199) is None
    one = session.meet(now=now, max_age=199)
    assert one is not None
    assert (one.acr, one.authenticated_at) == (PERSON_SINGLE, 200 * SECOND)
    assert session.meet(now=now, max_age=99) is None
    assert session.meet(now=now, since=200 * SECOND) is not None
    assert session.meet(now=now, since=200 * SECOND + 1) is None
    assert session.meet(now=now, acr_values=["urn:of-another", PERSON_SINGLE]) is not None
    assert session.meet(now=now, acr_values=["urn:of-another"]) is None


def test_the_offered_login_methods_are_those_that_can_meet_the_demand() -> None:
    everything: list[Method] = ["password", "totp", "passkey"]
    assert ways_to_meet(everything, [], [PERSON_PHR], now=9) == {"passkey"}
    assert ways_to_meet(everything, [PASSWORD], [PERSON_MFA], now=9) == {"totp", "passkey"}
    assert ways_to_meet(["password", "totp"], [], [PERSON_MFA], now=9) == {"password"}
    assert ways_to_meet(["password", "totp"], [TOTP], [PERSON_MFA], now=9) == {"password"}
    assert ways_to_meet(["password"], [], [PERSON_MFA], now=9) == frozenset()
    assert ways_to_meet(["password", "totp"], [], (), now=9) == {"password", "totp"}


def test_a_new_login_proof_replaces_the_earlier_proof_of_its_method_and_source() -> None:
    newer = Proof(method="password", at=9)
    assert add_proof((PASSWORD, TOTP), newer) == (TOTP, newer)
    assert add_proof((GOOGLE,), OKTA) == (GOOGLE, OKTA)
    assert fresh_proofs((PASSWORD, TOTP), now=9, max_age=None) == (PASSWORD, TOTP)


@pytest.mark.parametrize("acr", PERSON_LEVELS)
def test_a_stronger_level_meets_a_weaker_demand_and_not_the_other_way_around(acr: str) -> None:
    place = PERSON_LEVELS.index(acr)
    assert [meets(acr, [value]) for value in PERSON_LEVELS] == [n <= place for n in range(3)]
    assert meets(acr, ())
    assert not meets("urn:ostiary:acr:key", PERSON_LEVELS)
