"""Advisories: a registry that steers by redirects and upload locations gets nothing that is another's."""

from __future__ import annotations

import base64
import hashlib

import pytest
import requests

import transferkit as tk
from transferkit.testing import answer

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
BASIC = "Basic " + base64.b64encode(b"alice:password-secret").decode()
REDIRECTS = [301, 302, 303, 307, 308]
# What every HTTP request has, and what says which bytes are wanted. Nothing in it is of the user's.
HARMLESS = {"host", "user-agent", "accept", "accept-encoding", "connection", "content-length", "content-type", "range"}

ELSEWHERE = [
    "http://storage.example:{port}/x",
    "http://registry.example:{other}/x",
    "http://cdn.registry.example:{port}/x",
    "http://example:{port}/x",
    "http://registry.example.evil.example:{port}/x",
    "http://registry.example-evil.example:{port}/x",
    "http://xn--rgistry-bya.example:{port}/x",
    "HTTP://STORAGE.EXAMPLE:{port}/x",
    "http://storage.example.:{port}/x",
    "//storage.example:{port}/x",
]
AT_HOME = [
    "http://registry.example:{port}/x",
    "http://REGISTRY.Example:{port}/x",
    "http://registry.example.:{port}/x",
    "//registry.example:{port}/x",
    "/x",
]
REFUSED = [
    "http://registry.example:{port}@evil.example:{port}/x",
    "http://user:secret@registry.example:{port}/x",
    "http://evil.example:{port}\\@registry.example:{port}/x",
    "http://registry.example:{port}/x y",
    "http://registry.example:{port}/x\\y",
    "http://registry.example:{port}/x\x7f",
    "http://r\xe9gistry.example:{port}/x",
    "http://.registry.example:{port}/x",
    "http://registry%2eexample:{port}/x",
    "http://[v1.a]:{port}/x",
    "http:///x",
    "http://registry.example:port/x",
    "//[::1",
    "ftp://registry.example/x",
    "file:///etc/passwd",
]


@pytest.fixture
def session():
    """A session with every kind of secret that one can hold."""
    with requests.Session() as made:
        made.headers.update({"X-Api-Key": "header-secret", "Proxy-Authorization": "Basic proxy-secret"})
        made.cookies.set("sid", "cookie-secret")
        made.auth = ("alice", "password-secret")
        made.trust_env = False  # a CA bundle of the environment would go before the session's own
        yield made


@pytest.fixture
def public(names, serve):
    """``public(script)`` starts a registry with a public name, and returns its server and base URL."""

    def start(script, host="registry.example"):
        server = serve(script)
        return server, f"http://{host}:{server.port}"

    return start


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / HELLO.replace(":", "-")).write_bytes(b"hello")
    return tmp_path / "source"


def download(url, folder, **keywords):
    return tk.download([tk.Blob(HELLO, 5)], folder, base_url=url, repository=REPOSITORY, **keywords)


def upload(url, folder, **keywords):
    return tk.upload([tk.Blob(HELLO, 5)], folder, base_url=url, repository=REPOSITORY, **keywords)


def redirector(status, location):
    """A script that redirects what is asked of the API, and has the content everywhere else."""
    return lambda request: (
        answer(status, b"", {"Location": location()}) if request.target.startswith("/v2/") else answer(200, b"hello")
    )


def uploads_to(location):
    """A script of a registry whose upload sessions are at ``location``."""

    def script(request):
        if request.method == "HEAD":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        return answer(202, b"", {"Location": location()}) if request.method == "POST" else answer(201)

    return script


def assert_harmless(request):
    assert set(request.headers) <= HARMLESS, request.headers
    assert "secret" not in repr(request)


@pytest.mark.parametrize("location", ELSEWHERE)
@pytest.mark.parametrize("status", REDIRECTS)
def test_ghsa_vh4v_2xq2_g5cg_a_redirect_elsewhere_carries_nothing_of_the_users(
    public, serve, session, tmp_path, status, location
):
    other = serve([answer(200, b"hello")] * 3)
    server, url = public(redirector(status, lambda: location.format(port=server.port, other=other.port)))
    for number, keywords in enumerate(({"session": session}, {"token": "token-secret"})):
        download(url, tmp_path / str(number), **keywords)

    at_home = [r for r in server.requests if r.target.startswith("/v2/")]
    elsewhere = [r for r in server.requests if r.target == "/x"] + other.requests
    assert [BASIC, "Bearer token-secret"] == [r.headers.get("authorization") for r in at_home]
    assert ("header-secret", "sid=cookie-secret") == tuple(at_home[0].headers[n] for n in ("x-api-key", "cookie"))
    assert 2 == len(elsewhere)
    for request in elsewhere:
        assert_harmless(request)


