"""What a token service is asked, and what of its answers is believed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests

from transferkit.errors import ProtocolError, UnauthorizedError
from transferkit.options import TransportOptions
from transferkit.protocol.challenge import AuthChallenge
from transferkit.protocol.origin import Origin
from transferkit.testing import answer, scripted_server
from transferkit.testing.scripted import ScriptedServer
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.credentials import Credential
from transferkit.transport.exchange import Exchange
from transferkit.transport.tokens import Issued, TokenService, bearer, read_token

ANEW = "check it, or log in again: it may have expired"
SCOPE = "repository:library/model:pull"


def ask(server: ScriptedServer, credential: Credential | None = None, *, now: float = 0.0, **options: Any) -> Issued:
    with requests.Session() as session:
        service = TokenService(
            Origin.of(server.url), Exchange(session, TransportOptions(**options)), None, 60.0, lambda: now
        )
        challenge = AuthChallenge.parse(f'Bearer realm="{server.url}/token?x=1",service="s"')
        flow = WorkerFlow()
        issued = service.ask(challenge, SCOPE, credential, None, "ADVICE", flow)
        assert flow.counter.progress == 0
        return issued


# -- what it is asked


def test_the_query_of_a_realm_is_kept_and_a_token_ends_before_its_time() -> None:
    with scripted_server([answer(200, b'{"token": "t", "expires_in": 100}')]) as server:
        assert ask(server, now=1000.0)[:2] == ("Bearer t", 1075.0)
        assert server.requests[0].target == "/token?x=1&service=s&scope=repository%3Alibrary%2Fmodel%3Apull"


def test_an_identity_token_goes_into_the_body_of_a_post() -> None:
    with scripted_server([answer(200, b'{"access_token": "t"}')]) as server:
        issued = ask(server, Credential("a file", identity_token="r s&"))
        assert issued.blame == f"it refused the token that the identity token of a file brought; {ANEW}; ADVICE"
        (request,) = server.requests
        assert (request.method, request.target) == ("POST", "/token?x=1")
        assert parse_qs(request.body.decode(), strict_parsing=True) == {
            "grant_type": ["refresh_token"],
            "service": ["s"],
            "client_id": ["transferkit"],
            "scope": [SCOPE],
            "refresh_token": ["r s&"],
        }


@pytest.mark.parametrize(
    ("credential", "says"),
    [
        (None, "; ADVICE"),
        (Credential("a file", "alice", "p"), f"; it refused the user name and password of a file; {ANEW}; ADVICE"),
        (Credential("a file", identity_token="r"), f"; it refused the identity token of a file; {ANEW}; ADVICE"),
    ],
)
def test_a_refusal_says_what_was_refused(credential: Credential | None, says: str) -> None:
    with scripted_server([answer(401)]) as server:
        with pytest.raises(UnauthorizedError) as caught:
            ask(server, credential)
        assert str(caught.value).endswith(f"answered 401{says}")


def test_a_token_service_that_redirects_is_not_followed() -> None:
    with scripted_server([answer(307, headers={"Location": "/other"})]) as server:
        with pytest.raises(UnauthorizedError, match="answered 307"):
            ask(server, Credential("a file", identity_token="r"))
        assert len(server.requests) == 1


# -- what is not believed


@pytest.mark.parametrize("lifetime", [0, -5, True, "60", None, 10**9])
def test_a_lifetime_that_makes_no_sense_is_60_seconds(lifetime: object) -> None:
    raw = json.dumps({"token": "abc", "expires_in": lifetime}).encode()
    assert ("abc", 60.0) == read_token(raw, "https://auth.example")


@pytest.mark.parametrize("text", ["", "two words", "a\r\nX: y", "t\u00f6ken", "a\x7f", None, 3])
def test_a_token_that_could_smuggle_a_header_is_refused(text: Any) -> None:
    with pytest.raises(ProtocolError, match="printable ASCII"):
        bearer(text)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "without a token"),
        (b"{}", "without a token"),
        (b'{"token": ""}', "without a token"),
        (b'{"token": 3}', "without a token"),
    ],
)
def test_an_answer_without_a_token_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=f"the token service https://auth.example sent an answer .*{says}"):
        read_token(raw, "https://auth.example")


def test_an_access_token_is_a_token() -> None:
    assert ("abc", 300.0) == read_token(b'{"access_token": "abc", "expires_in": 300}', "https://auth.example")
