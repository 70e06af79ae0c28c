"""Advisories: what the machine keeps for one registry, and what is said of one host, goes nowhere else."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import transferkit as tk
from tests.functional.hello import HELLO, MANIFEST
from transferkit.options import HostOptions
from transferkit.registry import Registry
from transferkit.testing import answer
from transferkit.testing.registry import running_registry

REPOSITORY = "library/model"
TOKEN = answer(200, b'{"token": "issued"}')
SECRETS = [
    {"identitytoken": "machine-secret"},
    {"registrytoken": "machine-secret"},
    {"username": "alice", "password": "machine-secret"},
]


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """``docker(auths)`` writes Docker's config.json."""
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return lambda auths: (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": auths}))


def seen(server, host):
    """What a host was sent: lines and fields, and bodies."""
    return [r for r in server.requests if r.headers["host"].partition(":")[0] == host]


def content_of(request):
    return answer(200, MANIFEST if "/manifests/" in request.target else b"hello")


# -- credentials of the machine


@pytest.mark.parametrize("entry", SECRETS, ids=["identity", "registry", "pair"])
@pytest.mark.parametrize("realm", ["evil.example", "registry.example.evil.example", "auth.registry.example"])
def test_cve_2026_48978_what_the_machine_keeps_is_for_no_realm_elsewhere(names, serve, docker, tmp_path, entry, realm):
    """oras-go gave refresh tokens, which last, to whatever realm a registry named."""

    def script(request):
        if "/token" in request.target:
            return TOKEN
        if request.headers.get("authorization") in ("Bearer issued", "Bearer machine-secret"):
            return answer(200, b"hello")
        return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{realm}:{server.port}/token",service="s"'})

    server = serve(script)
    docker({f"registry.example:{server.port}": entry})
    where = {"base_url": f"http://registry.example:{server.port}", "repository": REPOSITORY}
    tk.download([tk.Blob(HELLO, 5)], tmp_path / "d", **where)

    elsewhere = seen(server, realm)
    assert ([] if "registrytoken" in entry else ["GET"]) == [request.method for request in elsewhere]
    assert "secret" not in repr([(r.target, r.headers, r.body) for r in elsewhere])


def test_cve_2026_48978_an_identity_token_is_for_the_registrys_own_realm_and_an_allowed_one(
    names, serve, docker, tmp_path
):
    """A guard that refuses everything would pass the other tests too."""

    def script(request):
        if "/token" in request.target:
            return TOKEN
        if request.headers.get("authorization") == "Bearer issued":
            return answer(200, b"hello")
        return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{realm}:{server.port}/token",service="s"'})

    server = serve(script)
    docker({f"registry.example:{server.port}": SECRETS[0]})
    where = {"base_url": f"http://registry.example:{server.port}", "repository": REPOSITORY}
    options = tk.TransferOptions(transport=tk.TransportOptions(token_realms={"sso.example"}))
    for realm in ("registry.example", "sso.example"):
        tk.download([tk.Blob(HELLO, 5)], tmp_path / realm, options=options, **where)
        asked = [request for request in seen(server, realm) if "/token" in request.target]
        assert [True] == ["machine-secret" in request.body.decode() for request in asked]


@pytest.mark.parametrize("entry", SECRETS, ids=["identity", "registry", "pair"])
def test_ghsa_vh4v_2xq2_g5cg_what_the_machine_keeps_does_not_follow_a_redirect(names, serve, docker, tmp_path, entry):
    def script(request):
        host = request.headers["host"].partition(":")[0]
        if "/token" in request.target:
            return TOKEN
        if host == "storage.example":
            return answer(200, b"hello")
        if request.headers.get("authorization") is None:
            realm = f"http://registry.example:{server.port}/token"
            return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="s", Basic realm="x"'})
        return answer(307, b"", {"Location": f"http://storage.example:{server.port}/x"})

    server = serve(script)
    docker({f"registry.example:{server.port}": entry, f"storage.example:{server.port}": entry})
    where = {"base_url": f"http://registry.example:{server.port}", "repository": REPOSITORY}
    tk.download([tk.Blob(HELLO, 5)], tmp_path / "d", **where)

    (request,) = seen(server, "storage.example")
    assert "authorization" not in request.headers


def test_cve_2025_51471_a_key_signs_nothing_for_a_realm_elsewhere(names, serve, tmp_path):
    """Ollama signed for whatever realm a registry named."""
    key = tmp_path / "key"
    private = Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))

    def script(request):
        if "/token" in request.target:
            return TOKEN
        if request.headers.get("authorization") == "Bearer issued":
            return content_of(request)
        realm = f"http://evil.example:{server.port}/token"
        return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})

    server = serve(script)
    host = f"registry.example:{server.port}"
    with Registry(cache=tmp_path / "c", hosts={host: HostOptions(ollama_key=key)}) as client:
        client.pull(f"http://{host}/{REPOSITORY}:v1")

    assert [("/token?service=s&scope=repository%3Alibrary%2Fmodel%3Apull", None)] == [
        (request.target, request.headers.get("authorization")) for request in seen(server, "evil.example")
    ]


