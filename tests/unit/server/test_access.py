"""Who may use a server: passwords from files, the challenge, and what a read-only server refuses."""

from __future__ import annotations

import base64
import hmac

import bcrypt
import pytest
from werkzeug.security import generate_password_hash
from werkzeug.test import Client

import transferkit as tk
from transferkit.server.access import Access, Passwords


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


def test_a_file_of_users_with_the_hashes_of_htpasswd_and_werkzeug(tmp_path, monkeypatch):
    hashed = bcrypt.hashpw(b"first", bcrypt.gensalt(4)).decode()
    users = f"# who may come in\nann:{hashed}\n\nbob:{generate_password_hash('second', method='pbkdf2:sha256:10')}\n"
    (tmp_path / "htpasswd").write_text(users)
    passwords = Passwords.read(str(tmp_path / "htpasswd"))
    right = [("ann", "first"), ("bob", "second")]
    assert [True, True] == [passwords.are_right(*each) for each in right]
    wrong = [("ann", "second"), ("bob", "first"), ("eve", "first"), ("", "")]
    assert [False] * 4 == [passwords.are_right(*each) for each in wrong]

    # Once it was right, it is not hashed again.
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: pytest.fail("hashed again"))
    assert passwords.are_right("ann", "first")
    assert "first" not in repr(vars(passwords))


def test_passwords_are_compared_in_constant_time(one, monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b))
    one.are_right("ann", "wrong")
    one.are_right("nobody", "wrong")
    assert 2 == compared.count(b"wrong")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ann:plain\n", "line 1 of .* is not user:hash"),
        ("# nobody\n", "names no user"),
        (":$2y$05$x\n", "line 1"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"a" * 1024 * 1024 + b"b", "more than 1048576 bytes"),
    ],
)
def test_a_file_that_has_no_users_is_refused_without_showing_it(tmp_path, content, message):
    path = tmp_path / "users"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(tk.SourceError, match=message) as caught:
        Passwords.read(str(path))
    assert "plain" not in str(caught.value)


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    for where, message in (
        (f"ann:{tmp_path}/none", "No such file"),
        (f"ann:{tmp_path}/empty", "no password in its first"),
    ):
        with pytest.raises(tk.SourceError, match=message):
            Passwords.read(where)


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
