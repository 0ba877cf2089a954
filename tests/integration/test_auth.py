"""Who is asking: tokens that are good, and every way in which they are not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Event, Thread
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from flask import Flask, request

from chat_backend.config import Settings
from chat_backend.domain.errors import ErrorCode, Unauthenticated, Unavailable
from chat_backend.web.auth import identify_stream
from chat_backend.web.key_address import MOST_BYTES
from chat_backend.web.tokens import MOST_WAITING, Tokens
from tests.integration.conftest import JWT_AUDIENCE, JWT_ISSUER
from tests.support.rest import Rest
from tests.support.tokens import KEY
from tests.support.waiting import wait_until

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
FOREIGN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims, changed; None takes one out."""
    good = {"sub": "ann", "exp": in_seconds(600), "iss": JWT_ISSUER, "aud": JWT_AUDIENCE}
    return {name: value for name, value in (good | changes).items() if value is not None}


def in_seconds(seconds: int) -> int:
    return int(time.time()) + seconds


def token(key: Any = KEY, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def forged(header: dict[str, Any], payload: Any, signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, payload)]
    return ".".join([*parts, signature])


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def ask(app: Flask, authorization: str | None, path: str = "/stats") -> Any:
    return Rest(app, None).get(path, headers={"Authorization": authorization})


HEADER = {"alg": "HS256", "typ": "JWT"}
OTHER_TYPES = (
    "id_token",
    "refresh",
    "logout+jwt",
    "dpop+jwt",
    "secevent+jwt",
    "application/logout+jwt",
    "",
    5,
    ["JWT"],
)


def _of_type(typ: Any) -> Callable[[], str]:
    return lambda: f"Bearer {_signed({'alg': 'HS256', 'typ': typ}, claims())}"


