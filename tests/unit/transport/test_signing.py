"""Requests signed with an Ollama key: the known answer of the original, and what may be no key."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from transferkit.errors import UnauthorizedError
from transferkit.transport.signing import KeyFile, OllamaKey

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "ollama_token.json").read_text())
KEY = Ed25519PrivateKey.from_private_bytes(VECTOR["ed25519_seed_ascii"].encode())


def write(folder: Path, key: object = KEY, password: bytes | None = None) -> Path:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    path = folder / "id_ed25519"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption))  # type: ignore[attr-defined]
    return path


def test_the_token_of_the_original() -> None:
    key = OllamaKey(KEY, clock=lambda: 1795323576.9)
    assert key.token() == VECTOR["token"]
    assert key.public == VECTOR["public_key_authorized"].split()[1]


def test_a_key_is_read_from_a_file(tmp_path: Path) -> None:
    assert OllamaKey.load(write(tmp_path)).public == OllamaKey(KEY).public


def test_the_request_to_a_token_service_is_signed() -> None:
    key = OllamaKey(KEY, clock=lambda: 1795323576, nonce=lambda: bytes(range(16)))
    url, authorization = key.sign("https://ollama.com/token?x=1", "ollama.com", ["repository:a/b:pull"])
    assert url == (
        "https://ollama.com/token?nonce=AAECAwQFBgcICQoLDA0ODw&scope=repository%3Aa%2Fb%3Apull&service=ollama.com"
        "&ts=1795323576"
    )
    public, signature = authorization.split(":")
    assert public == key.public
    # printf '' | sha256sum | cut -d' ' -f1 | tr -d '\n' | base64 -w0
    constant = "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
    KEY.public_key().verify(base64.b64decode(signature), f"GET,{url},{constant}".encode())


def test_what_is_no_key_is_said(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(UnauthorizedError, match="missing cannot be read"):
        OllamaKey.load(missing)
    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n")
    with pytest.raises(UnauthorizedError, match="broken is no key in OpenSSH's format"):
        OllamaKey.load(broken)
    with pytest.raises(UnauthorizedError, match="no key in OpenSSH's format without a password"):
        OllamaKey.load(write(tmp_path, password=b"p"))
    with pytest.raises(UnauthorizedError, match="no Ed25519 key"):
        OllamaKey.load(write(tmp_path, generate_private_key(65537, 2048)))


def test_nothing_of_the_private_half_stands_in_a_repr() -> None:
    key = OllamaKey(KEY)
    assert VECTOR["ed25519_seed_ascii"] not in repr(key)
    assert repr(key) == f"<OllamaKey {key.public[-12:]}>"


# -- key files


def test_a_key_of_the_machine_need_not_be_there(tmp_path: Path) -> None:
    key = KeyFile(tmp_path / "missing")
    assert (key.load(), key.header(), key.sign("https://a.example/t", "s", []), key.problem) == (None, None, None, "")


def test_a_key_of_the_machine_that_is_broken_is_warned_of_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "key").write_text("nonsense")
    key = KeyFile(tmp_path / "key")
    assert [key.load(), key.load()] == [None, None]
    assert "is no key in OpenSSH's format" in key.problem
    assert len(caplog.records) == 1


def test_a_key_that_was_given_must_be_right(tmp_path: Path) -> None:
    key = KeyFile(tmp_path / "missing", is_given=True)
    for _ in range(2):
        with pytest.raises(UnauthorizedError, match="missing cannot be read"):
            key.header()


def test_a_key_that_makes_no_tokens_signs_for_token_services(tmp_path: Path) -> None:
    key = KeyFile(write(tmp_path), makes_tokens=False)
    assert key.header() is None
    signed = key.sign("https://a.example/t", "s", [])
    assert signed is not None
    assert signed[0].startswith("https://a.example/t?nonce=")
    assert list(key.sent) == [signed[1]]


def test_what_a_key_sends_is_known_as_a_secret(tmp_path: Path) -> None:
    key = KeyFile(write(tmp_path))
    header = key.header()
    assert header is not None
    assert header.startswith("Bearer ")
    assert header in key.sent
