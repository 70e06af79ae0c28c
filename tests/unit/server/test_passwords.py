"""Passwords of users: files of them, hashes, and how they are compared."""

from __future__ import annotations

import hashlib
import hmac

import bcrypt
import pytest
from werkzeug.security import generate_password_hash

import transferkit as tk
from transferkit.server.passwords import Passwords


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


def test_passwords_are_compared_in_constant_time(monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b))
    passwords = Passwords.plain({"ann": "secret"})
    assert not passwords.are_right("ann", "wrong")
    assert not passwords.are_right("nobody", "wrong")
    assert 2 == compared.count(hashlib.sha256(b"wrong").digest())
    assert not Passwords.plain({}).are_right("", "")


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
