"""Who is let in: Basic and Bearer, and what is said to whom is not."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from transferkit.server import OCIRegistry
from transferkit.server.authentication import LIFE, Authentication

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
USERS = {"alice": "s3cret:with colon", "bob": "pässword"}
BASIC = 'Basic realm="registry", charset="UTF-8"'


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def opened(tmp_path: Path, **options: Any) -> Client:
    return Client(OCIRegistry(tmp_path, durable=False, **{"auth": USERS, **options}))


def code(answer: TestResponse) -> tuple[int, str]:
    assert answer.json is not None
    return answer.status_code, answer.json["errors"][0]["code"]


@pytest.mark.parametrize("user", USERS)
def test_a_user_with_the_right_password_is_let_in(tmp_path: Path, user: str) -> None:
    client = opened(tmp_path)
    assert client.get("/v2/", headers=basic(user, USERS[user])).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("alice", "wrong"),
        basic("alice", ""),
        basic("carol", ""),
        basic("", ""),
        basic("carol", "s3cret:with colon"),
        {"Authorization": "Basic"},
        {"Authorization": "Basic ???"},
        {"Authorization": "Basic " + base64.b64encode(b"alice").decode()},
        {"Authorization": "Digest username=alice"},
        bearer("x"),
        {"Authorization": "\xff\xfe"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/"),
        ("HEAD", f"/v2/a/blobs/{HELLO}"),
        ("POST", "/v2/a/blobs/uploads/"),
        ("PUT", "/v2/a/manifests/v1"),
        ("GET", "/nothing"),
    ],
)
def test_nobody_else_is_and_is_told_how(tmp_path: Path, headers: dict[str, str], method: str, path: str) -> None:
    answer = opened(tmp_path).open(path, method=method, headers=headers)
    assert (401, BASIC) == (answer.status_code, answer.headers["WWW-Authenticate"])
    if method != "HEAD":
        assert code(answer) == (401, "UNAUTHORIZED")
    assert "s3cret" not in answer.text


def test_a_function_may_judge(tmp_path: Path) -> None:
    asked = []

    def judge(user: str, password: str) -> bool:
        asked.append((user, password))
        return user == "alice"

    client = opened(tmp_path, auth=judge)
    assert client.get("/v2/", headers=basic("alice", "a:b")).status_code == 200
    assert client.get("/v2/", headers=basic("bob", "")).status_code == 401
    assert [("alice", "a:b"), ("bob", "")] == asked


def test_a_client_is_sent_for_a_token_and_let_in_with_it(tmp_path: Path) -> None:
    client = opened(tmp_path, tokens=True)
    asked = client.get("/v2/library/model/tags/list", base_url="http://registry.test:5000")
    assert asked.headers["WWW-Authenticate"] == (
        'Bearer realm="http://registry.test:5000/v2/token",service="registry.test:5000",'
        'scope="repository:library/model:pull"'
    )
    assert client.post("/v2/a/blobs/uploads/").headers["WWW-Authenticate"].endswith('scope="repository:a:pull,push"')
    assert "scope" not in client.get("/v2/").headers["WWW-Authenticate"]

    answer = client.get("/v2/token?service=x&scope=repository:a:pull", headers=basic("bob", USERS["bob"]))

    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert answer.json["token"] == answer.json["access_token"]
    assert (answer.json["expires_in"], answer.json["issued_at"][-1]) == (300, "Z")
    assert client.post("/v2/a/blobs/uploads/", headers=bearer(answer.json["token"])).status_code == 202
    assert client.get("/v2/", headers=basic("bob", USERS["bob"])).status_code == 200


@pytest.mark.parametrize("headers", [{}, basic("alice", "wrong"), bearer("x")])
def test_a_token_is_for_users_alone(tmp_path: Path, headers: dict[str, str]) -> None:
    answer = opened(tmp_path, tokens=True).get("/v2/token", headers=headers)
    assert (401, BASIC) == (answer.status_code, answer.headers["WWW-Authenticate"])


def test_a_token_ends(tmp_path: Path) -> None:
    now = [1_000_000_000.0]
    client = opened(tmp_path, tokens=True, clock=lambda: now[0])
    token = client.get("/v2/token", headers=basic("alice", USERS["alice"])).json["token"]
    now[0] += LIFE - 1
    assert client.get("/v2/", headers=bearer(token)).status_code == 200
    now[0] += 1
    answer = client.get("/v2/", headers=bearer(token))
    assert code(answer) == (401, "UNAUTHORIZED")
    assert answer.headers["WWW-Authenticate"].endswith('error="invalid_token"')


def test_a_token_that_was_changed_or_is_another_registrys_is_refused(tmp_path: Path) -> None:
    client, other = opened(tmp_path / "a", tokens=True), opened(tmp_path / "b", tokens=True)
    token = client.get("/v2/token", headers=basic("alice", USERS["alice"])).json["token"]
    ends, signature = token.split(".")
    for wrong in (f"{int(ends) + 60}.{signature}", f"{ends}.{64 * '0'}", f"{ends}.", signature, "", f"{token}0"):
        assert client.get("/v2/", headers=bearer(wrong)).status_code == 401
    assert other.get("/v2/", headers=bearer(token)).status_code == 401
    assert client.get("/v2/", headers=bearer(token)).status_code == 200


def test_there_are_no_tokens_unless_wanted(tmp_path: Path) -> None:
    answer = opened(tmp_path).get("/v2/token", headers=basic("alice", USERS["alice"]))
    assert answer.status_code == 404
    assert opened(tmp_path, tokens=True).post("/v2/token").status_code == 405


@pytest.mark.parametrize("header", ["Basic \xe9", "Basic !!", "Basic /w==", "Bearer \xe9", "\xe9", "Digest a=\xe9"])
@pytest.mark.parametrize("path", ["/v2/", "/v2/token"])
def test_what_is_no_authorization_is_answered_with_a_challenge(tmp_path: Path, header: str, path: str) -> None:
    client = opened(tmp_path, tokens=True)
    assert (401, "UNAUTHORIZED") == code(client.get(path, headers={"Authorization": header}))


@pytest.mark.parametrize("path", ["/v2/a%22,x=%22/tags/list", "/v2/a%0d%0aX:y/tags/list", "/v2/%C3%A9/tags/list"])
def test_what_is_no_name_does_not_get_into_the_challenge(tmp_path: Path, path: str) -> None:
    challenge = opened(tmp_path, tokens=True).get(path).headers["WWW-Authenticate"]
    assert challenge == 'Bearer realm="http://localhost/v2/token",service="localhost"'


def test_no_secret_is_in_its_repr() -> None:
    assert repr(Authentication(USERS)) == "Authentication(tokens=False)"
