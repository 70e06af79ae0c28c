"""Credentials and tokens: the dance, who sees which secret, renewal, and no loop."""

from __future__ import annotations

import base64
import json
import threading
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import parse_qs

import pytest

import transferkit as tk
from transferkit.server.serve import serving
from transferkit.testing.registry import running_registry

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
USER = ("alice", "s3cret:with colon")
BASIC = "Basic " + base64.b64encode(b"alice:s3cret:with colon").decode()


def rights(scopes: set[str]) -> set[tuple[str, str]]:
    """Return each resource with each of its actions."""
    return {(scope.rpartition(":")[0], action) for scope in scopes for action in scope.rpartition(":")[2].split(",")}


class TokenService:
    """A token service and the guard of a registry that trusts it."""

    def __init__(self, *, lifetime: float = 3600.0, need_password: bool = False) -> None:
        self.lifetime = lifetime
        self.need_password = need_password
        self.asked: list[tuple[str | None, dict[str, list[str]]]] = []
        self.issued: dict[str, tuple[float, set[str]]] = {}
        self.refusals = 0
        self.realm = ""
        self.answer: bytes | None = None
        self.headers: list[tuple[str, str]] = []
        self.status = "200 OK"
        self._lock = threading.Lock()

    def __call__(self, environ, start_response):
        query = parse_qs(environ["QUERY_STRING"])
        with self._lock:
            self.asked.append((environ.get("HTTP_AUTHORIZATION"), query))
            token = f"token-{len(self.asked)}"
            self.issued[token] = (time.monotonic() + self.lifetime, set(query.get("scope", [])))
        status, body = self.status, self.answer
        if self.need_password and environ.get("HTTP_AUTHORIZATION") != BASIC:
            status, body = "401 Unauthorized", b"{}"
        if body is None:
            body = json.dumps({"token": token, "expires_in": self.lifetime}).encode()
        start_response(status, [("Content-Length", str(len(body))), *self.headers])
        return [body]

    def guard(self, app):
        def middle(environ, start_response):
            wanted = self.scopes(environ)
            token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
            ends, scopes = self.issued.get(token, (0.0, set()))
            if time.monotonic() < ends and rights(wanted) <= rights(scopes):
                return app(environ, start_response)
            with self._lock:
                self.refusals += 1
            challenge = f'Bearer realm="{self.realm}",service="test",scope="{" ".join(sorted(wanted))}"'
            body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
            start_response("401 Unauthorized", [("WWW-Authenticate", challenge), ("Content-Length", str(len(body)))])
            return [body]

        return middle

    @staticmethod
    def scopes(environ) -> set[str]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        repository = path.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
        actions = "pull" if method in ("GET", "HEAD") else "pull,push"
        wanted = {f"repository:{repository}:{actions}"}
        source = parse_qs(environ["QUERY_STRING"]).get("from")
        return wanted | {f"repository:{source[0]}:pull"} if source else wanted


@contextmanager
def guarded(service: TokenService, realm_host: str = "127.0.0.1"):
    """Run a token service, and a registry on another port that wants its tokens."""
    with ExitStack() as stack:
        url = stack.enter_context(serving(service, host="127.0.0.1"))
        service.realm = url.replace("127.0.0.1", realm_host) + "/token"
        yield stack.enter_context(running_registry(middleware=service.guard))


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


@pytest.fixture
def blobs(make_blobs, source):
    return make_blobs(source, [20_000] * 40)


def upload(registry, blobs, source, **keywords):
    return tk.upload(blobs, source, base_url=registry.url, repository=REPOSITORY, **keywords)


def download(registry, blobs, folder, **keywords):
    return tk.download(blobs, folder, base_url=registry.url, repository=REPOSITORY, **keywords)


def test_the_anonymous_dance_takes_one_token_request_a_scope(blobs, source, tmp_path, assert_exactly):
    service = TokenService()
    with guarded(service) as registry:
        upload(registry, blobs, source)
        download(registry, blobs, tmp_path / "d")

    # HEAD, POST and PUT of an upload share a token: the first challenge names pull alone, the rest is known here.
    assert [[f"repository:{REPOSITORY}:pull,push"], [f"repository:{REPOSITORY}:pull"]] == [
        query["scope"] for _, query in service.asked
    ]
    authorization, query = service.asked[1]
    assert authorization is None
    assert {"service": ["test"], "scope": [f"repository:{REPOSITORY}:pull"]} == query
    assert_exactly(tmp_path / "d", blobs)


