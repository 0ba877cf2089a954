"""Settings: every wrong value is a sentence."""

from __future__ import annotations

import dataclasses

import pytest

from chat_backend.config import ConfigError, Settings, settings_table

DEV = {"AUTH_MODE": "dev"}
SECRET = "x" * 32

WRONG = [
    ("DATABASE_URL", "mysql://localhost/chat", "must be a postgresql:// or sqlite:/// address"),
    ("DATABASE_URL", "chat.db", "must be a postgresql:// or sqlite:/// address"),
    ("REDIS_URL", "http://localhost", "must be a redis:// or rediss:// address"),
    ("REDIS_URL", "rediss://host?ssl_cert_reqs=CERT_MAYBE", "has the parameter ssl_cert_reqs, which must be one of"),
    ("REDIS_URL", "rediss://host?ssl_check_hostname=1", "has the parameter ssl_check_hostname, which must be true or"),
    ("REDIS_URL", "rediss://host?ssl_ca_certs=/nowhere.pem", "has the parameter ssl_ca_certs, which must be a file"),
    ("REDIS_URL", "rediss://host?ssl=true", "has the unknown parameter ssl: known are ssl_cert_reqs"),
    ("REDIS_URL", "redis://host?ssl_cert_reqs=none", "has TLS parameters, but redis:// is not TLS: write rediss://"),
    ("CELERY_BROKER_URL", "rediss://a;rediss://b?ssl_cert_reqs=no", "has the parameter ssl_cert_reqs, which must be"),
    ("REDIS_SSL_CERT_REQS", "maybe", "must be one of required, none"),
    ("REDIS_CA_FILE", "/nowhere.pem", "must be a file of certificates in PEM format"),
    ("REDIS_CA_FILE", __file__, "must be a file of certificates in PEM format"),
    ("CELERY_REMOTE_CONTROL", "perhaps", "must be on or off"),
    ("PORT", "abc", "must be a whole number from 1 to 65535"),
    ("PORT", "0", "must be a whole number from 1 to 65535"),
    ("PORT", "65536", "must be a whole number from 1 to 65535"),
    ("PORT", "8000.0", "must be a whole number"),
    ("PORT", "1_000", "must be a whole number"),
    ("PORT", "9" * 5000, "must be a whole number"),
    ("WEB_CONCURRENCY", "0", "must be a whole number from 1"),
    ("HOST", "not an address", "must be an address or a name"),
    ("APP_URL", "chat.example.com", "must be an http:// or https:// address"),
    ("MAX_SOCKETS", "-1", "must be a whole number from 0"),
    ("WORKER_CONCURRENCY", "0", "must be a whole number from 1 to 2000"),
    ("DRAIN_SECONDS", "21", "must be a number of seconds from 0 to 20"),
    ("DRAIN_SECONDS", "nan", "must be a number of seconds"),
    ("DRAIN_SECONDS", "1e1", "must be a number of seconds"),
    ("DRAIN_SECONDS", "-1", "must be a number of seconds"),
    ("AUTH_MODE", "none", "must be one of jwt, dev"),
    ("LOG_LEVEL", "loud", "must be one of DEBUG, INFO, WARNING, ERROR"),
    ("ALLOWED_ORIGINS", "https://ok.example,chat.example.com", "must be a comma-separated list of origins"),
    ("ALLOWED_ORIGINS", "https://chat.example.com/path", "must be a comma-separated list of origins"),
    *[
        ("ALLOWED_ORIGINS", origin, "must be a comma-separated list of origins")
        for origin in (
            "*",
            "null",
            "file://",
            "https://*.example.com",
            "https://u:p@h",
            "https://h:port",
            "://h",
            "https:",
        )
    ],
    ("LOCAL_LLM_BASE_URL", "localhost:11434", "must be an http:// or https:// address"),
    ("OPENROUTER_BASE_URL", "ftp://example.com", "must be an http:// or https:// address"),
    ("LLM_FALLBACKS", "LOCAL", "must be PROVIDER:model"),
    ("DEFAULT_LLM_PROVIDER", "ELSEWHERE", "must be one of LOCAL"),
    ("DEFAULT_LLM_MODEL", "x" * 101, "must be at most 100 characters"),
    ("SESSION_TITLES", "yes", "must be one of off, words"),
    ("MODEL_CONTEXT_TOKENS", "LOCAL:tiny", "must be PROVIDER:model"),
    ("MODEL_CONTEXT_TOKENS", "LOCAL:tiny=255", "must be PROVIDER:model=tokens"),
    ("MODEL_CONTEXT_TOKENS", "tiny=8192", "must be PROVIDER:model"),
    ("QUOTA_TOKENS_PER_DAY", "-1", "must be a whole number from 0"),
    ("LLM_FALLBACKS", "LOCAL:a,:b", "must be PROVIDER:model"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), WRONG)
