"""Advisories: a registry that names a token service does not get there what is not for it."""

from __future__ import annotations

import base64
import json

import pytest
import requests

import transferkit as tk
from transferkit.testing import answer

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
USER = ("alice", "password-secret")
BASIC = "Basic " + base64.b64encode(b"alice:password-secret").decode()


def download(url, folder, **keywords):
    return tk.download([tk.Blob(HELLO, 5)], folder, base_url=url, repository=REPOSITORY, **keywords)


class Registry:
    """A registry and its token services, which are one server under many names."""

    def __init__(self, realm: str) -> None:
        self.realm = realm
        self.issued = 0
        self.server = None

    def __call__(self, request):
        if request.target.startswith("/v2/"):
            if self.issued and request.headers.get("authorization") == f"Bearer issued-{self.issued}":
                return answer(200, b"hello")
            realm = self.realm.format(port=self.server.port)
            return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="r",scope="s"'})
        self.issued += 1
        return answer(200, json.dumps({"token": f"issued-{self.issued}"}).encode())

    @property
    def asked(self):
        """What the token services were sent: their host, and the Authorization."""
        return [
            (r.headers["host"].partition(":")[0], r.headers.get("authorization"))
            for r in self.server.requests
            if not r.target.startswith("/v2/")
        ]


@pytest.fixture
def start(names, serve):
    def run(realm):
        registry = Registry(realm)
        registry.server = serve(registry)
        return registry, f"http://registry.example:{registry.server.port}"

    return run


FOREIGN = [
    "http://evil.example:{port}/token",
    "http://registry.example.evil.example:{port}/token",
    "http://auth.registry.example:{port}/token",
    "http://example:{port}/token",
    "//evil.example:{port}/token",
]


@pytest.mark.parametrize("realm", FOREIGN)
def test_cve_2025_51471_a_realm_on_another_host_is_asked_without_the_password(start, tmp_path, realm):
    registry, url = start(realm)
    with requests.Session() as session:
        session.headers["X-Api-Key"] = "header-secret"
        session.cookies.set("sid", "cookie-secret")
        session.cert = None
        download(url, tmp_path / "d", auth=USER, session=session)

    ((host, authorization),) = registry.asked
    assert host != "registry.example"
    assert authorization is None
    assert "secret" not in repr([r for r in registry.server.requests if not r.target.startswith("/v2/")])


@pytest.mark.parametrize("realm", [*FOREIGN, "http://registry.example:{port}/token"])
def test_cve_2026_48978_a_fixed_token_never_goes_to_a_realm(start, tmp_path, realm):
    registry, url = start(realm)
    with pytest.raises(tk.UnauthorizedError):
        download(url, tmp_path / "d", token="token-secret")

    assert [] == registry.asked


def test_cve_2026_48978_a_token_that_was_issued_is_not_shown_to_another_realm(start, tmp_path):
    """The registry changes its mind about the realm, in the hope to be sent what the first one gave."""
    registry, url = start("http://registry.example:{port}/token")
    plain = registry.__call__

    def turn(request):
        if request.target.startswith("/v2/") and request.headers.get("authorization") == "Bearer issued-1":
            registry.realm = "http://evil.example:{port}/token"
            return answer(
                401, b"", {"WWW-Authenticate": f'Bearer realm="{registry.realm.format(port=registry.server.port)}"'}
            )
        return plain(request)

    registry.server._script = turn
    download(url, tmp_path / "d", auth=USER)

    assert [("registry.example", BASIC), ("evil.example", None)] == registry.asked


@pytest.mark.parametrize(
    ("realm", "host"),
    [
        ("http://registry.example:{port}/token", "registry.example"),
        ("http://REGISTRY.example.:{port}/token", "registry.example"),
        ("/token", "registry.example"),
        ("https://sso.example:{port}/token", "sso.example"),
    ],
)
def test_cve_2026_48978_the_registrys_own_realm_and_an_allowed_one_see_the_password(start, tmp_path, realm, host):
    """A guard that refuses everything would pass the other tests too."""
    registry, url = start(realm.replace("https:", "http:"))
    options = tk.TransferOptions(transport=tk.TransportOptions(token_realms={"sso.example"}))
    download(url, tmp_path / "d", auth=USER, options=options)

    assert [(host, BASIC)] == registry.asked


def test_cve_2026_48978_a_private_realm_is_asked_once_the_user_names_it(start, failure, tmp_path):
    registry, url = start("http://10.0.0.1:{port}/token")
    error = failure(lambda: download(url, tmp_path / "d", auth=USER))
    assert isinstance(error, tk.ProtocolError)
    assert [] == registry.asked

    options = tk.TransferOptions(transport=tk.TransportOptions(token_realms={"10.0.0.1"}))
    download(url, tmp_path / "d", auth=USER, options=options)
    assert [("10.0.0.1", BASIC)] == registry.asked


@pytest.mark.parametrize(
    "realm",
    [
        "http://evil.example:80@registry.example:{port}/token",
        "http://registry.example:{port}\\@evil.example/token",
        "http://registry%2eexample:{port}/token",
        "http://r\xe9gistry.example:{port}/token",
        "//[::1",
        "http://[registry.example]/token",
        "file:///etc/passwd",
        "gopher://registry.example/",
    ],
)
def test_cve_2026_48978_a_realm_that_is_no_plain_url_is_refused(start, failure, names, tmp_path, realm):
    registry, url = start(realm)
    error = failure(lambda: download(url, tmp_path / "d", auth=USER))

    assert isinstance(error, tk.ProtocolError)
    assert ([], ["registry.example"]) == (registry.asked, names)


