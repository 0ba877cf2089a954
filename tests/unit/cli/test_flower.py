"""Who may see Flower."""

from __future__ import annotations

import pytest

from chat_backend.cli.flower import guarded
from chat_backend.config import ConfigError
from tests.support.tokens import KEY

JWT = {"JWT_SECRET": KEY}
LOGIN = "ann:a long password"


def test_on_ones_own_machine_anyone_who_is_on_it() -> None:
    assert guarded({"AUTH_MODE": "dev"}) == {"AUTH_MODE": "dev"}


@pytest.mark.parametrize("mode", ["dev", "jwt"])
def test_whoever_is_named(mode: str) -> None:
    environ = {**JWT, "AUTH_MODE": mode, "FLOWER_BASIC_AUTH": LOGIN}

    assert guarded(environ) == environ


def test_in_jwt_mode_nobody_unless_named(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = guarded(JWT)["FLOWER_BASIC_AUTH"], guarded(JWT)["FLOWER_BASIC_AUTH"]

    said = capsys.readouterr()
    assert first != second
    assert len(first) > 40
    assert "set FLOWER_BASIC_AUTH=user:password" in said.err
    assert first not in said.err + said.out


@pytest.mark.parametrize("login", ["ann", "ann:", ":a long password", "ann:short", f"{LOGIN},bob"])
def test_a_login_that_is_none_is_refused_at_the_start(login: str) -> None:
    with pytest.raises(ConfigError, match="FLOWER_BASIC_AUTH must be user:password"):
        guarded({**JWT, "FLOWER_BASIC_AUTH": login})
