"""Who may use a server: the challenge, and what a read-only server refuses."""

from __future__ import annotations

import base64

import pytest
from werkzeug.test import Client

from transferkit.server.access import Access
from transferkit.server.passwords import Passwords


def inside(environ, start_response):
    start_response("200 OK", [])
    return [b"let through"]


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def one(tmp_path):
    (tmp_path / "password").write_text("s3cr:ét\nnot this line\n", encoding="utf-8")
    return Passwords.read(f"ann:{tmp_path / 'password'}")


def test_one_user_with_a_password_in_a_file(one):
    client = Client(Access(inside, passwords=one))
    assert 200 == client.get("/v2/", headers=basic("ann", "s3cr:ét")).status_code
    assert 200 == client.get("/", headers=basic("ann", "s3cr:ét")).status_code
    for user, password in (("ann", "s3cr"), ("ann", ""), ("", "s3cr:ét"), ("bob", "s3cr:ét"), ("ann", "not this line")):
        assert 401 == client.get("/v2/", headers=basic(user, password)).status_code


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic ", "Basic !!", "Basic YW5u", "Basic /w==", "Bearer YW5uOng=", "basic\tYW5uOng=", "Basic \xe9"],
)
def test_what_is_no_authorization_is_answered_with_the_challenge(one, header):
    client = Client(Access(inside, passwords=one))
    response = client.get("/v2/", headers={"Authorization": header})
    assert (401, 'Basic realm="transferkit", charset="UTF-8"') == (
        response.status_code,
        response.headers["WWW-Authenticate"],
    )
    assert "UNAUTHORIZED" == response.json["errors"][0]["code"]
    assert "unauthorized" == client.get("/api/tags", headers={"Authorization": header}).json["code"]


def test_a_read_only_server_refuses_what_changes_something():
    client = Client(Access(inside, read_only=True))
    for method in ("GET", "HEAD"):
        assert 200 == client.open("/v2/", method=method).status_code
        assert 200 == client.open("/api/tags", method=method).status_code
    assert 200 == client.post("/api/show").status_code
    for method, path in (
        ("POST", "/api/pull"),
        ("DELETE", "/api/delete"),
        ("POST", "/anything"),
        ("PUT", "/api/show/"),
    ):
        refused = client.open(path, method=method)
        assert (403, "this server is read-only") == (refused.status_code, refused.json["error"])
    for method in ("POST", "PUT", "PATCH", "DELETE", "INVENTED"):
        refused = client.open("/v2/a/blobs/uploads/", method=method)
        assert (405, "UNSUPPORTED") == (refused.status_code, refused.json["errors"][0]["code"])
