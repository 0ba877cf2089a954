"""A provider's own sentence, made fit to be shown and logged."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from workers.providers.error_text import LONGEST_SENTENCE, cleaned, error_of, sentence_in

PROMPT = "Dear doctor, my name is Ann Example and since Monday my left knee hurts badly."


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"error": {"message": "No.", "code": 1}}, "No."),
        ([{"error": {"message": "No."}}], "No."),
        ({"error": "No."}, "No."),
        ({"detail": "No."}, "No."),
        ({"detail": [{"loc": ["body", "n"], "msg": "No.", "input": PROMPT}]}, "No."),
        ({"errors": [{"message": "No."}]}, "No."),
        ({"code": 7, "msg": "No."}, "No."),
        ({"error": {"message": "Upstream", "metadata": {"raw": '{"error":{"message":"No."}}'}}}, "Upstream: No."),
        (b"No.", "No."),
        (b"<html>No.</html>", None),
        (b"", None),
        ({}, None),
        ({"error": {"message": {"a": ["b"]}}}, None),
        (7, None),
        (b"[" * 900 + b"]" * 900, None),
        (b'{"error":' * 900 + b"1" + b"}" * 900, None),
    ],
)
def test_the_sentence_is_found_wherever_it_stands(body: Any, sentence: str | None) -> None:
    assert sentence_in(error_of(body if isinstance(body, bytes) else orjson.dumps(body))) == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "Incorrect API key provided: sk-proj-SECRET99SECRET.",
        "Incorrect API key provided: sk-SECRE*********RET9. You can find it in your account.",
        "invalid Authorization header: Bearer SECRET99.abc",
        "token=SECRET99SECRET is not valid",
        "no access for https://ann:SECRET99@host.example/v1?key=SECRET99",
        "see https://host.example/v1?api_key=SECRET99",
        "unknown key AIzaSECRET99SECRET99SECRET99SECRET99",
        "hash d41d8cd98f00b204SECRET99e9800998ecf8427e",
        "organization org-SECRET99SECRET is suspended",
        "the key of ours, plain-words-SECRET, is refused",
    ],
)
def test_keys_and_credentials_are_left_out(sentence: str) -> None:
    said = cleaned(sentence, secrets=["plain-words-SECRET"])

    assert said
    assert "SECRE" not in said
    assert "RET9" not in said


@pytest.mark.parametrize(
    "sentence",
    [
        f"Invalid message: {PROMPT}",
        f"Invalid message: {PROMPT.upper()}",
        f"Invalid message: '{PROMPT}'",
        f"Invalid message: {PROMPT[:30]}...",
        f"Invalid message: ...{PROMPT[12:60]}...",
        "Invalid message: " + PROMPT.replace(" ", "\n"),
        "Invalid message: " + PROMPT.replace(" ", "\\n\\t"),
        "Invalid message: {'role': 'user', 'content': 'my left knee hurts'}",
    ],
)
def test_what_the_prompt_says_is_left_out(sentence: str) -> None:
    said = cleaned(sentence, prompt=["Be brief.", PROMPT])

    assert said is not None
    assert said.startswith("Invalid message: ")
    assert not {"doctor", "example", "knee", "badly"} & set(said.lower().replace(",", " ").replace(".", " ").split())


def test_a_short_prompt_is_left_out_where_it_is_quoted_whole() -> None:
    assert cleaned("you said: secret! Secrets are fine", prompt=["secret"]) == "you said: …! Secrets are fine"


def test_long_quotations_are_left_out() -> None:
    assert cleaned('bad input "' + "word " * 30 + '" at 3') == "bad input … at 3"


def test_model_names_and_numbers_stay() -> None:
    sentence = "The model `meta-llama/Meta-Llama-3-8B-Instruct` has 8192 tokens; you asked for 9000 (see https://x.example/docs)."

    assert cleaned(sentence, prompt=[PROMPT]) == sentence


def test_a_sentence_is_one_short_line_without_hidden_characters() -> None:
    said = cleaned("a\x00b\r\nFAKE LOG LINE\x1b[31m \u202e" + "long " * 1000)

    assert said is not None
    assert said.isprintable()
    assert len(said) == LONGEST_SENTENCE


@pytest.mark.parametrize("nothing", [None, "", " \n", "…", "\x00"])
def test_nothing_stays_nothing(nothing: str | None) -> None:
    assert cleaned(nothing) is None


def test_odd_letters_do_not_break_the_search_for_the_prompt() -> None:
    assert cleaned("İstanbul'dan gelen mesaj", prompt=["İstanbul'dan gelen mesaj"]) is None