def test_the_password_goes_to_the_registrys_own_host_on_another_port(blobs, source):
    service = TokenService(need_password=True)
    with guarded(service) as registry:
        upload(registry, blobs, source, auth=USER)

        assert {BASIC} == {authorization for authorization, _ in service.asked}
        assert not [r for r in registry.log if r.headers.get("authorization", "").startswith("Basic")]


def test_auth_may_be_a_function_of_the_host(blobs, source):
    hosts = []

    def auth(host: str):
        hosts.append(host)
        return USER

    service = TokenService(need_password=True)
    with guarded(service) as registry:
        upload(registry, blobs[:1], source, auth=auth)

        assert {registry.url.removeprefix("http://")} == set(hosts)


def test_a_realm_on_a_foreign_host_gets_no_password_and_the_error_names_the_option(blobs, source):
    """CVE-2026-48978, CVE-2025-51471."""
    service = TokenService(need_password=True)
    with guarded(service, "localhost") as registry:
        with pytest.raises(tk.UnauthorizedError, match=r"token_realms=.*localhost") as caught:
            upload(registry, blobs, source, auth=USER)

    assert {None} == {authorization for authorization, _ in service.asked}
    assert "s3cret" not in str(caught.value)


def test_a_realm_that_the_user_allows_gets_the_password(blobs, source):
    service = TokenService(need_password=True)
    with guarded(service, "localhost") as registry:
        options = tk.TransferOptions(transport=tk.TransportOptions(token_realms={"localhost"}))
        upload(registry, blobs, source, auth=USER, options=options)

    assert {BASIC} == {authorization for authorization, _ in service.asked}


