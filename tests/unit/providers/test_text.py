"""Text that can be stored, whatever was sent."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_backend.domain.errors import StreamBroken
from workers.providers.text import TextMender, mended, parse, storable

ANYTHING = st.text(st.characters(exclude_categories=[]) | st.sampled_from("\0\ud800\udbff\udc00\udfff"))


@given(ANYTHING)
def test_mended_text_is_good_unicode_without_nul(text):
    result = mended(text)

    assert "\0" not in result.encode().decode()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_good_text_stays_as_it_is(text):
    result = mended(text)

    assert result == text


@given(ANYTHING, st.integers(0, 100))
def test_pieces_are_mended_like_the_whole(text, place):
    mender = TextMender()

    pieces = mender.mend(text[:place]) + mender.mend(text[place:]) + mender.end()

    assert pieces == mended(text)


def test_a_pair_cut_between_two_pieces_is_joined():
    mender = TextMender()

    pieces = [mender.mend("a\ud83d"), mender.mend("\ude00b"), mender.end()]

    assert pieces == ["a", "\U0001f600b", ""]


def test_json_with_bad_utf_8_is_read_with_replacement():
    data = b'{"content": "a\xff\xfeb"}'

    parsed = parse(data)

    assert parsed == {"content": "a\ufffd\ufffdb"}


@pytest.mark.parametrize("data", [b"", b"{", b"{oops", b'{"a": nan}', b"[" * 100_000, b"9" * 10_000, b'"a'])
def test_what_is_not_json_breaks_the_stream(data):
    with pytest.raises(StreamBroken):
        parse(data)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_number_that_is_none_is_read_as_not_told(number):
    parsed = parse(b'{"tokens": 3, "cost": ' + number + b"}")

    assert parsed == {"tokens": 3, "cost": None}


def test_a_broken_stream_does_not_tell_what_was_sent():
    with pytest.raises(StreamBroken) as caught:
        parse(b'{"content": "CANARY')

    assert "CANARY" not in repr(caught.value)
    assert caught.value.__cause__ is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | ANYTHING, st.lists, max_leaves=20))
def test_what_is_storable_is_good_json(value):
    result = storable({"usage": value})

    assert "\\u0000" not in json.dumps(result)
    assert json.dumps(result, ensure_ascii=False).encode()


def test_numbers_that_json_does_not_know_are_left_out():
    result = storable({"cost": math.inf, "share": math.nan, "tokens": 3, "absurd": 10**400})

    assert result == {"cost": None, "share": None, "tokens": 3, "absurd": None}


def test_depth_and_size_are_bounded():
    deep: dict = {}
    for _ in range(500):
        deep = {"more": deep}

    result = storable({"deep": deep, "long": "x" * 10_000, "many": list(range(10_000))})

    assert len(json.dumps(result)) < 2_000