# -- lists in pages


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.1", "169.254.169.254"])
def test_ghsa_h7vf_4x9w_h99v_the_next_page_is_on_the_registry_itself(names, serve, docker, tmp_path, host):
    link = {"Link": '<http://{host}:{port}/v2/library/model/tags/list?last=a>; rel="next"'}

    def script(request):
        return answer(
            200, b'{"tags": ["a"]}', {name: text.format(host=host, port=server.port) for name, text in link.items()}
        )

    server = serve(script)
    with Registry(cache=tmp_path / "c", token="token-secret") as client, pytest.raises(tk.ProtocolError):
        client.tags(f"http://registry.example:{server.port}/{REPOSITORY}")

    assert ["registry.example"] == names


@pytest.mark.parametrize("kind", ["the same", "ever another"])
def test_ghsa_298f_872v_2rcx_a_list_has_an_end(serve, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("transferkit.remote.listing.MAX_PAGES", 20)

    def script(request):
        last = len(server.requests) if kind == "ever another" else 0
        link = f'</v2/library/model/tags/list?last={last}>; rel="next"'
        return answer(200, b'{"tags": ["a"]}', {"Link": link})

    server = serve(script)
    with Registry(cache=tmp_path / "c") as client, pytest.raises(tk.ProtocolError):
        client.tags(f"{server.url}/{REPOSITORY}")

    assert len(server.requests) == (20 if kind == "ever another" else 2)


def test_ghsa_298f_872v_2rcx_referrers_in_a_circle_are_each_copied_once(serve, tmp_path):
    """Two manifests that refer to each other, and to themselves."""
    documents = {}
    for name in "abc":
        raw = json.dumps({**json.loads(MANIFEST), "annotations": {"name": name}}).encode()
        documents["sha256:" + hashlib.sha256(raw).hexdigest()] = raw

    def source(request):
        last = request.target.rpartition("/")[2]
        if "/referrers/" in request.target:
            entries = [{"mediaType": "m", "digest": each, "size": len(documents[each])} for each in documents]
            return answer(200, json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
        if "/manifests/" in request.target:
            return answer(200, documents.get(last) or next(iter(documents.values())))
        return answer(200, b"hello")

    server = serve(source)
    with running_registry() as target, Registry(cache=tmp_path / "c") as client:
        client.copy(f"{server.url}/{REPOSITORY}:v1", f"{target.url}/{REPOSITORY}:v1", referrers=True)
        for digest, raw in documents.items():
            assert raw == tk.fetch_manifest(digest, base_url=target.url, repository=REPOSITORY).raw

    assert 3 == sum("/referrers/" in request.target for request in server.requests)


# -- mirrors, which nobody needs to trust


@pytest.mark.parametrize(
    "given",
    [{"auth": ("alice", "user-secret")}, {"token": "user-secret"}, {"get_token": lambda challenge: "user-secret"}, {}],
    ids=["pair", "token", "get_token", "environment"],
)
def test_cve_2026_33540_a_mirror_sees_nothing_that_is_for_the_registry(serve, tmp_path, monkeypatch, given):
    """distribution, as a cache, sent the credentials of the registry behind it to a realm of that one's choice."""
    if not given:
        monkeypatch.setenv("TRANSFERKIT_TOKEN", "user-secret")

    def guarded(request):
        if "/token" in request.target:
            return TOKEN
        if request.headers.get("authorization") is None:
            host = request.headers["host"]
            return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{host}/token",service="s"'})
        return content_of(request)

    mirror, registry = serve(guarded), serve(guarded)
    host = f"127.0.0.1:{registry.port}"
    with Registry(cache=tmp_path / "c", hosts={host: HostOptions(mirrors=(mirror.url,))}, **given) as client:
        client.pull(f"http://{host}/{REPOSITORY}:v1")

    assert [None, None, "Bearer issued"] == [request.headers.get("authorization") for request in mirror.requests]


def test_cve_2026_33540_a_mirror_sees_nothing_of_the_session(serve, tmp_path, session_with_secrets):
    mirror, registry = serve(content_of), serve(content_of)
    host = f"127.0.0.1:{registry.port}"
    given = {"session": session_with_secrets, "hosts": {host: HostOptions(mirrors=(mirror.url,))}}
    with Registry(cache=tmp_path / "c", **given) as client:
        client.pull(f"http://{host}/{REPOSITORY}:v1")

    assert 1 == len(mirror.requests)
    assert "secret" not in repr([(request.target, request.headers) for request in mirror.requests])
    assert "secret" in repr(registry.requests[0].headers)


@pytest.fixture
def session_with_secrets():
    with requests.Session() as session:
        session.auth = ("alice", "session-secret")
        session.headers["X-Api-Key"] = "header-secret"
        session.cookies.set("sid", "cookie-secret")
        yield session


def test_cve_2026_33540_a_mirror_is_shown_what_the_machine_keeps_for_it(serve, docker, tmp_path):
    def guarded(request):
        if request.headers.get("authorization") is None:
            return answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
        return content_of(request)

    mirror, registry = serve(guarded), serve(content_of)
    host = f"127.0.0.1:{registry.port}"
    docker({f"127.0.0.1:{mirror.port}": {"username": "bob", "password": "p"}})
    with Registry(cache=tmp_path / "c", hosts={host: HostOptions(mirrors=(mirror.url,))}) as client:
        client.pull(f"http://{host}/{REPOSITORY}:v1")

    assert [None, "Basic Ym9iOnA="] == [request.headers.get("authorization") for request in mirror.requests]


# -- what is said of one host


@pytest.mark.parametrize("named", ["registry.example:{port}", "registry.example"])
def test_ghsa_h3wm_jjqf_8jm2_the_certificate_of_a_host_is_for_it_alone(names, serve_tls, authority, tmp_path, named):
    """Neither for the storage, nor for a token service, nor for another port of its own."""
    elsewhere = serve_tls(lambda request: TOKEN if "/token" in request.target else answer(200, b"hello"))

    def script(request):
        if request.headers.get("authorization") is None:
            realm = f"https://registry.example:{elsewhere.port}/token"
            return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})
        if "/manifests/" in request.target:
            return answer(200, MANIFEST)
        return answer(307, b"", {"Location": f"https://storage.example:{elsewhere.port}/x"})

    server = serve_tls(script)
    host = f"registry.example:{server.port}"
    options = HostOptions(
        ca_bundle=authority.bundle, client_cert=authority.client_certificate, headers={"X-Key": "header-secret"}
    )
    trust = HostOptions(ca_bundle=authority.bundle)
    others = {f"storage.example:{elsewhere.port}": trust}
    if named != "registry.example":
        others[f"registry.example:{elsewhere.port}"] = trust
    with Registry(cache=tmp_path / "c", hosts={named.format(port=server.port): options, **others}) as client:
        client.pull(f"{host}/{REPOSITORY}:v1")

    assert ({True}, {False}) == (set(server.certificates), set(elsewhere.certificates))
    assert {"header-secret"} == {request.headers["x-key"] for request in server.requests}
    assert "secret" not in repr([(request.target, request.headers) for request in elsewhere.requests])


