"""Advisories: no secret is in an error, in its pickle, in its traceback, or in a debug log."""

from __future__ import annotations

import base64
import pickle
import socket
import traceback
from dataclasses import replace

import pytest
import requests

import transferkit as tk
from transferkit.testing import Close, answer, bad_status_line, never, truncated
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
USER = ("alice", "password-secret")
SECRETS = ("-secret", base64.b64encode(b"alice:password-secret").decode(), base64.b64encode(b"u:user-secret").decode())
SIGNED = "X-Amz-Credential=AKIA&X-Amz-Signature=query-secret#fragment-secret"

# What a storage host says to a signed URL.
STORAGE = {
    "the content": lambda: answer(200, b"hello"),
    "other content": lambda: answer(200, b"HELLO"),
    "too much": lambda: answer(200, b"hello, hello"),
    "400": lambda: answer(400, b"<Error><Code>AuthorizationQueryParametersError</Code></Error>"),
    "403": lambda: answer(403, b"<Error><Code>AccessDenied</Code></Error>"),
    "404": lambda: answer(404),
    "429": lambda: answer(429, b"", {"Retry-After": "0"}),
    "500": lambda: answer(500, b"oops"),
    "a redirect to nowhere": lambda: answer(302, b"", {"Location": f"http://nowhere.example/?{SIGNED}"}),
    "a redirect without an aim": lambda: answer(302),
    "a redirect to a file": lambda: answer(302, b"", {"Location": f"file:///etc/passwd?{SIGNED}"}),
    "itself": lambda: answer(307, b"", {"Location": f"?{SIGNED}"}),
    "cut off": lambda: truncated(b"hel", 5),
    "two lengths": lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "no HTTP": lambda: bad_status_line(),
    "nothing": lambda: [Close()],
    "silence": lambda: [never()],
}
# Where a registry sends us, other than to a storage host that answers.
LOCATIONS = {
    "a closed port": "http://storage.example:{closed}/x?{signed}",
    "an unknown host": "http://nowhere.example/x?{signed}",
    "a certificate that does not verify": "https://storage.example:{tls}/x?{signed}",
    "a private address": "http://10.0.0.1/x?{signed}",
    "a user name": "http://u:user-secret@storage.example/x?{signed}",
    "a user name in a URL that does not parse": "http://u:user-secret@storage.example:port/x?{signed}",
    "a user name in a host that is none": "http://u:user-secret@[::1/x?{signed}",
    "a user name in a relative URL that does not parse": "//u:user-secret@[::1/x?{signed}",
    "a host that is no name": "http://.storage.example/x?{signed}",
    "another scheme": "ftp://u:user-secret@storage.example/x?{signed}",
    "a blank": "http://storage.example/x y?{signed}",
    "itself": "?{signed}",
}


@pytest.fixture(params=["own session", "session of the user's"])
def session(request):
    with requests.Session() as made:
        yield None if request.param == "own session" else made


@pytest.fixture
def closed():
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / HELLO.replace(":", "-")).write_bytes(b"hello")
    return tmp_path / "source"


@pytest.fixture
def hasty():
    return tk.TransferOptions(
        retry=tk.RetryOptions(attempts=1, patience=0.0, max_wait=0.01, free_restarts=0),
        transport=tk.TransportOptions(response_timeout=0.3, commit_timeout=0.3),
    )


def texts(error, *, hidden):
    """What somebody may print of an error and of those its traceback shows; with ``hidden`` also what that leaves out.

    Not the traceback as a whole: it repeats the lines of this file.
    """
    seen, queue = set(), [error]
    while queue:
        error = queue.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield from (str(error), repr(error), repr(error.args), *traceback.format_exception_only(error))
        if isinstance(error, tk.TransferKitError):
            yield repr(vars(error))
            yield pickle.dumps(error).decode("latin-1")
        queue += [error.__cause__, error.__context__ if hidden or not error.__suppress_context__ else None]
        queue += getattr(error, "failures", {}).values()