@pytest.mark.parametrize("location", AT_HOME)
def test_ghsa_vh4v_2xq2_g5cg_another_spelling_of_the_same_origin_keeps_them(public, session, tmp_path, location):
    server, url = public(redirector(307, lambda: location.format(port=server.port)))
    download(url, tmp_path / "d", session=session)

    assert [("/x", BASIC, "header-secret", "sid=cookie-secret")] == [
        (r.target, r.headers.get("authorization"), r.headers.get("x-api-key"), r.headers.get("cookie"))
        for r in server.requests[1:]
    ]


@pytest.mark.parametrize("location", REFUSED)
def test_ghsa_vh4v_2xq2_g5cg_a_url_that_two_readers_read_in_two_ways_is_refused(
    public, names, failure, tmp_path, location
):
    server, url = public(redirector(307, lambda: location.format(port=server.port)))
    error = failure(lambda: download(url, tmp_path / "d", token="token-secret"))

    assert isinstance(error, tk.ProtocolError)
    assert (1, ["registry.example"]) == (len(server.requests), names)


def test_ghsa_vh4v_2xq2_g5cg_two_readings_of_an_international_name_are_not_one_origin(public, names, failure, tmp_path):
    """IDNA 2003 reads the sharp s as "ss", IDNA 2008 as a letter: two hosts, and one of them has the token."""
    server, url = public(redirector(307, lambda: f"http://fa\xdf.de:{server.port}/x"), host="fass.de")
    error = failure(lambda: download(url, tmp_path / "d", token="token-secret"))

    assert isinstance(error, tk.ProtocolError)
    assert ["fass.de"] == names


def test_ghsa_vh4v_2xq2_g5cg_who_has_been_elsewhere_comes_back_without_credentials(public, session, tmp_path):
    """Or else a storage host chooses what is asked of the registry in the user's name."""

    def script(request):
        if request.target.startswith("/v2/"):
            return answer(307, b"", {"Location": f"http://storage.example:{server.port}/first"})
        if request.target == "/first":
            return answer(307, b"", {"Location": f"http://registry.example:{server.port}/v3/delete-everything"})
        return answer(200, b"hello")

    server, url = public(script)
    download(url, tmp_path / "d", session=session, token="token-secret")

    assert ["/first", "/v3/delete-everything"] == [r.target for r in server.requests[1:]]
    for request in server.requests[1:]:
        assert_harmless(request)


@pytest.mark.parametrize("status", [307, 308])
def test_cve_2026_49349_an_upload_that_is_redirected_sends_the_body_and_nothing_else(public, session, source, status):
    def script(request):
        if request.method == "PUT" and request.target.startswith("/v2/"):
            return answer(status, b"", {"Location": f"http://storage.example:{server.port}/bucket?X-Amz-Signature=1"})
        return uploads_to(lambda: "/v2/session/1")(request)

    server, url = public(script)
    upload(url, source, session=session)

    last = server.requests[-1]
    assert ("PUT", "/bucket?X-Amz-Signature=1", b"hello") == (last.method, last.target, last.body)
    assert_harmless(last)


@pytest.mark.parametrize("status", [301, 302, 303])
def test_cve_2023_45803_a_redirect_that_turns_an_upload_into_a_get_is_refused(public, failure, source, status):
    def script(request):
        if request.method == "PUT":
            return answer(status, b"", {"Location": f"http://storage.example:{server.port}/x"})
        return uploads_to(lambda: "/v2/session/1")(request)

    server, url = public(script)
    error = failure(lambda: upload(url, source, token="token-secret"))

    assert isinstance(error, tk.ProtocolError)
    assert ["HEAD", "POST", "PUT"] == [r.method for r in server.requests]


@pytest.mark.parametrize("location", ELSEWHERE)
def test_cve_2026_50151_an_upload_location_elsewhere_gets_no_credentials(public, serve, session, source, location):
    other = serve(lambda request: answer(201))
    server, url = public(uploads_to(lambda: location.format(port=server.port, other=other.port)))
    upload(url, source, session=session)

    (request,) = [r for r in server.requests + other.requests if r.method == "PUT"]
    assert (f"/x?digest={HELLO}", b"hello") == (request.target, request.body)
    assert_harmless(request)


@pytest.mark.parametrize("location", REFUSED)
def test_cve_2026_50151_an_upload_location_that_is_no_plain_url_is_refused(public, failure, source, location):
    server, url = public(uploads_to(lambda: location.format(port=server.port)))
    error = failure(lambda: upload(url, source, token="token-secret"))

    assert isinstance(error, tk.ProtocolError)
    assert ["HEAD", "POST"] == [r.method for r in server.requests]