@pytest.mark.parametrize("host", ["registry.example", "auth.example"])
def test_cve_2026_48978_an_https_registry_has_no_http_realm(
    names, serve, serve_tls, authority, failure, tmp_path, monkeypatch, host
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.bundle)
    plain = serve(lambda request: answer(200, b'{"token": "t"}'))
    challenge = f'Bearer realm="http://{host}:{plain.port}/token"'
    server = serve_tls(lambda request: answer(401, b"", {"WWW-Authenticate": challenge}))
    allowed = frozenset({host, f"{host}:{plain.port}"})
    transport = tk.TransportOptions(token_realms=allowed, storage_hosts=allowed)
    options = tk.TransferOptions(transport=transport)
    url = f"https://registry.example:{server.port}"
    error = failure(lambda: download(url, tmp_path / "d", auth=USER, options=options))

    assert isinstance(error, tk.ProtocolError)
    assert "from https to http" in str(error)
    assert [] == plain.requests


def test_cve_2026_48978_a_token_service_that_redirects_is_not_followed(start, names, tmp_path):
    """ggcr #2292: its redirect leads wherever it likes, with whatever it was sent."""
    registry, url = start("http://registry.example:{port}/token")
    plain = registry.__call__

    def script(request):
        if not request.target.startswith("/v2/"):
            return answer(307, b"", {"Location": "http://evil.example/"})
        return plain(request)

    registry.server._script = script
    with pytest.raises(tk.UnauthorizedError):
        download(url, tmp_path / "d", auth=USER)

    assert {"registry.example"} == set(names)


@pytest.mark.parametrize("own_session", [True, False])
def test_cve_2019_10214_a_token_service_must_verify_too(
    names, serve_tls, authority, failure, tmp_path, tmp_path_factory, monkeypatch, own_session
):
    """Its certificate is of another authority than the registry's."""
    stranger = type(authority)(tmp_path_factory.mktemp("stranger"))
    with stranger.server(lambda request: answer(200, b'{"token": "t"}')) as service:
        challenge = f'Bearer realm="https://registry.example:{service.port}/token"'
        server = serve_tls(lambda request: answer(401, b"", {"WWW-Authenticate": challenge}))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.bundle)
        with requests.Session() as session:
            keywords = {} if own_session else {"session": session}
            url = f"https://registry.example:{server.port}"
            error = failure(lambda: download(url, tmp_path / "d", auth=USER, **keywords))

        assert isinstance(error, tk.CertificateError)
        assert [] == service.requests
    assert 1 == len(server.requests)


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_cve_2024_35195_verify_false_does_not_stick(names, serve_tls, authority, failure, tmp_path, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    server = serve_tls(lambda request: answer(200, b"hello"))
    url = f"https://registry.example:{server.port}"
    with requests.Session() as careless, requests.Session() as careful:
        careless.verify = False
        download(url, tmp_path / "1", session=careless)
        for keywords in ({"session": careful}, {}):
            error = failure(lambda keywords=keywords: download(url, tmp_path / "2", **keywords))
            assert isinstance(error, tk.CertificateError)
        careless.verify = True  # its connections are in the pool still
        error = failure(lambda: download(url, tmp_path / "2", session=careless))
        assert isinstance(error, tk.CertificateError)

    assert 1 == len(server.requests)


@pytest.mark.parametrize("own_session", [True, False])
def test_cve_2024_47081_netrc_is_for_nobody(start, tmp_path, monkeypatch, own_session):
    hosts = ("registry.example", "evil.example", "127.0.0.1")
    lines = [f"machine {host} login alice password netrc-secret\n" for host in hosts]
    (tmp_path / "netrc").write_text("".join([*lines, "default login alice password netrc-secret\n"]))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    registry, url = start("http://evil.example:{port}/token")
    with requests.Session() as session:
        download(url, tmp_path / "d", **({} if own_session else {"session": session}))

    assert [None, None, "Bearer issued-1"] == [r.headers.get("authorization") for r in registry.server.requests]


def test_cve_2023_32681_the_proxys_password_is_for_the_proxy(names, serve, tmp_path, monkeypatch):
    """A plain one sees whole requests; what it passes on is its own affair, so here the registry sees them."""
    monkeypatch.setenv("NO_PROXY", "direct.example")
    proxy = serve(
        lambda request: (
            answer(307, b"", {"Location": f"http://direct.example:{direct.port}/x"})
            if "/v2/" in request.target
            else answer(200, b"hello")
        )
    )
    direct = serve([answer(200, b"hello")])
    monkeypatch.setenv("HTTP_PROXY", f"http://user:proxy-secret@proxy.example:{proxy.port}")
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    # The registry is behind a proxy, and may be anywhere: that the other one is inside is for the user to say.
    options = tk.TransferOptions(transport=tk.TransportOptions(storage_hosts={"direct.example"}))
    download("http://registry.example:5000", tmp_path / "d", options=options)

    assert ["proxy-authorization" in r.headers for r in proxy.requests] == [True]
    assert ["proxy-authorization" in r.headers for r in direct.requests] == [False]