@pytest.fixture
def assert_discreet(caplog, session):
    """Run a call, which may fail, and look for secrets in its error and in the debug log."""
    caplog.set_level("DEBUG")

    def check(call):
        try:
            call()
        except tk.TransferKitError as error:
            for text in texts(error, hidden=session is None):
                for secret in SECRETS:
                    assert secret not in text
        # What urllib3 logs of a session of the user's is between the two of them.
        logged = [r for r in caplog.records if session is None or r.name.startswith("transferkit")]
        for record in logged:
            for text in (record.getMessage(), repr(record.args), repr(record.exc_info)):
                for secret in SECRETS:
                    assert secret not in text, record.name

    return check


@pytest.mark.parametrize("said", STORAGE.values(), ids=STORAGE)
def test_ghsa_5jhf_2qmf_m8c5_a_signed_url_that_is_answered(
    names, serve, session, assert_discreet, hasty, tmp_path, source, said
):
    """containerd 7b11d6cae, aria2 CVE-2019-3500, dragonfly #4634: the same, in an error, in a log, of a token."""

    def script(request):
        if request.target.startswith("/v2/"):
            if request.method == "HEAD":
                return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            location = f"http://storage.example:{server.port}/x?{SIGNED}"
            return answer(202 if request.method == "POST" else 307, b"", {"Location": location})
        return said()

    server = serve(script)
    where = {
        "base_url": f"http://registry.example:{server.port}",
        "repository": REPOSITORY,
        "token": "token-secret",
        "session": session,
        "options": hasty,
    }
    assert_discreet(lambda: tk.download([tk.Blob(HELLO, 5)], tmp_path / "d", **where))
    assert_discreet(lambda: tk.fetch_manifest("v1", **where))
    assert_discreet(lambda: tk.upload([tk.Blob(HELLO, 5)], source, **where))
    assert any("query-secret" in r.target for r in server.requests)


@pytest.mark.parametrize("location", LOCATIONS.values(), ids=LOCATIONS)
def test_ghsa_5jhf_2qmf_m8c5_a_signed_url_that_leads_nowhere(
    names, serve, serve_tls, closed, session, assert_discreet, hasty, tmp_path, source, location
):
    tls = serve_tls(lambda request: answer(200, b"hello"))

    def script(request):
        if request.method == "HEAD":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        target = location.format(tls=tls.port, closed=closed, signed=SIGNED)
        return answer(202 if request.method == "POST" else 307, b"", {"Location": target})

    server = serve(script)
    where = {
        "base_url": f"http://registry.example:{server.port}",
        "repository": REPOSITORY,
        "token": "token-secret",
        "session": session,
        "options": hasty,
    }
    assert_discreet(lambda: tk.download([tk.Blob(HELLO, 5)], tmp_path / "d", **where))
    assert_discreet(lambda: tk.fetch_manifest("v1", **where))
    assert_discreet(lambda: tk.upload([tk.Blob(HELLO, 5)], source, **where))


REALM = "http://registry.example:{port}/token?{signed}"
# What a token service says.
TOKENS = {
    "a token": lambda: answer(200, b'{"token": "token-secret", "refresh_token": "refresh-secret"}'),
    "a token with blanks": lambda: answer(200, b'{"token": "blanks-secret with blanks"}'),
    "no JSON": lambda: answer(200, b"token-secret"),
    "401": lambda: answer(401, b'{"details": "incorrect password"}'),
    "503": lambda: answer(503),
    "nothing": lambda: [Close()],
}


