"""Lists of models in the shapes that servers give them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from chat_backend.domain.errors import StreamBroken
from workers.providers.model_list import model_names


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"object": "list", "data": [{"id": "b"}, {"id": "a"}, {"id": "a"}]}, ["a", "b"]),
        ([{"id": "b/two"}, {"id": "a/one"}], ["a/one", "b/two"]),
        (["b", "a"], ["a", "b"]),
        ({"data": ["b", "a"]}, ["a", "b"]),
        ({"object": "list", "data": None}, []),
        ({"object": "list", "data": []}, []),
        ({"object": "list"}, []),
        ({"models": None}, []),
        ({"models": []}, []),
        ([], []),
        (None, []),
        ({"models": [{"name": "llama3:8b", "model": "llama3:8b"}]}, ["llama3:8b"]),
        ({"models": [{"model": "x"}]}, ["x"]),
        ({"data": None, "models": [{"name": "x"}]}, ["x"]),
        ({"data": {"models": [{"id": "x"}]}}, ["x"]),
        ({"models": {"x": {"size": 1}, "y": {}}}, ["x", "y"]),
        ({"data": [{"id": "a"}, {"object": "model"}, None, {"id": 7}, [], {"id": ""}, {"id": "b"}]}, ["a", "b"]),
        ({"data": [{"id": None, "name": "a"}]}, ["a"]),
    ],
)
def test_names_are_read(body: Any, names: list[str]) -> None:
    assert model_names(orjson.dumps(body)) == names


def test_a_byte_order_mark_is_no_hindrance() -> None:
    assert model_names(b'\xef\xbb\xbf{"data": [{"id": "a"}]}') == ["a"]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"7", b'"text"', b"{}", b'{"error": "Unexpected endpoint or method. (GET /models)"}'),
        *(b'{"status": "ok"}', b'{"data": [{"id": 7}, null]}', b"[1, 2]"),
    ],
)
def test_what_is_no_list_is_an_error(body: bytes) -> None:
    with pytest.raises(StreamBroken):
        model_names(body)
