"""One strict reader for REST and socket."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_backend.domain.errors import InvalidInput, MalformedRequest
from chat_backend.domain.strict_json import clean, depth_of, read_object, read_stored, storable

storable_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | storable_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(storable_text, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(storable_text, values, max_size=5))
def test_whatever_can_be_stored_is_read_as_it_was_written(value: dict[str, object]) -> None:
    assert read_object(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b"\xff\xfe",
        b'{"a": "\xed\xa0\x80"}',
        b"[" * 100_000,
        b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}",
        b'{"a": ' + b"9" * 5_000 + b"}",
    ],
)
def test_what_is_no_json_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_object(data)


@pytest.mark.parametrize("data", ['\ufeff{"a": "ö"}', '\ufeff{"a": "ö"}'.encode(), '\r\n{"a": "ö"}\r\n'.encode()])
def test_a_byte_order_mark_and_line_breaks_may_come_first(data: bytes | str) -> None:
    assert read_object(data) == {"a": "ö"}


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "latin-1", "cp1252", "cp437"]
)
def test_another_encoding_is_refused_by_a_sentence(encoding: str) -> None:
    with pytest.raises(MalformedRequest, match="JSON must be in UTF-8"):
        read_object('{"a": "ö"}'.encode(encoding))


@pytest.mark.parametrize(
    "text",
    [
        '{"metadata": {"a": [' + "[]," * 80_000 + "[]]}}",
        '{"metadata": {"a": [' + "0," * 120_000 + "0]}}",
        "{" + ",".join(f'"{number}": {{}}' for number in range(20_000)) + "}",
        '{"metadata": {"a": [' + '"\\\\\\"",' * 40_000 + "0]}}",
        '{"metadata": {"a": [' + '"",' * 80_000 + '""]}}',
    ],
    ids=["lists", "numbers", "names", "escapes", "empty texts"],
)
def test_more_parts_than_any_request_has_are_not_even_parsed(text: str) -> None:
    began = time.process_time()

    with pytest.raises(MalformedRequest):
        read_object(text)

    # To parse the first of them takes ten times as long.
    assert time.process_time() - began < 0.01


def test_commas_and_brackets_in_a_text_are_no_parts() -> None:
    content = ',[{"\\' * 40_000

    read = read_object(json.dumps({"content": content, "metadata": {"a": [[]] * 4095}}))

    assert read["content"] == content


def test_as_many_parts_as_two_objects_of_sixteen_kib_can_hold_are_read() -> None:
    free_form = {"a": [[]] * 4093}
    assert len(json.dumps(free_form)) > 16_370
    request = {"content": "x", "metadata": free_form, "response_format": free_form}

    assert read_object(json.dumps(request)) == request


@pytest.mark.parametrize("data", [b"[1]", b"null", b'"text"', b"1", b"true"])
def test_only_an_object_is_taken(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_object(data)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b'{"content": "a\\u0000b"}', "content"),
        (b'{"content": "\\ud800"}', "content"),
        (b'{"metadata": {"deep": ["\\udc00"]}}', "metadata"),
        (b'{"metadata": {"a\\u0000": 1}}', "metadata"),
    ],
)
def test_text_that_can_not_be_stored_is_refused_by_the_name_of_its_field(data: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_object(data)

    assert [fault["field"] for fault in refused.value.errors] == [field]


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**25, 10**400, 10**4299])
def test_integer_of_more_than_64_bits_is_refused_by_its_path(number: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_object(json.dumps({"a": 1, "metadata": {"list": [1, {"n": number}]}}))

    assert [fault["field"] for fault in refused.value.errors] == ["metadata.list.1.n"]


def test_path_of_a_refused_number_is_short() -> None:
    with pytest.raises(InvalidInput) as refused:
        read_object(json.dumps({"metadata": {"k" * 10_000: {"\ud800": 2**64}}}))

    (fault,) = refused.value.errors
    assert len(fault["field"]) <= 300


@pytest.mark.parametrize("number", ["1e400", "-1e999", "9" * 5_000, "-" + "9" * 100_000, "1" * 400 + ".5"])
def test_number_that_is_no_finite_double_is_named(number: str) -> None:
    with pytest.raises(MalformedRequest, match=number[:20]) as refused:
        read_object(f'{{"metadata": {{"n": {number}}}}}')

    assert len(refused.value.message) < 100


@pytest.mark.parametrize(
    ("number", "read"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", 2.0**63),
        ("1" + "0" * 400, None),
        ("1e400", None),
        ("NaN", None),
        ("-Infinity", None),
        ("1.5", 1.5),
    ],
)
def test_stored_numbers_are_read_within_the_bound(number: str, read: object) -> None:
    assert read_stored(f"[{number}]") == [read]


@given(st.text())
def test_cleaned_text_can_be_stored(text: str) -> None:
    assert storable(clean(text))


def test_depth_counts_objects_and_lists() -> None:
    assert [depth_of(value) for value in (1, [], {"a": []}, [[[1]]])] == [0, 1, 2, 3]