def test_ghsa_whvf_jp7m_59f3_header_fields_of_a_host_are_for_it_alone(names, serve, tmp_path):
    def script(request):
        if "/token" in request.target:
            return TOKEN
        if not request.target.startswith("/v2/"):
            return answer(200, b"hello")
        if request.headers.get("authorization") is None:
            realm = f"http://auth.example:{server.port}/token"
            return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})
        if "/manifests/" in request.target:
            return answer(200, MANIFEST)
        return answer(302, b"", {"Location": f"http://storage.example:{server.port}/x"})

    server = serve(script)
    host = f"registry.example:{server.port}"
    with Registry(cache=tmp_path / "c", hosts={host: HostOptions(headers={"X-Key": "header-secret"})}) as client:
        client.pull(f"http://{host}/{REPOSITORY}:v1")

    for name, count in (("registry.example", 3), ("auth.example", 1), ("storage.example", 1)):
        fields = [request.headers.get("x-key") for request in seen(server, name)]
        assert ["header-secret" if name == "registry.example" else None] * count == fields


# -- names at private addresses


@pytest.fixture
def resolver(monkeypatch):
    """``resolver[host]`` are the addresses that a host has; connections to the public ones end at 127.0.0.1.

    ``resolver.connected`` are the addresses that were connected to.
    """

    class Resolver(dict):
        connected: list[str]

    table = Resolver()
    table.connected = []

    def getaddrinfo(host, port, *_, **__):
        name = host.decode() if isinstance(host, bytes) else host
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, int(port)))
            for address in table.get(name, [name])
        ]

    real = socket.socket.connect_ex

    def connect_ex(sock, address):
        table.connected.append(address[0])
        peers[sock.fileno()] = address
        return real(sock, ("127.0.0.1", address[1]))

    def connect(sock, address):
        assert not connect_ex(sock, address)

    peers = {}
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "getpeername", lambda sock: peers[sock.fileno()])
    return table