def _signed(header: Any, payload: Any) -> str:
    text = forged(header, payload).rpartition(".")[0]
    signature = hmac.digest(KEY.encode(), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


# Made when they are used: times pass.
ATTACKS: dict[str, Callable[[], str | None]] = {
    "nothing": lambda: None,
    "empty": lambda: "Bearer ",
    "another scheme": lambda: f"Basic {token()}",
    "no scheme": lambda: token(),
    "garbage": lambda: "Bearer x.y.z",
    "not three parts": lambda: "Bearer abc",
    "no algorithm": lambda: f"Bearer {forged({'alg': 'none'}, claims())}",
    "no algorithm, other case": lambda: f"Bearer {forged({'alg': 'nOnE'}, claims())}",
    "another HMAC": lambda: f"Bearer {token('x' * 64, 'HS512')}",
    "HS512 by the right secret": lambda: f"Bearer {token(KEY + 'x' * 64, 'HS512')}",
    "a wrong key": lambda: f"Bearer {token('another secret of more than 32 bytes')}",
    "RS256 where no keys are published": lambda: f"Bearer {token(RSA_KEY, 'RS256', {'kid': 'rsa'})}",
    "expired": lambda: f"Bearer {token(exp=in_seconds(-31))}",
    "not yet": lambda: f"Bearer {token(nbf=in_seconds(90))}",
    "issued in the future": lambda: f"Bearer {token(iat=in_seconds(90))}",
    "no exp": lambda: f"Bearer {token(exp=None)}",
    "no sub": lambda: f"Bearer {token(sub=None)}",
    "an empty sub": lambda: f"Bearer {token(sub='')}",
    "a number as sub": lambda: f"Bearer {forged({'alg': 'HS256'}, claims(sub=5))}",
    "a sub too long": lambda: f"Bearer {token(sub='x' * 256)}",
    "a sub with a line break": lambda: f"Bearer {token(sub='a' + chr(10))}",
    "a sub with NUL": lambda: f"Bearer {token(sub='a' + chr(0))}",
    "a lone surrogate as sub": lambda: f"Bearer {token(sub=chr(0xD800))}",
    "a wrong issuer": lambda: f"Bearer {token(iss='https://evil.example')}",
    "no issuer": lambda: f"Bearer {token(iss=None)}",
    "a wrong audience": lambda: f"Bearer {token(aud='other')}",
    "no audience": lambda: f"Bearer {token(aud=None)}",
    "a sub with a space behind": lambda: f"Bearer {token(sub='ann ')}",
    "a sub that is not NFC": lambda: f"Bearer {token(sub='Zoe' + chr(0x308))}",
    "a sub with a text direction": lambda: f"Bearer {token(sub=chr(0x202E) + 'ann')}",
    **{f"of type {typ}": _of_type(typ) for typ in OTHER_TYPES},
    "a refresh token of Keycloak": lambda: f"Bearer {token(typ='Refresh')}",
    "an ID token of Keycloak": lambda: f"Bearer {token(typ='ID')}",
    "an offline token of Keycloak": lambda: f"Bearer {token(typ='Offline')}",
    "a DPoP token of Keycloak": lambda: f"Bearer {token(typ='DPoP')}",
    "an ID token of Cognito": lambda: f"Bearer {token(token_use='id')}",
    "a refresh token of Simple JWT": lambda: f"Bearer {token(token_type='refresh')}",
    "a logout token": lambda: f"Bearer {token(events={'http://schemas.openid.net/event/backchannel-logout': {}})}",
    "truncated": lambda: f"Bearer {token()[:-3]}",
    "a changed payload": lambda: f"Bearer {forged(HEADER, claims(sub='eve'), token().rpartition('.')[2])}",
    "over 8 KB": lambda: f"Bearer {token(pad='x' * 8192)}",
    "a list as payload": lambda: f"Bearer {forged({'alg': 'HS256'}, [1])}",
    "a text as exp": lambda: f"Bearer {token(exp='soon')}",
    "a header that is a list": lambda: "Bearer W10.e30.",
    "deeply nested": lambda: f"Bearer {base64.urlsafe_b64encode(b'[' * 5000).decode()}.e30.",
    "a user id": lambda: "Bearer ann",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_token_that_is_not_good_is_refused_without_a_reason(jwt_app: Flask, attack: str) -> None:
    response = ask(jwt_app, ATTACKS[attack]())

    said = response.get_json()
    assert (response.status_code, said["error_code"]) == (401, "UNAUTHENTICATED")
    message = said["details"]["message"]
    assert message in ("The token is not valid.", "A bearer token is needed.") or "sub can't be used" in message
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "expired just now": lambda: {"exp": in_seconds(-20)},
    "good in a moment": lambda: {"nbf": in_seconds(20)},
    "good for ever": lambda: {"exp": 10**15},
    "for several": lambda: {"aud": [JWT_AUDIENCE, "other"]},
    "roles as text": lambda: {"roles": "admin"},
    "roles as an object": lambda: {"roles": {"admin": True}},
    "a long name": lambda: {"sub": "боб " * 60 + "и боб"},
    "an access token of Keycloak": lambda: {"typ": "Bearer"},
    "an access token of Cognito": lambda: {"token_use": "access"},
    "an access token of Simple JWT": lambda: {"token_type": "access"},
    "events that are no security events": lambda: {"events": ["a"]},
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_token_is_taken_with_half_a_minute_of_leeway(jwt_app: Flask, kind: str) -> None:
    response = ask(jwt_app, f"bearer {token(**GOOD[kind]())}")

    assert response.status_code == 200


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", None])
def test_an_access_token_may_say_so_or_not(jwt_app: Flask, typ: str | None) -> None:
    header = {"alg": "HS256"} | ({} if typ is None else {"typ": typ})

    response = ask(jwt_app, f"Bearer {_signed(header, claims())}")

    assert response.status_code == 200


def test_the_sub_is_the_user_and_a_header_is_not(jwt_app: Flask) -> None:
    headers = {"Authorization": f"Bearer {token(sub='bob')}"}
    made = Rest(jwt_app, "eve").post("/sessions", {"llm_provider": "LOCAL", "llm_model": "m"}, headers=headers)

    assert made.get_json()["user_id"] == "bob"


@pytest.mark.parametrize(("roles", "is_admin"), [(["admin"], True), (["x"], False), ("admin", False), (None, False)])
def test_the_role_admin_is_one_of_a_list(roles: Any, is_admin: bool) -> None:
    settings = Settings(jwt_secret=KEY)

    user = Tokens(settings).read(token(roles=roles))

    assert (user.id, user.is_admin) == ("ann", is_admin)


def test_a_user_ends_with_their_token() -> None:
    exp = in_seconds(60)

    user = Tokens(Settings(jwt_secret=KEY)).read(token(exp=exp))

    assert user.expires_at == datetime.fromtimestamp(exp, UTC)


def test_an_admin_sees_stats_over_everyone(jwt_app: Flask) -> None:
    headers = {"Authorization": f"Bearer {token(sub='bob')}"}
    Rest(jwt_app, None).post("/sessions", {"llm_provider": "LOCAL", "llm_model": "m"}, headers=headers)

    counts = [
        ask(jwt_app, f"Bearer {token(sub='ann', roles=roles)}").get_json()["total_sessions"]
        for roles in (["admin"], None)
    ]

    assert counts == [1, 0]


@pytest.mark.parametrize(
    ("given", "seen"), [(None, "anonymous"), ("ann", "ann"), ("боб", "боб"), ("a b", "a b"), ("x" * 255, "x" * 255)]
)
def test_in_dev_mode_a_header_is_believed(sqlite_rest: Rest, given: str | None, seen: str) -> None:
    user = None if given is None else given.encode().decode("latin-1")

    made = sqlite_rest.of(user).made("/sessions", {"llm_provider": "LOCAL", "llm_model": "m"})

    assert made["user_id"] == seen


@pytest.mark.parametrize(
    "user", ["", "x" * 256, "a\x1fb", "\x7f", "\xff\xfe", "a\u200bb".encode().decode("latin-1"), "a\xc2\xa0"]
)
def test_in_dev_mode_a_user_id_that_is_none_is_refused(sqlite_rest: Rest, user: str) -> None:
    response = sqlite_rest.of(user).get("/sessions")

    said = response.get_json()
    assert (response.status_code, said["error_code"]) == (401, "UNAUTHENTICATED")
    assert said["details"]["message"].startswith("A user id is 1 to 255 characters in Unicode's form NFC")


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/asyncapi.json"])
def test_some_may_be_asked_by_anyone(jwt_app: Flask, path: str) -> None:
    assert ask(jwt_app, None, path).status_code == 200


def identified(app: Flask, session_id: str, **args: str) -> str:
    with app.test_request_context(query_string=args):
        return identify_stream(request, UUID(session_id), app.extensions["backend"]).id


def test_a_stream_in_dev_mode_is_opened_by_user_id(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()

    users = [identified(sqlite_rest.app, session_id, **args) for args in ({"user_id": "боб"}, {})]

    assert users == ["боб", "anonymous"]


def test_a_ticket_opens_one_stream_to_one_session(jwt_app: Flask) -> None:
    ann = Rest(jwt_app, None)
    headers = {"Authorization": f"Bearer {token()}"}
    body = {"llm_provider": "LOCAL", "llm_model": "m"}
    session_id, other_id = (ann.post("/sessions", body, headers=headers).get_json()["id"] for _ in range(2))
    ticket = ann.post(f"/sessions/{session_id}/ws-ticket", headers=headers).get_json()["ticket"]

    with pytest.raises(Unauthenticated):
        identified(jwt_app, other_id, ticket=ticket)
    first = identified(jwt_app, session_id, ticket=ticket)

    assert first == "ann"
    with pytest.raises(Unauthenticated):
        identified(jwt_app, session_id, ticket=ticket)


@pytest.mark.parametrize("round", range(5))
def test_of_two_who_use_one_ticket_at_once_one_is_let_in(web_app: Flask, rest: Rest, round: int) -> None:
    session_id = rest.new_session()
    ticket = rest.made(f"/sessions/{session_id}/ws-ticket")["ticket"]
    line, let_in = Barrier(2), []

    def redeem() -> None:
        line.wait(5)
        with suppress(Unauthenticated):
            let_in.append(identified(web_app, session_id, ticket=ticket))

    threads = [Thread(target=redeem) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert let_in == ["ann"]


def test_a_wrong_ticket_waits_for_nobody_who_writes(sqlite_rest: Rest) -> None:
    session_id, backend = sqlite_rest.new_session(), sqlite_rest.app.extensions["backend"]

    with backend.unit_of_work():
        began = time.monotonic()
        with pytest.raises(Unauthenticated):
            identified(sqlite_rest.app, session_id, ticket="wrong")

    assert time.monotonic() - began < 2


@pytest.mark.parametrize("args", [{}, {"user_id": "ann"}, {"ticket": ""}, {"ticket": "x"}])
def test_a_stream_in_jwt_mode_is_not_opened_by_mere_words(jwt_app: Flask, args: dict[str, str]) -> None:
    session_id = "01890a5d-ac96-774b-bcce-b302099a8057"

    with pytest.raises(Unauthenticated):
        identified(jwt_app, session_id, **args)


class IdentityProvider:
    """A server that publishes keys and counts how often it is asked."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"rsa": RSA_KEY, "ec": EC_KEY}
        self.asked = 0
        self.away = False
        self.broken = b""
        self.drips = False
        self.hung_up = Event()
        self.answering = Event()
        self.answering.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                provider.answering.wait(10)
                with suppress(OSError):  # who has waited or read enough hangs up
                    self._break() if provider.broken else self._publish()

            def _publish(self) -> None:
                self.send_response(503 if provider.away else 200)
                self.end_headers()
                self.wfile.write(json.dumps(provider.document()).encode())

            def _break(self) -> None:
                try:
                    self.wfile.write(provider.broken)
                    while provider.drips and not provider.hung_up.wait(0.01):
                        self.wfile.write(b" ")
                finally:
                    provider.hung_up.set()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler

    def document(self) -> dict[str, Any]:
        kinds = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm, ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm}
        keys = []
        for kid, key in self.keys.items():
            kind = next(kinds[base] for base in kinds if isinstance(key, base))
            keys.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})
        return {"keys": keys}

    def close(self) -> None:
        self.hung_up.set()
        self._server.shutdown()
        self._server.server_close()


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider()
    yield provider
    provider.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(provider: IdentityProvider, clock: Clock) -> Tokens:
    return Tokens(Settings(jwt_secret=KEY, jwt_jwks_url=provider.url, jwt_audience=JWT_AUDIENCE), clock=clock)


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA_KEY, "RS256", "rsa"), (EC_KEY, "ES256", "ec")])
def test_a_token_by_a_published_key_is_taken(tokens: Tokens, key: Any, algorithm: str, kid: str) -> None:
    user = tokens.read(token(key, algorithm, {"kid": kid}))

    assert user.id == "ann"


UNTRUSTED: list[Callable[[], str]] = [
    lambda: token(FOREIGN_KEY, "RS256", {"kid": "rsa"}),
    lambda: token(RSA_KEY, "RS512", {"kid": "rsa"}),
    lambda: token(RSA_KEY, "PS256", {"kid": "rsa"}),
    lambda: token(EC_KEY, "ES256", {"kid": "rsa"}),
    lambda: token(RSA_KEY, "RS256"),
    lambda: token(RSA_KEY, "RS256", {"kid": "unknown"}),
    lambda: token(FOREIGN_KEY, "RS256", {"kid": "evil", "jku": "http://127.0.0.1:1/keys"}),
    lambda: forged({"alg": "HS256", "kid": "rsa"}, claims(), "AAAA"),
    lambda: forged({"alg": "none", "kid": "rsa"}, claims()),
]


@pytest.mark.parametrize("number", range(len(UNTRUSTED)))
def test_a_key_decides_its_algorithm_and_nothing_in_the_token_does(tokens: Tokens, number: int) -> None:
    bad = UNTRUSTED[number]()

    with pytest.raises(Unauthenticated):
        tokens.read(bad)


def test_a_public_key_is_no_secret(provider: IdentityProvider) -> None:
    tokens = Tokens(Settings(jwt_jwks_url=provider.url))
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"rsa"}').rstrip(b"=").decode()
    payload = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=").decode()
    signature = hmac.digest(public_pem(RSA_KEY), f"{header}.{payload}".encode(), hashlib.sha256)
    swapped = f"{header}.{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    with pytest.raises(Unauthenticated):
        tokens.read(swapped)


def test_keys_are_fetched_once_and_again_when_they_are_old(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
) -> None:
    good = token(RSA_KEY, "RS256", {"kid": "rsa"})
    counts = []

    for passed in (0, 100, 199, 1):
        clock.now += passed
        tokens.read(good)
        counts.append(provider.asked)

    assert counts == [1, 1, 1, 2]


def test_unknown_keys_make_us_ask_once_a_minute_at_most(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
) -> None:
    for number in range(20):
        with pytest.raises(Unauthenticated):
            tokens.read(token(FOREIGN_KEY, "RS256", {"kid": f"made-up-{number}"}))
    provider.keys["new"] = FOREIGN_KEY
    clock.now += 61

    user = tokens.read(token(FOREIGN_KEY, "RS256", {"kid": "new"}))

    assert (user.id, provider.asked) == ("ann", 2)


HURRIED_SECONDS = 0.3


@pytest.fixture
def hurried(provider: IdentityProvider) -> Tokens:
    """Tokens that give a fetch little time."""
    return Tokens(Settings(jwt_jwks_url=provider.url, jwt_audience=JWT_AUDIENCE), fetch_seconds=HURRIED_SECONDS)


@pytest.mark.parametrize(
    "begun",
    [b"", b"HTTP/1.1 200 OK\r\nX-Slow:", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"],
    ids=["from the start", "headers", "body"],
)
def test_an_address_that_drips_holds_nobody_up_and_is_hung_up_on(
    hurried: Tokens, provider: IdentityProvider, begun: bytes
) -> None:
    provider.broken, provider.drips = begun or b" ", True
    began = time.monotonic()

    with pytest.raises(Unavailable):
        hurried.read(token(RSA_KEY, "RS256", {"kid": "rsa"}))

    assert time.monotonic() - began < 3
    assert provider.hung_up.wait(5)


def test_what_is_longer_than_keys_can_be_is_not_read_to_its_end(tokens: Tokens, provider: IdentityProvider) -> None:
    provider.broken = b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(provider.document()).encode().ljust(MOST_BYTES + 1)

    with pytest.raises(Unavailable):
        tokens.read(token(RSA_KEY, "RS256", {"kid": "rsa"}))


def test_keys_as_long_as_may_be_are_read(tokens: Tokens, provider: IdentityProvider) -> None:
    provider.broken = b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(provider.document()).encode().ljust(MOST_BYTES)

    user = tokens.read(token(RSA_KEY, "RS256", {"kid": "rsa"}))

    assert user.id == "ann"


def test_while_an_address_hangs_known_keys_are_good_and_it_is_asked_again_later(
    provider: IdentityProvider, clock: Clock
) -> None:
    settings = Settings(jwt_jwks_url=provider.url, jwt_audience=JWT_AUDIENCE)
    tokens = Tokens(settings, fetch_seconds=HURRIED_SECONDS, clock=clock)
    good, new = token(RSA_KEY, "RS256", {"kid": "rsa"}), token(FOREIGN_KEY, "RS256", {"kid": "new"})
    tokens.read(good)
    provider.answering.clear()
    clock.now += 61

    for _ in range(3):
        with pytest.raises(Unauthenticated):
            tokens.read(new)
    asked, meanwhile = provider.asked, tokens.read(good).id
    provider.keys["new"] = FOREIGN_KEY
    provider.answering.set()
    clock.now += 61

    assert (tokens.read(new).id, meanwhile, asked) == ("ann", "ann", 2)


@pytest.mark.parametrize(("known", "answer"), [(True, Unauthenticated), (False, Unavailable)])
def test_of_a_flood_of_unknown_keys_only_a_few_wait_for_the_fetch_and_nobody_fetches_after_it(
    tokens: Tokens, provider: IdentityProvider, clock: Clock, known: bool, answer: type[Exception]
) -> None:
    if known:
        tokens.read(token(RSA_KEY, "RS256", {"kid": "rsa"}))
        clock.now += 61
    provider.answering.clear()
    provider.away = True
    began, refused = provider.asked, []

    def forge(number: int) -> None:
        with pytest.raises(answer):
            tokens.read(token(FOREIGN_KEY, "RS256", {"kid": f"made-up-{number}"}))
        refused.append(number)

    with ThreadPoolExecutor(40) as crowd:
        for number in range(40):
            crowd.submit(forge, number)
        # One fetches, so many wait for it.
        wait_until(lambda: len(refused) == 40 - 1 - MOST_WAITING, why="the others are answered at once")
        assert not known or tokens.read(token(RSA_KEY, "RS256", {"kid": "rsa"})).id == "ann"
        provider.answering.set()

    assert (len(refused), provider.asked - began) == (40, 1)


def test_who_waits_for_a_fetch_that_hangs_waits_no_longer_than_it_may_take(
    hurried: Tokens, provider: IdentityProvider
) -> None:
    provider.answering.clear()

    def wait(number: int) -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            hurried.read(token(FOREIGN_KEY, "RS256", {"kid": f"made-up-{number}"}))
        return time.monotonic() - began

    with ThreadPoolExecutor(MOST_WAITING) as crowd:
        waited = list(crowd.map(wait, range(MOST_WAITING)))
    provider.answering.set()

    assert max(waited) < 2
    assert provider.asked == 1


def test_whoever_comes_while_the_keys_are_fetched_waits_for_them(tokens: Tokens, provider: IdentityProvider) -> None:
    good, users = token(RSA_KEY, "RS256", {"kid": "rsa"}), []
    provider.answering.clear()
    threads = [Thread(target=lambda: users.append(tokens.read(good).id)) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: provider.asked, why="the keys are being fetched")
    threads[-1].join(0.2)  # who does not wait is refused by now
    provider.answering.set()

    for thread in threads:
        thread.join(5)

    assert (users, provider.asked) == (["ann"] * 5, 1)


def test_a_key_that_was_withdrawn_is_refused_when_what_we_know_is_old(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
) -> None:
    good = token(RSA_KEY, "RS256", {"kid": "rsa"})
    tokens.read(good)
    del provider.keys["rsa"]
    clock.now += 299
    tokens.read(good)

    clock.now += 1

    with pytest.raises(Unauthenticated):
        tokens.read(good)


@pytest.mark.parametrize(
    "broken",
    [
        b"nonsense",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz",
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b'HTTP/1.1 200 OK\r\n\r\n{"keys": [{"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB", "alg": ["x"]}]}',
        b'HTTP/1.1 200 OK\r\n\r\n{"keys":' + b"[" * 100_000,
        b'HTTP/1.1 200 OK\r\n\r\n{"keys": {"a": 1}}',
        b'HTTP/1.1 200 OK\r\n\r\n{"keys": ' + b"9" * 10_000 + b"}",
        b"HTTP/1.1 302 Found\r\nLocation: /keys\r\n\r\n",
    ],
)
def test_while_no_key_was_ever_known_nobody_can_be_told_apart(
    tokens: Tokens, provider: IdentityProvider, clock: Clock, broken: bytes
) -> None:
    good = token(RSA_KEY, "RS256", {"kid": "rsa"})
    provider.broken = broken
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            tokens.read(good)
    provider.broken = b""
    clock.now += refused.value.retry_after_seconds or 0

    user = tokens.read(good)

    assert (user.id, provider.asked) == ("ann", 2)
    assert refused.value.code == ErrorCode.KEYS_UNAVAILABLE


def test_what_is_broken_at_the_provider_leaves_the_keys_known_last(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
) -> None:
    good = token(RSA_KEY, "RS256", {"kid": "rsa"})
    tokens.read(good)
    provider.broken = b"nonsense"
    clock.now += 400

    users = [tokens.read(good).id for _ in range(3)]

    assert users == ["ann"] * 3


def test_while_the_provider_is_away_the_keys_known_last_are_good(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
) -> None:
    good = token(RSA_KEY, "RS256", {"kid": "rsa"})
    tokens.read(good)
    provider.away = True
    clock.now += 400

    users = [tokens.read(good).id for _ in range(5)]

    assert (users, provider.asked) == (["ann"] * 5, 2)
