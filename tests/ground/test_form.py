"""Forms: as the standard library reads them, and bounded."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.protocol.errors import Malformed
from ostiaryd.ground.http.forms import MAX_PARAMETERS, parse_form

PIECES = st.lists(
    st.sampled_from(["a", "b", "=", "&", "%", "+", "%41", "%ff", "%c3%a9", "é", ";", "0", "/"]), max_size=12
)


@given(PIECES.map("".join))
def test_a_form_is_parsed_as_the_standard_library_parses_the_form(text: str) -> None:
    body = text.encode()
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        with pytest.raises(Malformed):
            parse_form(body)
        return
    assert parse_form(body) == {name: [value for other, value in pairs if other == name] for name, _ in pairs}


@pytest.mark.parametrize(
    ("count", "fits"), [(MAX_PARAMETERS - 1, True), (MAX_PARAMETERS, True), (MAX_PARAMETERS + 1, False)]
)
def test_a_form_has_at_most_a_hundred_parameters(count: int, fits: bool) -> None:
    body = b"&".join([b"a=1"] * count)
    if fits:
        assert parse_form(body) == {"a": ["1"] * count}
    else:
        with pytest.raises(Malformed, match="parameters"):
            parse_form(body)