PUBLIC, PRIVATE = "8.8.8.8", ["10.0.0.7", "127.0.0.1", "169.254.169.254", "192.168.1.1"]


def led(server, steer, host):
    """A script of a registry that leads to ``host`` at one of the points where a registry steers."""
    url = f"http://{host}:{server().port}"

    def script(request):
        if "/token" in request.target:
            return TOKEN
        if request.target.startswith("/x"):
            return answer(201 if request.method == "PUT" else 200, b"" if request.method == "PUT" else b"hello")
        if steer == "realm" and request.headers.get("authorization") is None:
            return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{url}/token",service="s"'})
        if request.method == "HEAD":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        if request.method == "POST":
            return answer(202, b"", {"Location": f"{url}/x/1"})
        return answer(200, b"hello") if steer == "realm" else answer(302, b"", {"Location": f"{url}/x"})

    return script


@pytest.fixture
def steered(serve, resolver, tmp_path):
    """``steered(steer, host, **options)`` runs a call at a public registry that leads to ``host``."""

    def run(steer, host, **options):
        servers = []
        servers.append(serve(lambda request: led(lambda: servers[0], steer, host)(request)))
        (server,) = servers
        where = {"base_url": f"http://registry.example:{server.port}", "repository": REPOSITORY}
        given = tk.TransferOptions(
            transport=tk.TransportOptions(**options), retry=tk.RetryOptions(attempts=1, patience=0)
        )
        if steer == "upload":
            (tmp_path / "s").mkdir(exist_ok=True)
            (tmp_path / "s" / HELLO.replace(":", "-")).write_bytes(b"hello")
            return lambda: tk.upload([tk.Blob(HELLO, 5)], tmp_path / "s", options=given, **where)
        return lambda: tk.download([tk.Blob(HELLO, 5)], tmp_path / "d", options=given, **where)

    return run


STEERS = ["redirect", "realm", "upload"]


@pytest.mark.parametrize("steer", STEERS)
@pytest.mark.parametrize("address", PRIVATE)
def test_cve_2026_85180_a_public_registry_does_not_lead_to_a_name_at_a_private_address(
    steered, resolver, failure, steer, address
):
    resolver.update({"registry.example": [PUBLIC], "inside.example": [address]})
    error = failure(steered(steer, "inside.example"))

    assert isinstance(error, tk.ProtocolError)
    assert f"which is at the private address {address}" in str(error)
    assert "storage_hosts={'inside.example'}" in str(error)
    assert {PUBLIC} == set(resolver.connected)


@pytest.mark.parametrize("steer", STEERS)
def test_cve_2026_85180_a_private_registry_leads_to_its_neighbours_by_name(steered, resolver, steer):
    """Split DNS is how companies run."""
    resolver.update({"registry.example": ["10.0.0.1"], "inside.example": ["10.0.0.7"]})
    steered(steer, "inside.example")()

    assert {"10.0.0.1", "10.0.0.7"} == set(resolver.connected)