@pytest.mark.parametrize(
    ("realm", "said"),
    [(REALM, said) for said in TOKENS.values()] + [(realm, TOKENS["a token"]) for realm in LOCATIONS.values()],
    ids=[*TOKENS, *LOCATIONS],
)
def test_cve_2019_3500_neither_password_nor_token_of_the_dance_is_told(
    names, serve, serve_tls, closed, session, assert_discreet, hasty, realm, said
):
    tls = serve_tls(lambda request: answer(200, b'{"token": "token-secret"}'))

    def script(request):
        if not request.target.startswith("/v2/"):
            return said()
        value = realm.format(port=server.port, tls=tls.port, closed=closed, signed=SIGNED.partition("#")[0])
        return answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{value}",service="r"'})

    server = serve(script)
    where = {
        "base_url": f"http://registry.example:{server.port}",
        "repository": REPOSITORY,
        "session": session,
        "options": hasty,
    }
    assert_discreet(lambda: tk.fetch_manifest("v1", auth=USER, **where))
    assert_discreet(lambda: tk.fetch_manifest("v1", get_token=lambda challenge: "token secret", **where))
    assert_discreet(lambda: tk.fetch_manifest("v1", auth=lambda host: ("alice", "password-secret", "x"), **where))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cve_2019_3500_the_proxys_password_is_not_told(
    names, serve, closed, session, assert_discreet, hasty, monkeypatch, scheme
):
    monkeypatch.setenv("NO_PROXY", "")
    refusing = serve(lambda request: answer(407))
    for port in (closed, refusing.port):
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://u:user-secret@proxy.example:{port}")
        assert_discreet(
            lambda: tk.fetch_manifest(
                "v1",
                base_url=f"{scheme}://registry.example",
                repository=REPOSITORY,
                token="token-secret",
                session=session,
                options=hasty,
            )
        )
    assert len(refusing.requests) >= 1


def test_ghsa_5jhf_2qmf_m8c5_a_signed_url_through_a_proxy(
    names, serve, session, assert_discreet, hasty, monkeypatch, tmp_path
):
    """There urllib3 sends it, which repeats every URL it is given in its debug log and in its errors."""

    def script(request):
        if "/v2/" in request.target:
            return answer(307, b"", {"Location": f"http://storage.example/a%2fb?{SIGNED}"})
        return [Close()] if broken else answer(200, b"hello")

    proxy = serve(script)
    monkeypatch.setenv("HTTP_PROXY", f"http://proxy.example:{proxy.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for broken in (False, True):
        assert_discreet(
            lambda folder=tmp_path / str(broken): tk.download(
                [tk.Blob(HELLO, 5)],
                folder,
                base_url="http://registry.example",
                repository=REPOSITORY,
                session=session,
                options=replace(hasty, transport=tk.TransportOptions()),  # nothing here is silent
            )
        )
    if session is None:  # a session of the user's re-quotes
        assert f"http://storage.example/a%2fb?{SIGNED.partition('#')[0]}" in [r.target for r in proxy.requests]


def test_ghsa_5jhf_2qmf_m8c5_a_header_that_cannot_be_sent_is_not_repeated(serve):
    server = serve([])
    with requests.Session() as session:
        session.headers["X-Api-Key"] = "header-secret\r\nX-Evil: 1"
        with pytest.raises(tk.ProtocolError) as caught:
            tk.fetch_manifest("v1", base_url=server.url, repository=REPOSITORY, session=session)
    for text in texts(caught.value, hidden=False):
        assert "-secret" not in text
    assert [] == server.requests


def test_cve_2019_3500_no_repr_tells_a_secret():
    with Hosts(auth=USER, token="token-secret") as hosts:
        client = Client("http://registry.example", hosts)
        host = hosts.at(client.origin)
        shown = repr([hosts, client, host, host.authorizer, client.options])

    assert "secret" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "http://u:user-secret@registry.example",
        "http://registry.example/?key=query-secret",
        "http://registry.example/#fragment-secret",
        "u:user-secret@registry.example",
        "http://u:user-secret@[::1",
    ],
)
def test_ghsa_5jhf_2qmf_m8c5_a_base_url_with_a_secret_is_refused_without_it(url):
    with pytest.raises(tk.InvalidNameError) as caught:
        tk.fetch_manifest("v1", base_url=url, repository=REPOSITORY)
    for text in texts(caught.value, hidden=True):
        assert "-secret" not in text
