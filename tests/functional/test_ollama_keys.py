"""Requests to Ollama's registry, signed with a key; this server verifies each signature by itself."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

import transferkit as tk
from tests.functional.hello import HELLO, manifest_of
from transferkit.options import HostOptions
from transferkit.registry import Registry
from transferkit.testing import answer

DATA = b"hello"
MANIFEST = manifest_of(
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.ollama.image.model",
)
# printf '' | sha256sum | cut -d' ' -f1 | tr -d '\n' | base64 -w0
NO_BODY = "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="


def verified(text: str, public: str, signature: str) -> bool:
    """Tell whether a text was signed with the private half of an OpenSSH public key."""
    key = load_ssh_public_key(f"ssh-ed25519 {public}".encode())
    assert isinstance(key, Ed25519PublicKey)
    try:
        key.verify(base64.b64decode(signature), text.encode())
    except InvalidSignature:
        return False
    return True


class Ollama:
    """A registry of Ollama's kind. ``known``: the public keys; ``is_private``: nothing is to be had without one."""

    def __init__(self, *, is_private: bool = True, by_token_service: bool = False, realm: str = "") -> None:
        self.is_private = is_private
        self.by_token_service = by_token_service
        self.realm = realm
        self.known: set[str] = set()
        self.server = None

    def __call__(self, request):
        if request.target.startswith("/token"):
            return self.token(request)
        if self.is_private and not self.may(request):
            realm = self.realm.format(port=self.server.port) or f"http://127.0.0.1:{self.server.port}/token"
            challenge = f'Bearer realm="{realm}",service="ollama",scope="repository:me/secret:pull"'
            return answer(401, b'{"errors":[]}', {"WWW-Authenticate": challenge} if self.by_token_service else {})
        if "/manifests/" in request.target:
            return answer(200, MANIFEST)
        return answer(200, DATA) if "/blobs/" in request.target else answer(404)

    def may(self, request):
        authorization = request.headers.get("authorization", "")
        if self.by_token_service:
            return authorization == "Bearer issued"
        if "/blobs/" in request.target:
            return True
        match = re.fullmatch(r"Bearer ([^:]+):([^:]+):([^:]+)", authorization)
        if match is None:
            return False
        url = base64.b64decode(match[1]).decode()
        stamp = re.fullmatch(r"https://ollama\.com\?ts=([0-9]+)", url)
        is_now = stamp is not None and abs(time.time() - int(stamp[1])) < 60
        return is_now and match[2] in self.known and verified(f"GET,{url},{NO_BODY}", match[2], match[3])

    def token(self, request):
        url = f"http://{request.headers['host']}{request.target}"
        query = parse_qsl(urlsplit(url).query)
        assert [name for name, _ in query] == ["nonce", "scope", "service", "ts"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}", dict(query)["nonce"])
        public, _, signature = request.headers.get("authorization", ":").partition(":")
        if public in self.known and verified(f"GET,{url},{NO_BODY}", public, signature):
            return answer(200, b'{"token": "issued"}')
        return answer(403)

    @property
    def seen(self):
        """What was asked for, and what with: a token that the key made, one that was issued, a signature, nothing."""
        kinds = {"Bearer issued": "issued", None: None}
        return [
            (
                request.target.partition("?")[0].split("/")[1 if "/token" in request.target else -2],
                kinds.get(
                    text := request.headers.get("authorization"), "made" if text and "Bearer" in text else "signed"
                ),
            )
            for request in self.server.requests
        ]


@pytest.fixture
def key(tmp_path):
    """A key file, and its public half."""
    private = Ed25519PrivateKey.generate()
    path = tmp_path / "id_ed25519"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return path, private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode()


@pytest.fixture
def start(serve):
    def run(**keywords):
        ollama = Ollama(**keywords)
        ollama.server = serve(ollama)
        return ollama, f"127.0.0.1:{ollama.server.port}"

    return run