def test_basic_credentials_are_sent_when_asked_for(blobs, source, tmp_path, assert_exactly):
    def guard(app):
        def middle(environ, start_response):
            if environ.get("HTTP_AUTHORIZATION") == BASIC:
                return app(environ, start_response)
            start_response("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="r"'), ("Content-Length", "0")])
            return [b""]

        return middle

    with running_registry(middleware=guard) as registry:
        upload(registry, blobs, source, auth=USER)
        download(registry, blobs, tmp_path / "d", auth=USER)
        assert_exactly(tmp_path / "d", blobs)
        with pytest.raises(tk.UnauthorizedError, match="pass auth="):
            download(registry, blobs, tmp_path / "e")
        with pytest.raises(tk.UnauthorizedError) as caught:
            download(registry, blobs, tmp_path / "e", auth=("alice", "wrong-one"))
        assert "wrong-one" not in repr(caught.value)


def test_a_fixed_token_is_sent_from_the_first_request_on(blobs, source):
    service = TokenService()
    service.issued["fixed"] = (
        time.monotonic() + 60,
        {f"repository:{REPOSITORY}:pull,push", f"repository:{REPOSITORY}:pull"},
    )
    with guarded(service) as registry:
        upload(registry, blobs, source, token="fixed")

    assert (0, []) == (service.refusals, service.asked)


def test_a_fixed_token_that_is_refused_is_final(blobs, source):
    service = TokenService()
    with guarded(service) as registry:
        with pytest.raises(tk.UnauthorizedError) as caught:
            upload(registry, blobs, source, token="stale-secret")

        assert len(registry.log) <= 64
    assert service.asked == []
    assert "stale-secret" not in str(caught.value)


def test_get_token_is_called_once_however_many_threads_see_a_401(blobs, source):
    service = TokenService()
    challenges = []

    def get_token(challenge: tk.AuthChallenge) -> str:
        challenges.append(challenge)
        time.sleep(0.05)
        token = f"mine-{len(challenges)}"
        service.issued[token] = (time.monotonic() + 60, {*challenge.scopes, f"repository:{REPOSITORY}:pull"})
        return token

    with guarded(service) as registry:
        upload(registry, blobs, source, get_token=get_token)
        assert 1 <= len(challenges) <= 2  # HEAD asks for pull, POST for push: two scopes at the most
        challenges.clear()
        service.issued.clear()
        with pytest.raises(tk.NotFoundError):
            tk.fetch_manifest("v1", base_url=registry.url, repository=REPOSITORY, get_token=get_token)

    (challenge,) = challenges
    assert ("bearer", service.realm, "test") == (challenge.scheme, challenge.realm, challenge.service)


@pytest.mark.parametrize("token", ["", "two words", "a\r\nX-Evil: 1", "t\u00f6ken", None])
def test_a_token_that_could_smuggle_a_header_is_refused(blobs, source, token):
    service = TokenService()
    with guarded(service) as registry:
        with pytest.raises((tk.ProtocolError, tk.IncompleteError)):
            upload(registry, blobs[:1], source, get_token=lambda challenge: token)
        assert not [r for r in registry.log if "x-evil" in r.headers]


def test_an_error_of_get_token_is_the_users_own(blobs, source):
    def get_token(challenge):
        raise KeyError("vault")

    with guarded(TokenService()) as registry, pytest.raises(KeyError, match="vault"):
        upload(registry, blobs, source, get_token=get_token)


def test_a_mount_asks_for_both_scopes_at_once(blobs, source):
    service = TokenService()
    with guarded(service) as registry:
        tk.upload(blobs[:1], source, base_url=registry.url, repository="library/other")
        service.asked.clear()
        report = upload(registry, [tk.Blob(blobs[0].digest, blobs[0].size, source="library/other")], source)

    assert 1 == report.mounted
    assert ["repository:library/model:pull,push", "repository:library/other:pull"] == sorted(
        service.asked[-1][1]["scope"]
    )


def test_a_token_that_ends_during_the_job_is_renewed(make_blobs, source, tmp_path, assert_exactly):
    service = TokenService(lifetime=0.4)
    blobs = make_blobs(source, [1000] * 60)

    def slow(app):
        guard = service.guard(app)

        def middle(environ, start_response):
            time.sleep(0.02)
            return guard(environ, start_response)

        return middle

    with ExitStack() as stack:
        service.realm = stack.enter_context(serving(service, host="127.0.0.1")) + "/token"
        registry = stack.enter_context(running_registry(middleware=slow))
        upload(registry, blobs, source, concurrency=2)
        download(registry, blobs, tmp_path / "d", concurrency=1)

    assert len(service.asked) >= 4
    assert_exactly(tmp_path / "d", blobs)


def test_a_401_in_the_middle_of_an_upload_sends_the_body_again(make_blobs, source):
    """The registry forgets its tokens between the POST and the PUT."""
    service = TokenService()
    (blob,) = make_blobs(source, [300_000])

    def forgetful(app):
        guard = service.guard(app)

        def middle(environ, start_response):
            if environ["REQUEST_METHOD"] == "PUT" and not forgotten:
                forgotten.append(True)
                service.issued.clear()
            return guard(environ, start_response)

        return middle

    forgotten: list[bool] = []
    calls = []
    with ExitStack() as stack:
        service.realm = stack.enter_context(serving(service, host="127.0.0.1")) + "/token"
        registry = stack.enter_context(running_registry(middleware=forgetful))
        upload(registry, [blob], source, progress=lambda *figures: calls.append(figures))

        assert 300_000 == registry.blob_path(blob.digest).stat().st_size
    assert calls[-1] == (300_000, 300_000)


def test_a_registry_that_says_401_for_ever_is_left(blobs, source):
    service = TokenService()
    with ExitStack() as stack:
        service.realm = stack.enter_context(serving(service, host="127.0.0.1")) + "/token"

        def never(app):
            def middle(environ, start_response):
                challenge = f'Bearer realm="{service.realm}",service="test",scope="x"'
                start_response("401 Unauthorized", [("WWW-Authenticate", challenge), ("Content-Length", "0")])
                return [b""]

            return middle

        registry = stack.enter_context(running_registry(middleware=never))
        with pytest.raises(tk.UnauthorizedError):
            download(registry, blobs[:1], source.parent / "d")

        assert 3 == len(registry.log)


@pytest.mark.parametrize("challenge", ["", "@@@", "Negotiate", 'Bearer realm=""', 'Basic realm="x"'])
def test_a_challenge_that_nobody_can_answer_is_final(blobs, tmp_path, challenge):
    def odd(app):
        def middle(environ, start_response):
            start_response("401 Unauthorized", [("WWW-Authenticate", challenge), ("Content-Length", "0")])
            return [b""]

        return middle

    with running_registry(middleware=odd) as registry:
        with pytest.raises(tk.UnauthorizedError):
            download(registry, blobs[:1], tmp_path / "d")
        assert 1 == len(registry.log)


@pytest.mark.parametrize(
    ("realm", "says"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("http://user:pass@127.0.0.1/token", "user name"),
        ("http://127.0.0.1:99999/", "does not parse"),
        ("http://a b/", "blanks"),
    ],
)
def test_a_realm_that_is_no_url_is_refused(blobs, tmp_path, realm, says):
    service = TokenService()
    service.realm = realm
    with running_registry(middleware=service.guard) as registry:
        with pytest.raises(tk.IncompleteError, match=says) as caught:
            download(registry, blobs[:1], tmp_path / "d", auth=USER)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "without a token"),
        (b"{}", "without a token"),
        (b'{"token": 7}', "without a token"),
        (b'{"token": "a b"}', "printable"),
        (b'{"token": "a\\r\\nX: y"}', "printable"),
        (b"[" * 50_000, "not JSON"),
        (b'{"token": "' + b"x" * 10_000_000 + b'"}', "more than the 65536 bytes"),
    ],
    ids=["html", "list", "empty", "number", "blank", "header", "deep", "10 MB"],
)
def test_a_token_answer_that_is_none_is_refused(blobs, tmp_path, answer, says):
    service = TokenService()
    service.answer = answer
    with guarded(service) as registry, pytest.raises(tk.IncompleteError, match=says):
        download(registry, blobs[:1], tmp_path / "d")