def test_a_wrong_value_is_a_sentence_that_names_it(name: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment(DEV | {name: value})

    assert str(caught.value).startswith(f"{name} {sentence}")
    assert str(caught.value).endswith(".")


def test_every_numeric_setting_refuses_a_word() -> None:
    numeric = [field.name.upper() for field in dataclasses.fields(Settings) if isinstance(field.default, (int, float))]

    for name in numeric:
        with pytest.raises(ConfigError, match=f"^{name} must be"):
            Settings.from_environment(DEV | {name: "many"})


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment(DEV | {"PORT": "x", "LOG_LEVEL": "y"})

    assert {"PORT", "LOG_LEVEL"} <= set(str(caught.value).split())


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "set JWT_SECRET"),
        ({"AUTH_MODE": "jwt", "JWT_SECRET": "short"}, "32 bytes or longer"),
        (DEV | {"DYNO": "web.1"}, "disk does not last"),
        (DEV | {"BROKER_URL": "redis://h"}, "BROKER_URL is not used: set CELERY_BROKER_URL"),
        (DEV | {"CELERY_BROKER_READ_URL": "redis://h"}, "CELERY_BROKER_READ_URL is not used"),
        (DEV | {"CELERY_BROKER_WRITE_URL": "redis://h"}, "CELERY_BROKER_WRITE_URL is not used"),
        (DEV | {"LEASE_SECONDS": "6", "HEARTBEAT_SECONDS": "3"}, "more than twice HEARTBEAT_SECONDS"),
    ],
)
def test_what_does_not_fit_together_is_refused(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Settings.from_environment(environ)


def test_empty_and_blank_mean_not_set() -> None:
    assert Settings.from_environment(DEV | {"PORT": "  ", "HOST": ""}) == Settings.from_environment(DEV)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_is_understood(scheme: str) -> None:
    settings = Settings.from_environment(DEV | {"DATABASE_URL": f"{scheme}://u:p@host:5/chat?sslmode=require"})

    assert settings.database_url == "postgresql+psycopg://u:p@host:5/chat?sslmode=require"


def test_what_depends_on_the_database_follows_it() -> None:
    small = Settings.from_environment(DEV)
    large = Settings.from_environment(DEV | {"DATABASE_URL": "postgres://host/chat"})

    assert (small.socket_limit, large.socket_limit) == (500, 5000)
    assert Settings.from_environment(DEV | {"MAX_SOCKETS": "7"}).socket_limit == 7


def test_dev_mode_binds_loopback_and_jwt_mode_every_interface() -> None:
    jwt = Settings.from_environment({"JWT_SECRET": SECRET})

    assert (Settings.from_environment(DEV).bind_host, jwt.bind_host) == ("127.0.0.1", "0.0.0.0")


def test_tls_to_redis_is_checked_unless_said_otherwise() -> None:
    rediss = DEV | {"REDIS_URL": "rediss://:p@host:6380/1"}
    checked = Settings.from_environment(rediss)
    unchecked = Settings.from_environment(rediss | {"REDIS_SSL_CERT_REQS": "none"})

    assert checked.live_redis_url == checked.broker_url == "rediss://:p@host:6380/1?ssl_cert_reqs=required"
    assert unchecked.broker_url.endswith("?ssl_cert_reqs=none")


@pytest.mark.parametrize("written", ["ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=cert_none", "SSL_CERT_REQS=None"])
def test_tls_parameters_are_written_as_all_libraries_read_them(written: str) -> None:
    address = f"rediss://:p@host:6380?{written}"

    settings = Settings.from_environment(DEV | {"REDIS_URL": address, "CELERY_BROKER_URL": f"rediss://h;{address}"})

    assert settings.live_redis_url == "rediss://:p@host:6380?ssl_cert_reqs=none"
    assert settings.broker_url == "rediss://h?ssl_cert_reqs=required;rediss://:p@host:6380?ssl_cert_reqs=none"


@pytest.mark.parametrize(("text", "on"), [("on", True), ("TRUE", True), ("1", True), ("off", False), ("", False)])
def test_remote_control_is_off_unless_switched_on(text: str, on: bool) -> None:
    assert Settings.from_environment(DEV | {"CELERY_REMOTE_CONTROL": text}).celery_remote_control is on


def test_origins_are_written_as_browsers_send_them() -> None:
    given = (
        "https://Chat.Example.com/, https://b.example:443, http://c.example:8080, https://чат.рф, http://[::1]:3000, "
        "capacitor://localhost, tauri://localhost, ionic://localhost, chrome-extension://abcdefghijklmnop, "
        "moz-extension://1b2c-3d, app://-"
    )

    settings = Settings.from_environment(DEV | {"ALLOWED_ORIGINS": given})

    assert settings.allowed_origins == (
        *("https://chat.example.com", "https://b.example", "http://c.example:8080", "https://xn--80a0bn.xn--p1ai"),
        *("http://[::1]:3000", "capacitor://localhost", "tauri://localhost", "ionic://localhost"),
        *("chrome-extension://abcdefghijklmnop", "moz-extension://1b2c-3d", "app://-"),
    )


def test_an_explicit_broker_wins_over_redis() -> None:
    settings = Settings.from_environment(DEV | {"CELERY_BROKER_URL": "amqp://host//"})

    assert settings.broker_url == "amqp://host//"


def test_secrets_are_not_shown() -> None:
    secret = {"JWT_SECRET": SECRET, "REDIS_URL": "redis://:hidden@h", "LOCAL_LLM_API_KEY": "hidden"}
    secret |= {f"{name}_BASE_URL": "https://user:hidden@h/v1" for name in ("LOCAL_LLM", "OPENROUTER", "OPENAI")}

    shown = repr(Settings.from_environment(secret))

    assert SECRET not in shown
    assert "hidden" not in shown


def test_the_table_has_a_row_for_every_setting() -> None:
    rows = settings_table().splitlines()[2:]

    assert [row.split("`")[1].lower() for row in rows] == [field.name for field in dataclasses.fields(Settings)]


@pytest.mark.parametrize("alone", [{"DEFAULT_LLM_PROVIDER": "LOCAL"}, {"DEFAULT_LLM_MODEL": "tiny"}])
def test_half_a_default_model_is_refused(alone: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="DEFAULT_LLM_PROVIDER and DEFAULT_LLM_MODEL must be set together"):
        Settings.from_environment(DEV | alone)


def test_what_models_can_take_is_read_by_their_names() -> None:
    settings = Settings.from_environment(DEV | {"MODEL_CONTEXT_TOKENS": "LOCAL:a:7b=4096, OPENROUTER:x/y=128000"})

    assert settings.context.windows == {"LOCAL:a:7b": 4096, "OPENROUTER:x/y": 128000}


def test_how_many_replies_one_user_may_have_unfinished_is_limited_in_jwt_mode_and_elsewhere_where_set() -> None:
    key = {"JWT_SECRET": "s" * 32}
    given = {"MAX_JOBS_PER_USER": "7"}

    limits = [Settings.from_environment(environ).jobs_of_user for environ in (DEV, DEV | given, key, key | given)]

    assert limits == [0, 7, 300, 7]