def test_cve_2026_50151_an_upload_that_has_been_elsewhere_does_not_come_back(public, failure, source):
    """Or else the host elsewhere chooses where in the registry the user's credentials are used."""

    def script(request):
        if request.method == "POST" and request.target.startswith("/v2/"):
            return answer(307, b"", {"Location": f"http://storage.example:{server.port}/begin"})
        return uploads_to(lambda: f"http://registry.example:{server.port}/v2/library/victim/uploads/1")(request)

    server, url = public(script)
    error = failure(lambda: upload(url, source, token="token-secret"))

    assert isinstance(error, tk.ProtocolError)
    assert ["HEAD", "POST", "POST"] == [r.method for r in server.requests]


def there_and_back(server, request, path):
    """Answer the first two requests of a detour: the registry to a storage host, and that back to ``path``."""
    host = "registry" if request.target == "/detour" else "storage"
    target = path if request.target == "/detour" else "/detour"
    return answer(307, b"", {"Location": f"http://{host}.example:{server.port}{target}"})


def test_cve_2026_50151_an_upload_that_came_back_is_not_gone_on_with(public, failure, source):
    """The registry answers in the end, but the host elsewhere has chosen the URL that its Location is relative to."""

    def script(request):
        if request.method == "POST" and "victim" not in request.target:
            return there_and_back(server, request, "/v2/library/victim/blobs/uploads/")
        return uploads_to(lambda: "session")(request)

    server, url = public(script)
    error = failure(lambda: upload(url, source, token="token-secret"))

    assert isinstance(error, tk.ProtocolError)
    assert ["HEAD", "POST", "POST", "POST"] == [r.method for r in server.requests]


def test_cve_2026_50151_an_upload_that_has_begun_does_not_go_on_where_it_was_led(public, failure, tmp_path):
    """The same for the Location that answers a part."""
    data = bytes(2 * 1024 * 1024)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    (tmp_path / digest.replace(":", "-")).write_bytes(data)

    def script(request):
        if request.method == "PATCH" and "victim" not in request.target:
            return there_and_back(server, request, "/v2/library/victim/blobs/uploads/1")
        if request.method == "PATCH":
            return answer(202, b"", {"Location": "session", "Range": f"0-{len(request.body) - 1}"})
        return uploads_to(lambda: "/v2/session/1")(request)

    server, url = public(script)
    options = tk.TransferOptions(part_size=1024 * 1024)
    error = failure(
        lambda: tk.upload(
            [tk.Blob(digest, len(data))],
            tmp_path,
            base_url=url,
            repository=REPOSITORY,
            token="token-secret",
            options=options,
        )
    )

    assert isinstance(error, tk.ProtocolError)
    assert ["HEAD", "POST", "PATCH", "PATCH", "PATCH"] == [r.method for r in server.requests]


@pytest.mark.parametrize("listed", ["blob", "/v2/library/victim/blobs/1"])
def test_cve_2026_50151_a_list_of_chunks_that_came_back_does_not_say_where_the_blob_is(public, tmp_path, listed):
    def script(request):
        if "victim" in request.target:
            return answer(200, f"{HELLO} 0-4\n".encode(), {"Content-Location": listed})
        if request.target == "/detour" or "/chunksums/" in request.target:
            return there_and_back(server, request, "/v2/library/victim/chunksums/1")
        return answer(206, b"hello", {"Content-Range": "bytes 0-4/5"}) if "range" in request.headers else answer(404)

    server, url = public(script)
    options = tk.TransferOptions(chunk_threshold=1, resume_threshold=1)
    download(url, tmp_path / "d", token="token-secret", options=options)

    (led,) = (r for r in server.requests if "victim" in r.target)
    assert_harmless(led)
    assert f"/v2/{REPOSITORY}/blobs/{HELLO}" == server.requests[-1].target