def test_an_access_token_is_a_token(blobs, source):
    service = TokenService()
    service.answer = b'{"access_token": "other-name", "expires_in": "soon"}'
    service.issued["other-name"] = (
        time.monotonic() + 60,
        {f"repository:{REPOSITORY}:pull,push", f"repository:{REPOSITORY}:pull"},
    )
    with guarded(service) as registry:
        upload(registry, blobs, source)
        assert [blob.size for blob in blobs] == [registry.blob_path(blob.digest).stat().st_size for blob in blobs]


def test_an_encoded_token_answer_is_refused(blobs, tmp_path):
    service = TokenService()
    service.headers = [("Content-Encoding", "gzip")]
    with guarded(service) as registry, pytest.raises(tk.IncompleteError, match="encoded"):
        download(registry, blobs[:1], tmp_path / "d")


def test_a_token_service_that_fails_is_tried_again(blobs, tmp_path, impatient):
    service = TokenService()
    service.status = "503 Busy"
    with guarded(service) as registry, pytest.raises(tk.IncompleteError, match="gave up after 2 attempts"):
        download(registry, blobs[:1], tmp_path / "d", options=impatient)


def test_a_token_service_that_redirects_is_not_followed(blobs, tmp_path):
    """ggcr #2292: the token server's redirect leads wherever it likes."""
    service = TokenService()
    service.status = "302 Found"
    service.headers = [("Location", "http://169.254.169.254/latest/meta-data")]
    with guarded(service) as registry, pytest.raises(tk.UnauthorizedError, match="answered 302"):
        download(registry, blobs[:1], tmp_path / "d", auth=USER)


def test_netrc_is_not_read(blobs, source, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    service = TokenService()
    with guarded(service) as registry:
        upload(registry, blobs, source)
        assert not [r for r in registry.log if r.headers.get("authorization", "").startswith("Basic")]
    assert {None} == {authorization for authorization, _ in service.asked}


def test_no_secret_is_in_a_debug_log(blobs, source, caplog):
    caplog.set_level("DEBUG")
    service = TokenService(need_password=True)
    with guarded(service) as registry:
        upload(registry, blobs, source, auth=USER)
    # urllib3's own debug lines are its own affair: they are off unless the user turns them on by its name.
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("transferkit"))

    assert "token of" in ours
    for secret in ("s3cret", BASIC.removeprefix("Basic "), "token-1", "token-2"):
        assert secret not in ours
