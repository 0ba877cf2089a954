"""The model of a new chat session that names none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from chat_backend.config import Settings
from chat_backend.web.app import create_app
from tests.support.rest import Rest
from tests.support.valkey import Valkey

REQUIRED = "Missing data for required field."


@pytest.fixture
def app(sqlite_url: str, valkey: Valkey) -> Iterator[Flask]:
    environ = {"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url, "REDIS_URL": valkey.url}
    settings = Settings.from_environment(environ)
    app = create_app(replace(settings, default_llm_provider="LOCAL", default_llm_model="usual"))
    app.extensions["chat_hub"].start()
    yield app
    app.extensions["chat_hub"].shut_down()
    app.extensions["backend"].close()


@pytest.mark.parametrize(
    ("body", "provider", "model"),
    [
        (None, "LOCAL", "usual"),
        ({}, "LOCAL", "usual"),
        ({"llm_provider": "LOCAL"}, "LOCAL", "usual"),
        ({"llm_model": "other"}, "LOCAL", "other"),
        ({"llm_provider": "OPENROUTER", "llm_model": "x/y"}, "OPENROUTER", "x/y"),
    ],
)
def test_what_is_not_named_is_the_default(app: Flask, body: Any, provider: str, model: str) -> None:
    made = Rest(app).made("/sessions", body)

    assert (made["llm_provider"], made["llm_model"]) == (provider, model)


def test_the_default_model_is_of_its_provider_alone(app: Flask) -> None:
    response = Rest(app).post("/sessions", {"llm_provider": "OPENROUTER"})

    assert response.status_code == 422
    assert response.get_json()["errors"] == [{"field": "llm_model", "message": REQUIRED}]


def test_a_null_is_no_absence(app: Flask) -> None:
    response = Rest(app).post("/sessions", {"llm_provider": None})

    assert response.status_code == 422


def test_without_a_default_both_are_required(sqlite_rest: Rest) -> None:
    response = sqlite_rest.post("/sessions", {})

    errors = [{"field": name, "message": REQUIRED} for name in ("llm_provider", "llm_model")]
    assert (response.status_code, response.get_json()["errors"]) == (422, errors)


def test_the_document_says_what_is_required_here(app: Flask, sqlite_app: Flask) -> None:
    required = [
        Rest(asked).get("/openapi.json").get_json()["components"]["schemas"]["NewSession"].get("required", [])
        for asked in (app, sqlite_app)
    ]

    assert required == [[], ["llm_model", "llm_provider"]]