@pytest.mark.parametrize("host", ["storage.example", "registry.example"])
def test_cve_2018_18074_https_never_becomes_http(
    names, serve, serve_tls, authority, failure, tmp_path, source, monkeypatch, host
):
    """regclient 1a80807: not for a redirect, not for an upload, and not on the second hop either."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.bundle)
    plain = serve(lambda request: answer(200, b"hello"))
    down = f"http://{host}:{plain.port}/x?X-Signature=query-secret"

    def script(request):
        if "/two-hops/" in request.target:
            return answer(307, b"", {"Location": f"https://storage.example:{server.port}/second"})
        if request.target == "/second" or request.method == "GET":
            return answer(307, b"", {"Location": down})
        return uploads_to(lambda: down)(request)

    server = serve_tls(script)
    url = f"https://registry.example:{server.port}"
    for call in (
        lambda: download(url, tmp_path / "d", token="t"),
        lambda: tk.download([tk.Blob(HELLO, 5)], tmp_path / "d", base_url=url, repository="two-hops/x"),
        lambda: tk.fetch_manifest("v1", base_url=url, repository=REPOSITORY),
        lambda: upload(url, source, token="t"),
    ):
        error = failure(call)
        assert isinstance(error, tk.ProtocolError)
        assert "from https to http" in str(error)
        assert "query-secret" not in str(error)
    assert [] == plain.requests


def test_ghsa_h3wm_jjqf_8jm2_the_client_certificate_is_for_the_registry_alone(
    names, serve_tls, authority, session, tmp_path
):
    other = serve_tls([answer(200, b"hello")])
    server = serve_tls(redirector(307, lambda: f"https://storage.example:{other.port}/x"))
    session.verify = authority.bundle
    session.cert = authority.client_certificate
    download(f"https://registry.example:{server.port}", tmp_path / "d", session=session)

    assert ([True], [False]) == (server.certificates, other.certificates)
    assert_harmless(other.requests[0])


def test_ghsa_h3wm_jjqf_8jm2_the_client_certificate_is_not_for_another_port_either(
    names, serve_tls, authority, session, source
):
    other = serve_tls([answer(201)])
    server = serve_tls(uploads_to(lambda: f"https://registry.example:{other.port}/x"))
    session.verify = authority.bundle
    session.cert = authority.client_certificate
    upload(f"https://registry.example:{server.port}", source, session=session)

    assert ([True], [False]) == (server.certificates, other.certificates)


def test_ghsa_h3wm_jjqf_8jm2_a_proxy_under_tls_sees_no_client_certificate(
    names, serve_tls, authority, session, failure, impatient, tmp_path
):
    proxy = serve_tls(lambda request: answer(502))
    session.verify = authority.bundle
    session.cert = authority.client_certificate
    session.proxies = {"https": f"https://proxy.example:{proxy.port}"}
    url = "https://registry.example:5000"
    failure(lambda: download(url, tmp_path / "d", session=session, token="token-secret", options=impatient))

    assert {("CONNECT", "registry.example:5000")} == {(r.method, r.target) for r in proxy.requests}
    assert {False} == set(proxy.certificates)
    assert "secret" not in repr(proxy.requests)


def test_ghsa_whvf_jp7m_59f3_custom_headers_are_for_the_registry_alone(public, session, tmp_path, failure):
    """Neither the redirect's target nor a token service on another host."""

    def script(request):
        if "/token" in request.target or "/x" in request.target:
            return answer(200, b'{"token": "issued"}' if "/token" in request.target else b"hello")
        if request.headers.get("authorization") != "Bearer issued":
            realm = f'Bearer realm="http://auth.example:{server.port}/token",service="r"'
            return answer(401, b"", {"WWW-Authenticate": realm})
        return answer(302, b"", {"Location": f"http://storage.example:{server.port}/x"})

    server, url = public(script)
    session.auth = None
    download(url, tmp_path / "d", session=session)

    elsewhere = [r for r in server.requests if not r.headers["host"].startswith("registry.")]
    assert ["auth.example", "storage.example"] == [r.headers["host"].partition(":")[0] for r in elsewhere]
    for request in elsewhere:
        assert_harmless(request)
    assert {"header-secret"} == {r.headers["x-api-key"] for r in server.requests if r not in elsewhere}


def test_ggcr_2349_a_401_at_the_second_host_brings_no_token_of_the_first(public, failure, impatient, tmp_path):
    def script(request):
        host = request.headers["host"].partition(":")[0]
        if "/token" in request.target:
            return answer(200, b'{"token": "%s"}' % (b"token-secret" if host == "registry.example" else b"abroad"))
        if host != "registry.example" or request.headers.get("authorization") != "Bearer token-secret":
            realm = f'Bearer realm="http://{host}:{server.port}/token",service="r"'
            return answer(401, b"", {"WWW-Authenticate": realm})
        return answer(302, b"", {"Location": f"http://storage.example:{server.port}/x"})

    server, url = public(script)
    options = impatient
    error = failure(lambda: download(url, tmp_path / "d", auth=("alice", "password-secret"), options=options))

    assert isinstance(error.__cause__ or error, tk.UnauthorizedError)
    elsewhere = [r for r in server.requests if r.headers["host"].startswith("storage.")]
    # It is asked for an anonymous token of its own, and sees that one alone.
    assert {"/x", "/token?service=r"} == {r.target for r in elsewhere}
    assert {None, "Bearer abroad"} == {r.headers.pop("authorization", None) for r in elsewhere}
    for request in elsewhere:
        assert_harmless(request)
