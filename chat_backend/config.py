"""Settings: the only reader of the environment.

Every setting is one field: its name in lower case is the variable in upper case, its metadata
says what it means and how its text is read. ``docs/settings.md`` is made from this file.
"""

from __future__ import annotations

import dataclasses
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from chat_backend.domain.enums import PROVIDERS, Titles
from chat_backend.domain.limits import MODEL_CHARACTERS
from chat_backend.domain.model_reference import read_model_reference
from chat_backend.domain.prompt import ContextLimits
from chat_backend.domain.provider_address import provider_address
from chat_backend.domain.quota import Backlog, Quota

DEV_USER = "anonymous"
PASSWORD_CHARACTERS = 12


# Celery reads these itself. A worker would then use another broker than the web process, or not verify its certificate.
_BROKER_VARIABLES = ("BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


class ConfigError(Exception):
    """A setting can't be used; the message is the sentence an operator needs."""


def _text(value: str) -> str:
    return value


def _int(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"-?\d{1,12}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return read


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", value) or not low <= float(value) <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return float(value)

    return read


def _choice(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return read


def _list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _origins(value: str) -> tuple[str, ...]:
    return tuple(_origin(origin) for origin in _list(value))


def _origin(value: str) -> str:
    """Return an origin as browsers send it: in lower case, the host as ASCII, without its scheme's own port."""
    found = _ORIGIN.fullmatch(value.lower())
    if found is None:
        raise ValueError(
            "must be a comma-separated list of origins, each a scheme and a host without a path, like "
            "https://chat.example.com or capacitor://localhost"
        )
    scheme, host, port = found.groups()
    host = host if host.isascii() else host.encode("idna").decode()
    return f"{scheme}://{host}" + ("" if port in (None, _OWN_PORTS.get(scheme)) else f":{port}")


_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@:*\[\]]+)(?::(\d{1,5}))?/?")
_OWN_PORTS = {"http": "80", "https": "443"}


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", value):
        raise ValueError("must be an address or a name, like 0.0.0.0 or ::1")
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    return value.rstrip("/")


def _certificates(value: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
    except OSError as error:
        # An SSLError is an OSError too, with numbers of its own.
        why = "no PEM certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"must be a file of certificates in PEM format that can be read ({why})") from None
    return value


def _database_url(value: str) -> str:
    if value.startswith("sqlite:"):
        if value in ("sqlite://", "sqlite:///") or ":memory:" in value:
            raise ValueError("must name a file: web and worker can't share a database in memory")
        return value
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise ValueError("must be a postgresql:// or sqlite:/// address")
    return f"postgresql+psycopg://{rest}"


def _redis_url(value: str) -> str:
    """Return a Redis URL whose TLS parameters are written as redis-py and kombu both read them.

    Neither library accepts all spellings of the other, and kombu takes some of them for "do not verify".
    """
    parts = urlsplit(value)
    if parts.scheme not in {"redis", "rediss"}:
        raise ValueError("must be a redis:// or rediss:// address")
    options = {name.lower(): text for name, text in parse_qsl(parts.query, keep_blank_values=True)}
    if unknown := options.keys() - _TLS_OPTIONS.keys():
        raise ValueError(f"has the unknown parameter {min(unknown)}: known are {', '.join(_TLS_OPTIONS)}")
    if options and parts.scheme == "redis":
        raise ValueError("has TLS parameters, but redis:// is not TLS: write rediss://")
    for name, text in options.items():
        try:
            options[name] = _TLS_OPTIONS[name](text)
        except ValueError as error:
            raise ValueError(f"has the parameter {name}, which {error}") from None
    return urlunsplit(parts._replace(query=urlencode(options)))


def _cert_reqs(value: str) -> str:
    found = value.lower().removeprefix("cert_")
    if found not in {"required", "none"}:
        raise ValueError("must be one of required, none")
    return found


def _true_or_false(value: str) -> str:
    if value.lower() not in {"true", "false"}:
        raise ValueError("must be true or false")
    return value.lower()


def _file(value: str) -> str:
    if not Path(value).is_file():
        raise ValueError("must name a file that exists")
    return value


_TLS_OPTIONS: dict[str, Callable[[str], str]] = {
    "ssl_cert_reqs": _cert_reqs,
    "ssl_check_hostname": _true_or_false,
    "ssl_ca_certs": _certificates,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
}


def _model_references(value: str) -> tuple[str, ...]:
    references = _list(value)
    for reference in references:
        read_model_reference(reference)
    return references


def _model(value: str) -> str:
    if len(value) > MODEL_CHARACTERS:
        raise ValueError(f"must be at most {MODEL_CHARACTERS} characters")
    return value


def _windows(value: str) -> tuple[tuple[str, int], ...]:
    return tuple(_window(entry) for entry in _list(value))


def _window(entry: str) -> tuple[str, int]:
    reference, _, size = entry.rpartition("=")
    read_model_reference(reference)
    if not re.fullmatch(r"\d{3,8}", size) or int(size) < 256:
        raise ValueError("must be PROVIDER:model=tokens, comma-separated, at least 256 tokens each")
    return reference, int(size)


def _logins(value: str) -> str:
    for login in value.split(","):
        user, _, password = login.partition(":")
        if not user or len(password) < PASSWORD_CHARACTERS:
            raise ValueError(f"must be user:password, with a password of {PASSWORD_CHARACTERS} characters or more")
    return value


def _broker_url(value: str) -> str:
    return ";".join(_one_broker_url(url) for url in value.split(";"))  # kombu tries them in turn


def _one_broker_url(value: str) -> str:
    if "://" not in value:
        raise ValueError("must be a broker's address, like redis:// or amqp://")
    return _redis_url(value) if urlsplit(value).scheme in {"redis", "rediss"} else value


def _switch(value: str) -> bool:
    if value.lower() not in _SWITCH:
        raise ValueError("must be on or off")
    return _SWITCH[value.lower()]


_SWITCH = {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}


def setting(default: Any, doc: str, read: Callable[[str], Any] = _text, *, secret: bool = False) -> Any:
    """Declare one setting: its default, what it means, and how its text is read."""
    metadata = {"doc": doc, "read": read, "secret": secret}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that an operator may set, read once, checked at the start."""

    # Parts
    database_url: str = setting(
        "sqlite:///var/chat.db", "The database: PostgreSQL, or SQLite for one machine.", _database_url, secret=True
    )
    redis_url: str = setting(
        "redis://127.0.0.1:6379/0",
        "Redis for what is live and may be lost; `rediss://` for TLS.",
        _redis_url,
        secret=True,
    )
    redis_ssl_cert_reqs: str = setting(
        "required",
        "`none` accepts any certificate of a `rediss://` server, as a platform's self-signed one; like "
        "`?ssl_cert_reqs=none` in the address, for Redis and broker.",
        _cert_reqs,
    )
    redis_ca_file: str = setting(
        "", "Certificate authority of `rediss://` servers, a PEM file; empty: those of the system.", _certificates
    )
    celery_broker_url: str = setting("", "Another broker for wake-ups; empty: `REDIS_URL`.", _broker_url, secret=True)
    celery_remote_control: bool = setting(
        False,
        "`on`: workers obey Celery's remote control, with which anyone who can write to the broker can end them; "
        "Flower shows more of them.",
        _switch,
    )
    sqlite_synchronous: str = setting(
        "FULL",
        "When SQLite waits for the disk. `FULL`: at every commit. `NORMAL`: faster, but the last commits are lost if "
        "the machine loses power. `EXTRA`: also when a journal is deleted.",
        _choice("FULL", "NORMAL", "EXTRA"),
    )
    database_pool_size: int = setting(
        0, "Database connections a process keeps; 0: 20 in a worker and 20 in a web process.", _int(0, 500)
    )

    # Web
    host: str = setting("", "Address to bind; empty: loopback in `dev` mode, every interface in `jwt` mode.", _host)
    port: int = setting(8000, "Port of the web process.", _int(1, 65535))
    web_concurrency: int = setting(1, "Web processes that share the port, as gunicorn reads it.", _int(1, 1000))
    max_sockets: int = setting(
        0, "Open sockets and SSE streams a web process holds; 0: 500 on SQLite, 5,000 on PostgreSQL.", _int(0, 100_000)
    )
    max_connections_per_user: int = setting(
        1000, "Open connections a user may have, over all sessions.", _int(1, 100_000)
    )
    max_connections_per_session: int = setting(10, "Open connections a user may have in one session.", _int(1, 10_000))
    max_waiting_requests: int = setting(
        64,
        "Requests that may wait for a reply in one web process, in `jwt` mode a quarter of them of one user; one more "
        "is answered 202 at once.",
        _int(0, 10_000),
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        "Origins of browser pages that may call, comma-separated: `https://chat.example.com`, also those of apps and "
        "extensions, like `capacitor://localhost`; same origin always may.",
        _origins,
    )
    trusted_proxies: int = setting(0, "Proxies in front whose `X-Forwarded-*` headers are believed.", _int(0, 10))

    # How much one may ask
    rate_limit_per_user: int | None = setting(
        None,
        "Requests a minute of one user, sockets included, as many at once; 0: any number; empty: 1,200 in `jwt` mode.",
        _int(0, 10_000_000),
    )
    rate_limit_per_address: int | None = setting(
        None,
        "The same of one address (IPv6: of its /64), whoever asks; 0: any number; empty: 6,000 in `jwt` mode.",
        _int(0, 10_000_000),
    )
    rate_limit_asks_per_user: int | None = setting(
        None,
        "Replies that one user may ask for a minute, over REST and sockets; 0: any number; empty: 600 in `jwt` mode.",
        _int(0, 10_000_000),
    )
    max_jobs_per_user: int | None = setting(
        None,
        "Replies of one user that are written or wait at once; 0: any number; empty: 300 in `jwt` mode.",
        _int(0, 10_000_000),
    )
    max_queued_jobs: int = setting(
        0,
        "Replies that wait in the whole deployment; beyond, asking is answered 503; 0: any number.",
        _int(0, 10_000_000),
    )
    max_requests_at_once: int | None = setting(
        None,
        "Requests of one user that a web process works at, others wait in line; 0: any number; empty: 2 in `jwt` mode.",
        _int(0, 10_000),
    )
    refused_seconds: float = setting(
        0.1, "How long a request over its user's rate is held before it is answered 429.", _seconds(0, 5)
    )
    frames_per_second: int = setting(
        20, "Frames a second that a socket may send, with 8 KiB for each; twice as many at once.", _int(1, 10_000)
    )
    max_sessions_per_user: int = setting(
        10_000, "Chat sessions that one user may own; 0: no limit.", _int(0, 10_000_000)
    )
    max_memberships_per_user: int = setting(
        10_000,
        "Chat sessions of others that one user may be added to; 0: no limit. A user can always leave them.",
        _int(0, 10_000_000),
    )
    max_participants: int = setting(1000, "Participants of one chat session.", _int(1, 100_000))

    # Who is asking
    auth_mode: str = setting(
        "jwt", "`jwt`, or `dev` (trusts `X-User-ID`; for one's own machine).", _choice("jwt", "dev")
    )
    jwt_secret: str = setting("", "HS256 key, 32 bytes or more.", secret=True)
    jwt_jwks_url: str = setting("", "Where the keys of RS256 and ES256 tokens are published.", _http_url)
    jwt_issuer: str = setting("", "Required `iss` of tokens, where set.")
    jwt_audience: str = setting("", "Required `aud` of tokens, where set.")

    # Providers
    # Secret too: an address may carry user and password.
    local_llm_base_url: str = setting(
        "http://localhost:11434/v1", "Provider LOCAL: any OpenAI-compatible server.", provider_address, secret=True
    )
    local_llm_api_key: str = setting("", "Key for LOCAL, where it wants one.", secret=True)
    local_llm_ca_file: str = setting(
        "",
        "PEM file of private certificate authorities that are trusted for LOCAL, beside the public ones.",
        _certificates,
    )
    openrouter_base_url: str = setting(
        "https://openrouter.ai/api/v1", "Provider OPENROUTER.", provider_address, secret=True
    )
    openrouter_api_key: str = setting("", "Key for OPENROUTER; without it the provider is not configured.", secret=True)
    openrouter_ca_file: str = setting("", "As `LOCAL_LLM_CA_FILE`, for OPENROUTER.", _certificates)
    openai_base_url: str = setting(
        "https://api.openai.com/v1",
        "Provider OPENAI: OpenAI, or a service that speaks as it does.",
        provider_address,
        secret=True,
    )
    openai_api_key: str = setting("", "Key for OPENAI; without it the provider is not configured.", secret=True)
    openai_ca_file: str = setting("", "As `LOCAL_LLM_CA_FILE`, for OPENAI.", _certificates)
    ssl_cert_file: str = setting(
        "", "As `LOCAL_LLM_CA_FILE`, for every provider without a file of its own.", _certificates
    )
    app_url: str = setting("", "Address of your app, told to OPENROUTER as `HTTP-Referer`.", _http_url)
    app_title: str = setting("chat_backend", "Name of your app, told to OPENROUTER.")
    llm_fallbacks: tuple[str, ...] = setting(
        (), "What to ask when a session's own model fails: `PROVIDER:model`, comma-separated.", _model_references
    )
    provider_models_seconds: float = setting(
        300.0, "How long a provider's list of models is kept before it is asked for again.", _seconds(1, 86400)
    )
    default_llm_provider: str = setting(
        "", "Provider of a new chat session that names none; empty: it has to.", _choice(*PROVIDERS)
    )
    default_llm_model: str = setting("", "Model of a new chat session that names none; with the provider.", _model)
    session_titles: str = setting(
        "off",
        "Title of a session without one after its first exchange: `off`, first `words`, or by the `model`.",
        _choice(*Titles),
    )
    context_tokens: int = setting(
        8192, "How many tokens of a conversation are sent, unless a session says otherwise.", _int(256, 2_000_000)
    )
    model_context_tokens: tuple[tuple[str, int], ...] = setting(
        (), "What models can take, prompt and reply together: `PROVIDER:model=tokens`, comma-separated.", _windows
    )
    context_summary: str = setting(
        "off",
        "`on`: what no longer fits a prompt is summed up by the model itself, in a call more.",
        _choice("off", "on"),
    )
    llm_connect_timeout_seconds: float = setting(5.0, "Limit for connecting to a provider.", _seconds(0.1, 60))
    llm_first_token_timeout_seconds: float = setting(
        300.0,
        "Limit for silence before the first token, twice as long when tried again after a timeout; keep-alives count.",
        _seconds(0.1, 600),
    )
    llm_token_timeout_seconds: float = setting(
        30.0, "Limit for silence between two tokens; keep-alives and reasoning count.", _seconds(0.1, 600)
    )
    llm_total_timeout_seconds: float = setting(600.0, "Limit for a whole reply.", _seconds(0.1, 7200))
    llm_max_attempts: int = setting(3, "Failed attempts at one provider before the next, or the end.", _int(1, 20))
    llm_backoff_base_seconds: float = setting(1.0, "First step of the backoff between attempts.", _seconds(0.001, 60))
    llm_backoff_cap_seconds: float = setting(20.0, "Longest backoff between attempts.", _seconds(0.001, 600))
    breaker_failures: int = setting(
        5,
        "Failures in a row, of at least two jobs, that open a provider's circuit breaker; for everyone only if "
        "they are of two users.",
        _int(1, 1000),
    )
    breaker_open_seconds: float = setting(30.0, "How long an open circuit breaker refuses.", _seconds(0.1, 3600))

    # Workers
    worker_concurrency: int = setting(
        300,
        "Replies that one worker process carries at once; half as many more for users none of whose replies is being "
        "written.",
        _int(1, 2000),
    )
    lease_seconds: float = setting(15.0, "How long a claim holds without a heartbeat.", _seconds(0.5, 600))
    heartbeat_seconds: float = setting(3.0, "Interval of a worker's heartbeat.", _seconds(0.05, 120))
    sweep_seconds: float = setting(3.0, "Interval of each worker's sweep.", _seconds(0.05, 120))
    forgotten_seconds: float = setting(
        5.0, "How long a due job may wait for its wake-up before the sweep takes it.", _seconds(0.05, 600)
    )
    drain_seconds: float = setting(10.0, "How long a terminated worker lets replies run on.", _seconds(0, 20))
    checkpoint_seconds: float = setting(
        0.5, "Interval at which running text is written to the database.", _seconds(0.02, 30)
    )
    max_abandoned_attempts: int = setting(3, "Workers a job may lose before it fails.", _int(1, 20))
    job_expiry_seconds: float = setting(86400.0, "A job not started within this fails.", _seconds(1, 604800))

    # Live delivery
    catch_up_seconds: float = setting(
        # What was lost shows at the second look, and a durable event has five seconds.
        2.0,
        "Interval at which a web process compares its viewers with the database.",
        _seconds(0.05, 2.4),
    )
    ping_seconds: float = setting(25.0, "Interval of protocol pings and SSE comments.", _seconds(0.05, 55))
    send_timeout_seconds: float = setting(
        10.0, "How long a viewer may not read before it is closed.", _seconds(0.1, 120)
    )
    outbox_bytes: int = setting(4_194_304, "What may wait to be sent to one viewer.", _int(1_048_576, 268_435_456))
    presence_seconds: float = setting(
        60.0, "How long the viewers of a killed web process still count as present.", _seconds(3, 3600)
    )
    typing_seconds: float = setting(6.0, "How long a typing indicator lasts.", _seconds(0.1, 60))
    event_retention_seconds: float = setting(86400.0, "How long events can be replayed.", _seconds(1, 31_536_000))

    # Limits that a deployment may want to move
    quota_requests_per_day: int = setting(
        0, "Replies that a user may ask for in a day (UTC); 0: no quota.", _int(0, 1_000_000_000)
    )
    quota_tokens_per_day: int = setting(
        0, "Tokens, of prompts and replies, that a user may use in a day (UTC); 0: no quota.", _int(0, 1_000_000_000)
    )
    quota_reply_tokens: int = setting(
        4096,
        "Where tokens have a quota: how many a reply may have that names no `max_tokens`, and how many are reserved.",
        _int(1, 1_000_000),
    )
    max_storage_bytes_per_user: int = setting(
        1_073_741_824, "Bytes of messages that one user may store; 0: no quota.", _int(0, 1_000_000_000_000_000)
    )
    idempotency_retention_seconds: float = setting(
        86400.0, "How long idempotency keys are kept.", _seconds(1, 2_592_000)
    )
    audit_days: int = setting(90, "How long is kept who changed what in a session.", _int(1, 36_500))
    ticket_seconds: float = setting(30.0, "How long a WebSocket ticket is good.", _seconds(1, 300))

    # Running
    log_level: str = setting("INFO", "Least level that is logged.", _choice("DEBUG", "INFO", "WARNING", "ERROR"))
    flower_port: int = setting(5555, "Port of Flower, bound to loopback.", _int(1, 65535))
    flower_url: str = setting(
        "",
        "Address of Flower for the page's link, told to everyone; empty: in `dev` mode its port here, else no link.",
        _http_url,
    )
    flower_basic_auth: str = setting(
        "",
        "Who may see Flower: `user:password`, comma-separated; in `jwt` mode nobody unless set.",
        _logins,
        secret=True,
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, *, serves: bool = True) -> Settings:
        """Read and check every setting; who serves nobody needs no key to tell people apart.

        Raises ConfigError with one sentence per wrong value.
        """
        environ = os.environ if environ is None else environ
        values, wrong = {}, []
        for field in dataclasses.fields(cls):
            text = environ.get(field.name.upper(), "").strip()
            if text:
                try:
                    values[field.name] = field.metadata["read"](text)
                except ValueError as error:
                    wrong.append(f"{field.name.upper()} {error}.")
        if wrong:
            raise ConfigError(" ".join(wrong))
        settings = cls(**values)
        settings.check(environ, serves=serves)
        return settings

    def check(self, environ: Mapping[str, str], *, serves: bool = True) -> None:
        """Refuse what each value alone can't tell. Raises ConfigError."""
        if serves and self.auth_mode == "jwt" and not (self.jwt_secret or self.jwt_jwks_url):
            raise ConfigError(
                "AUTH_MODE is jwt, but there is no key: set JWT_SECRET (32 bytes or more) or JWT_JWKS_URL, "
                "or AUTH_MODE=dev on your own machine."
            )
        if self.jwt_secret and len(self.jwt_secret.encode()) < 32:
            raise ConfigError("JWT_SECRET must be 32 bytes or longer.")
        if serves and (ignored := [name for name in _BROKER_VARIABLES if environ.get(name, "").strip()]):
            raise ConfigError(f"{ignored[0]} is not used: set CELERY_BROKER_URL, which all processes read.")
        if self.is_sqlite and "DYNO" in environ:
            raise ConfigError("DATABASE_URL is SQLite, but this platform's disk does not last: attach a PostgreSQL.")
        if bool(self.default_llm_provider) != bool(self.default_llm_model):
            raise ConfigError("DEFAULT_LLM_PROVIDER and DEFAULT_LLM_MODEL must be set together.")
        if self.heartbeat_seconds * 2 >= self.lease_seconds:
            raise ConfigError("LEASE_SECONDS must be more than twice HEARTBEAT_SECONDS.")

    @property
    def is_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite:")

    @property
    def is_threaded(self) -> bool:
        """Whether who waits in a web process holds one of its few threads; else there are greenlets, as many as needed.

        They would yield inside SQLite's writes.
        """
        return self.is_sqlite

    @property
    def is_dev(self) -> bool:
        return self.auth_mode == "dev"

    @property
    def broker_url(self) -> str:
        """The broker's address, with the TLS check spelled out: kombu does not verify unless told to."""
        return ";".join(self._with_tls(url) for url in (self.celery_broker_url or self.redis_url).split(";"))

    @property
    def live_redis_url(self) -> str:
        return self._with_tls(self.redis_url)

    @property
    def socket_limit(self) -> int:
        return self.max_sockets or (500 if self.is_threaded else 5000)

    @property
    def requests_per_user(self) -> int:
        return self._in_jwt_mode(self.rate_limit_per_user, 1200)

    @property
    def requests_per_address(self) -> int:
        return self._in_jwt_mode(self.rate_limit_per_address, 6000)

    @property
    def asks_per_user(self) -> int:
        return self._in_jwt_mode(self.rate_limit_asks_per_user, 600)

    @property
    def jobs_of_user(self) -> int:
        return self._in_jwt_mode(self.max_jobs_per_user, 300)

    @property
    def requests_at_once(self) -> int:
        return self._in_jwt_mode(self.max_requests_at_once, 2)

    @property
    def reserved_places(self) -> int:
        """Places of a worker beyond `worker_concurrency`, for users none of whose replies is being written."""
        return (self.worker_concurrency + 1) // 2

    @property
    def worker_threads(self) -> int:
        return self.worker_concurrency + self.reserved_places

    def _in_jwt_mode(self, given: int | None, default: int) -> int:
        """Return a limit: the one given, else in jwt mode the default; 0 is none."""
        return given if given is not None else 0 if self.is_dev else default

    @property
    def sums_up(self) -> bool:
        return self.context_summary == "on"

    @property
    def context(self) -> ContextLimits:
        return ContextLimits(self.context_tokens, dict(self.model_context_tokens))

    @property
    def quota(self) -> Quota:
        return Quota(
            requests=self.quota_requests_per_day,
            tokens=self.quota_tokens_per_day,
            reply_tokens=self.quota_reply_tokens,
            context=self.context,
            summed_up=self.sums_up,
            backlog=Backlog(self.jobs_of_user, self.max_queued_jobs),
        )

    @property
    def patience_seconds(self) -> float:
        """How long workers may take to find what was forgotten: two sweeps and what a wake-up may take."""
        return self.forgotten_seconds + 2 * self.sweep_seconds

    def is_configured(self, provider: str) -> bool:
        """Whether a provider can be asked: LOCAL has an address by default, every other one needs its key."""
        return provider == "LOCAL" or bool(getattr(self, f"{provider.lower()}_api_key"))

    def ca_file_of(self, provider: str) -> str:
        """Return the file of certificates that a provider's server may have beside public ones; empty: none."""
        name = "local_llm" if provider == "LOCAL" else provider.lower()
        return getattr(self, f"{name}_ca_file") or self.ssl_cert_file

    @property
    def bind_host(self) -> str:
        return self.host or ("127.0.0.1" if self.is_dev else "0.0.0.0")  # noqa: S104 - a platform's router is outside

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can reach the web process."""
        try:
            return self.bind_host == "localhost" or ip_address(self.bind_host).is_loopback
        except ValueError:
            return False

    def _with_tls(self, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "rediss":
            return url
        options = {"ssl_cert_reqs": self.redis_ssl_cert_reqs} | dict(parse_qsl(parts.query))
        if self.redis_ca_file and options["ssl_cert_reqs"] != "none":
            options = {"ssl_ca_certs": self.redis_ca_file} | options
        return urlunsplit(parts._replace(query=urlencode(options)))


def settings_table() -> str:
    """Render every setting as a Markdown table, for docs/settings.md."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(Settings):
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        default = "off" if default is False else default
        shown = (
            f"`{default:g}`" if isinstance(default, float) else (f"`{default}`" if default not in ("", None) else "")
        )
        rows.append(f"| `{field.name.upper()}` | {shown} | {field.metadata['doc']} |")
    return "\n".join(rows) + "\n"