@pytest.fixture
def home(tmp_path, monkeypatch, key):
    """A home folder with the key in its place."""
    (tmp_path / "home" / ".ollama").mkdir(parents=True)
    (tmp_path / "home" / ".ollama" / "id_ed25519").write_bytes(key[0].read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def registry_of(host, folder, **keywords):
    transport = tk.TransportOptions(ollama_hosts={host})
    return Registry(cache=folder, options=tk.TransferOptions(transport=transport), **keywords)


# -- form (a): a token that the key makes by itself


def test_a_given_key_makes_a_token_for_each_request_but_those_for_content(start, key, tmp_path):
    path, public = key
    ollama, host = start()
    ollama.known.add(public)
    with registry_of(host, tmp_path / "c", hosts={host: HostOptions(ollama_key=str(path))}) as registry:
        registry.pull(f"http://{host}/me/secret")
    assert [("manifests", "made"), ("blobs", None)] == ollama.seen


def test_a_key_that_is_not_known_is_named_in_the_refusal(start, key, tmp_path):
    path, _ = key
    ollama, host = start()
    with registry_of(host, tmp_path / "c", hosts={host: HostOptions(ollama_key=str(path))}) as registry:
        with pytest.raises(tk.UnauthorizedError) as caught:
            registry.pull(f"http://{host}/me/secret")
    said = str(caught.value)
    assert f"it refused the token that the key {path} made; add its public half to your account" in said
    token = ollama.server.requests[0].headers["authorization"]
    assert token.rpartition(":")[2] not in f"{caught.value!r}"


def test_a_key_that_is_given_must_be_there(start, tmp_path):
    ollama, host = start()
    with registry_of(host, tmp_path / "c", hosts={host: HostOptions(ollama_key=str(tmp_path / "none"))}) as registry:
        with pytest.raises(tk.UnauthorizedError, match=r"the key .*/none cannot be read"):
            registry.pull(f"http://{host}/me/secret")
    assert [] == ollama.seen


def test_what_a_key_makes_by_itself_goes_to_ollamas_own_hosts_alone(start, home, key, tmp_path):
    """It is good at ollama.com, for whoever sees it; a host that only speaks the same dialect is not shown one."""
    ollama, host = start(is_private=False)
    ollama.known.add(key[1])
    with registry_of(host, tmp_path / "c") as registry:
        registry.pull(f"http://{host}/me/secret")
    assert [("manifests", None), ("blobs", None)] == ollama.seen


def test_the_key_of_the_machine_is_for_ollamas_hosts_over_tls(names, serve_tls, serve, authority, home, key, tmp_path):
    ollama = Ollama()
    ollama.known.add(key[1])
    server = ollama.server = serve_tls(ollama)
    authority.ca.issue_cert("registry.ollama.ai").configure_cert(server.context)
    host = f"registry.ollama.ai:{server.port}"
    with Registry(cache=tmp_path / "c", hosts={host: HostOptions(ca_bundle=authority.bundle)}) as registry:
        registry.pull(f"{host}/me/secret")
    assert [("manifests", "made"), ("blobs", None)] == ollama.seen
    plain = Ollama(is_private=False)
    plain.server = serve(plain)
    with Registry(cache=tmp_path / "d") as registry:
        registry.pull(f"http://registry.ollama.ai:{plain.server.port}/me/secret")
    assert [("manifests", None), ("blobs", None)] == plain.seen


# -- form (b): a signed request to the registry's own token service


def test_a_challenge_of_the_registry_is_answered_with_a_signed_request(start, home, key, tmp_path):
    ollama, host = start(by_token_service=True)
    ollama.known.add(key[1])
    with registry_of(host, tmp_path / "c") as registry:
        registry.pull(f"http://{host}/me/secret")
    assert [("manifests", None), ("token", "signed"), ("manifests", "issued"), ("blobs", "issued")] == ollama.seen


def test_a_token_service_that_does_not_know_the_key_is_told_with_it(start, home, tmp_path):
    ollama, host = start(by_token_service=True)
    with registry_of(host, tmp_path / "c") as registry, pytest.raises(tk.UnauthorizedError) as caught:
        registry.pull(f"http://{host}/me/secret")
    assert "answered 403; it refused what the key ~/.ollama/id_ed25519 signed; add its public half" in str(caught.value)
    signature = ollama.server.requests[-1].headers["authorization"]
    assert signature.rpartition(":")[2] not in repr(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_nothing_is_signed_for_another_host_or_port(start, serve, home, key, tmp_path, host):
    """CVE-2025-51471: Ollama signed for whatever realm a registry named."""
    asked = []

    def service(request):
        asked.append(request.headers.get("authorization"))
        return answer(200, b'{"token": "issued"}')

    other = serve(service)
    ollama, own = start(by_token_service=True, realm=f"http://{host}:{other.port}/token")
    ollama.known.add(key[1])
    with registry_of(own, tmp_path / "c") as registry:
        registry.pull(f"http://{own}/me/secret")
    assert [None] == asked


def test_credentials_of_the_user_come_before_the_key(start, home, tmp_path):
    ollama, host = start(by_token_service=True)
    with registry_of(host, tmp_path / "c", token="mine") as registry, pytest.raises(tk.UnauthorizedError):
        registry.pull(f"http://{host}/me/secret")
    assert ["Bearer mine"] == [request.headers.get("authorization") for request in ollama.server.requests]


# -- without a key, and without the package


def test_without_a_key_public_models_are_pulled(start, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    ollama, host = start(is_private=False)
    with registry_of(host, tmp_path / "c") as registry:
        registry.pull(f"http://{host}/library/public")
        assert DATA == Path(registry.cache.path(HELLO)).read_bytes()
    assert {None} == {kind for _, kind in ollama.seen}


WITHOUT = """
import sys
sys.modules["cryptography"] = None
import transferkit as tk
from transferkit.registry import Registry
from transferkit.transport.signing import KeyFile
options = tk.TransferOptions(transport=tk.TransportOptions(ollama_hosts={sys.argv[1]}))
with Registry(cache=sys.argv[2], options=options) as registry:
    registry.pull(f"http://{sys.argv[1]}/library/public")
key = KeyFile()
assert key.load() is None
print(key.problem)
"""


def test_without_the_package_public_models_are_pulled_and_the_extra_is_named(start, home, tmp_path):
    _, host = start(is_private=False)
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT, host, str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stderr
    assert "takes the package cryptography: pip install 'transferkit[ollama]'" in done.stdout


# -- how we call ourselves


def test_ollamas_hosts_hear_the_name_of_its_client_and_ours(start, serve, tmp_path):
    storage = serve(lambda request: answer(200, DATA))
    ollama, host = start(is_private=False)
    plain = ollama.__call__
    moved = answer(307, b"", {"Location": f"{storage.url}/x"})
    ollama.server._script = lambda request: moved if "/blobs/" in request.target else plain(request)
    with registry_of(host, tmp_path / "c") as registry:
        registry.pull(f"http://{host}/library/public")
    said = {request.headers["user-agent"] for request in ollama.server.requests}
    form = r"ollama/0\.13\.0 \((amd64|arm64) (linux|darwin)\) Go/go1\.25 transferkit/[0-9.]+\w*"
    assert [True] == [re.fullmatch(form, text) is not None for text in said]
    assert [True] == [re.fullmatch(r"transferkit/\S+", r.headers["user-agent"]) is not None for r in storage.requests]


def test_a_name_that_the_user_chose_is_kept(start, tmp_path):
    ollama, host = start(is_private=False)
    transport = tk.TransportOptions(ollama_hosts={host}, user_agent="mine/1")
    with Registry(cache=tmp_path / "c", options=tk.TransferOptions(transport=transport)) as registry:
        registry.pull(f"http://{host}/library/public")
    assert {"mine/1"} == {request.headers["user-agent"] for request in ollama.server.requests}


def test_the_constant_of_a_request_without_a_body():
    assert NO_BODY == base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