@pytest.mark.parametrize("steer", STEERS)
def test_cve_2026_85180_a_name_that_the_user_allows_is_followed(steered, resolver, steer):
    resolver.update({"registry.example": [PUBLIC], "inside.example": ["10.0.0.7"]})
    steered(steer, "inside.example", storage_hosts={"inside.example"}, token_realms={"inside.example"})()

    assert {PUBLIC, "10.0.0.7"} == set(resolver.connected)


@pytest.mark.parametrize("steer", STEERS)
def test_cve_2026_85180_of_several_addresses_only_public_ones_are_connected_to(steered, resolver, steer):
    resolver.update({"registry.example": [PUBLIC], "inside.example": ["10.0.0.7", "9.9.9.9"]})
    steered(steer, "inside.example")()

    assert {PUBLIC, "9.9.9.9"} == set(resolver.connected)


def test_cve_2026_85180_a_connection_that_somebody_else_made_is_not_used(serve, resolver, tmp_path, failure):
    """A private registry has led to its storage; a public one may not go there on the connection that is left."""
    storage = serve(lambda request: answer(200, b"hello"))
    moved = answer(302, b"", {"Location": f"http://inside.example:{storage.port}/x"})

    def script(request):
        return answer(200, MANIFEST) if "/manifests/" in request.target else moved

    server = serve(script)
    resolver.update({"own.example": ["10.0.0.1"], "registry.example": [PUBLIC], "inside.example": ["10.0.0.7"]})
    options = tk.TransferOptions(retry=tk.RetryOptions(attempts=1, patience=0))
    with Registry(cache=tmp_path / "c", options=options) as client:
        client.pull(f"http://own.example:{server.port}/{REPOSITORY}:v1")
        assert ["10.0.0.1", "10.0.0.7"] == resolver.connected
        Path(client.cache.path(HELLO)).unlink()
        error = failure(lambda: client.pull(f"http://registry.example:{server.port}/{REPOSITORY}:v1"))

    assert isinstance(error, tk.ProtocolError)
    assert "which is at the private address 10.0.0.7" in str(error)
    assert 1 == len(storage.requests)


@pytest.mark.parametrize("registry", [PUBLIC, "10.0.0.1"])
def test_cve_2026_85180_connections_that_the_user_made_are_judged_too(serve, resolver, tmp_path, failure, registry):
    """His session has the pool of the transfers: what he asked by hand is nobody else's way in, nor in the way."""
    storage = serve(lambda request: answer(200, b"hello"))
    moved = answer(302, b"", {"Location": f"http://inside.example:{storage.port}/x"})
    server = serve(lambda request: moved if request.target.startswith("/v2/") else answer(200))
    resolver.update({"registry.example": [registry], "inside.example": ["10.0.0.7"]})
    options = tk.TransferOptions(retry=tk.RetryOptions(attempts=1, patience=0))
    with requests.Session() as session:
        session.mount("http://", tk.PooledAdapter())
        for host, port in (("registry", server.port), ("inside", storage.port)):
            assert 200 == session.get(f"http://{host}.example:{port}/").status_code
        where = {"base_url": f"http://registry.example:{server.port}", "repository": REPOSITORY, "session": session}

        def call():
            return tk.download([tk.Blob(HELLO, 5)], tmp_path / "d", options=options, **where)

        if registry == PUBLIC:
            assert "which is at the private address" in str(failure(call))
        else:
            assert 5 == call().bytes
    assert 1 + (registry != PUBLIC) == len(storage.requests)


def test_cve_2026_85180_behind_a_proxy_the_proxy_finds_the_address(serve, resolver, tmp_path, monkeypatch):
    def forward(request):
        if "inside.example" in request.target:
            return answer(200, b"hello")
        return answer(302, b"", {"Location": "http://inside.example/x"})

    proxy = serve(forward)
    resolver.update({"inside.example": ["10.0.0.7"]})
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    tk.download([tk.Blob(HELLO, 5)], tmp_path / "d", base_url="http://registry.example", repository=REPOSITORY)

    assert {"127.0.0.1"} == set(resolver.connected)
