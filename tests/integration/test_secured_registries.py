"""docker-registry with users, with a token service, and with TLS of a certificate authority that nobody knows.

The token service here is the only party of a test's own; docker-registry judges its tokens.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bcrypt
import pytest
import requests
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

import transferkit as tk
from tests.integration.conftest import in_time, in_vain
from transferkit.testing import Faults, RawRequest, answer, fault_proxy, scripted_server

pytestmark = pytest.mark.integration

MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WHERE = "library/model"
PULL, PUSH = f"repository:{WHERE}:pull", f"repository:{WHERE}:pull,push"
USER = ("alice", "s3cret:with colon")
WRONG = ("alice", "not-the-p4ssword")
IDENTITY = "identity-token"

AssertStored = Callable[[Path, list[tk.Blob]], None]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def is_kept_secret(secrets: list[str], error: BaseException, log: pytest.LogCaptureFixture) -> bool:
    """Tell whether none of the secrets stands in an error, what led to it, its traceback or the log."""
    shown = [log.text, repr(log.records), *traceback.format_exception(error)]
    current: BaseException | None = error
    while current is not None:
        shown += [str(current), repr(current), repr(vars(current))]
        current = current.__cause__ or current.__context__
    return not any(secret in text for secret in secrets for text in shown)


# --- User name and password ---------------------------------------------------------------------------------------


@pytest.fixture
def guarded_registry(run_docker_registry: Any, tmp_path: Path) -> Iterator[Any]:
    """docker-registry with one user."""
    user, password = USER
    # 2a: the prefix that every bcrypt reads; 4 rounds: it is computed once for each request.
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4, prefix=b"2a")).decode()
    users = tmp_path / "htpasswd"
    users.write_text(f"{user}:{hashed}\n")
    with run_docker_registry(tmp_path / "server", auth={"htpasswd": {"realm": "basic", "path": str(users)}}) as running:
        yield running


@pytest.mark.timeout(600)  # the model may have to be fetched first
def test_a_real_model_makes_the_round_trip_with_a_password(
    guarded_registry: Any, model_round_trip: Any, tmp_path: Path
) -> None:
    model_round_trip(tmp_path / "new", base_url=guarded_registry.url, auth=USER)
    assert len(guarded_registry.blobs()) == 106  # the manifest too


def test_a_wrong_password_is_final_at_once_and_shown_nowhere(
    guarded_registry: Any,
    recording_proxy: Any,
    make_blobs: Any,
    contents: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    blobs = make_blobs(tmp_path / "src", [10_000])
    calls: list[Callable[..., Any]] = [
        lambda **where: tk.fetch_manifest("v1", **where),
        lambda **where: tk.download(blobs, tmp_path / "new", **where),
        lambda **where: tk.upload(blobs, tmp_path / "src", **where),
    ]
    for call in calls:
        with recording_proxy(guarded_registry.url) as proxy:
            began = time.monotonic()
            with pytest.raises(tk.UnauthorizedError) as caught:
                call(base_url=proxy.url, repository=WHERE, auth=WRONG)
            assert time.monotonic() - began < 5

        # Once without, as nobody had asked for it; once with it. An upload can do without its first question.
        sent = [request.headers.get("authorization") for request in proxy.requests]
        assert sent == [None, basic(*WRONG), *([basic(*WRONG)] if call is calls[2] else [])]
        assert caught.value.status == 401
        assert is_kept_secret([WRONG[1], basic(*WRONG)[6:]], caught.value, caplog)
    assert caplog.records
    assert contents(tmp_path / "new") == {}
    assert guarded_registry.blobs() == {}


def test_a_registry_that_wants_a_password_says_so_to_who_has_none(guarded_registry: Any, tmp_path: Path) -> None:
    with pytest.raises(tk.UnauthorizedError, match="pass auth="):
        tk.fetch_manifest("v1", base_url=guarded_registry.url, repository=WHERE)


# --- Tokens -------------------------------------------------------------------------------------------------------


@dataclass
class TokenService:
    """Gives out tokens that docker-registry trusts, as the script of a server. ``asked`` is what for, in turn.

    The user may do everything, others may pull from ``anonymous``, a repository.
    """

    certificate: trustme.LeafCert
    lifetime: float = 300.0  # seconds, as the token has it
    told: float | None = 300.0  # seconds, as the answer has it
    anonymous: str = ""
    asked: list[list[str]] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: RawRequest) -> bytes:
        query = parse_qs(urlsplit(request.target).query)
        authorization = request.headers.get("authorization")
        if request.method == "POST":  # an identity token, which stands for the user here
            query = parse_qs(request.body.decode())
            query["scope"] = " ".join(query["scope"]).split()
            authorization = basic(*USER) if query["refresh_token"] == [IDENTITY] else "Basic wrong"
        with self.lock:
            self.asked.append(sorted(map(in_order, query.get("scope", []))))
            self.authorizations.add(authorization)
        if authorization not in (None, basic(*USER)):
            return answer(401, b'{"details": "incorrect username or password"}')
        access = [self._granted(scope, known=authorization is not None) for scope in query.get("scope", [])]
        token: dict[str, Any] = {"token": self._sign(query["service"][0], access)}
        if self.told is not None:
            token["expires_in"] = self.told
        return answer(200, json.dumps(token).encode(), {"Content-Type": "application/json"})

    def _granted(self, scope: str, *, known: bool) -> dict[str, Any]:
        kind, name, actions = scope.split(":")
        granted = actions.split(",") if known else ["pull"] if name == self.anonymous else []
        return {"type": kind, "name": name, "actions": granted}

    def _sign(self, audience: str, access: list[dict[str, Any]]) -> str:
        """Return a JWT (RFC 7515, ES256) with the certificate in it."""
        certificate = load_pem_x509_certificate(self.certificate.cert_chain_pems[0].bytes())
        chain = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
        now = time.time()
        claims = {
            "iss": "test",
            "sub": "",
            "aud": audience,
            # docker-registry takes a token for 60 seconds more than it says.
            "exp": math.ceil(now + self.lifetime) - 60,
            "nbf": int(now - 10),
            "iat": int(now),
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        parts = [{"typ": "JWT", "alg": "ES256", "x5c": chain}, claims]
        text = ".".join(base64url(json.dumps(part).encode()) for part in parts)
        key = load_pem_private_key(self.certificate.private_key_pem.bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(SHA256())))
        return f"{text}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def in_order(scope: str) -> str:
    """A scope with its actions in order: docker-registry's challenges have them in any."""
    resource, _, actions = scope.rpartition(":")
    return f"{resource}:{','.join(sorted(actions.split(',')))}"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def run_token_registry(run_docker_registry: Any, certificate_authority: trustme.CA, tmp_path: Path) -> Any:
    """``run_token_registry(...)``, for a ``with``: a token service, and docker-registry that trusts it."""

    @contextmanager
    def run(**keywords: Any) -> Iterator[tuple[Any, TokenService]]:
        bundle = tmp_path / "authority.pem"
        certificate_authority.cert_pem.write_to_path(str(bundle))
        service = TokenService(certificate_authority.issue_cert("tokens.example"), **keywords)
        with ExitStack() as stack:
            url = stack.enter_context(scripted_server(service)).url
            token = {
                "realm": f"{url}/token",
                "service": "test registry",
                "issuer": "test",
                "rootcertbundle": str(bundle),
            }
            running = stack.enter_context(run_docker_registry(tmp_path / "server", auth={"token": token}))
            yield running, service

    return run


@pytest.mark.timeout(600)
def test_a_real_model_makes_the_round_trip_with_one_token_a_scope(
    run_token_registry: Any, model_round_trip: Any, tmp_path: Path
) -> None:
    with run_token_registry() as (registry, service):
        model_round_trip(tmp_path / "new", base_url=registry.url, auth=USER)

        # The upload of 105 blobs and a manifest, by 32 threads; the manifest; the download, by 64 threads.
        assert service.asked == [[PUSH], [PULL], [PULL]]
        assert len(registry.blobs()) == 106


def test_the_password_goes_to_the_token_service_and_the_token_to_the_registry(
    run_token_registry: Any, recording_proxy: Any, make_blobs: Any, assert_stored: AssertStored, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "src", [20_000] * 10)
    with run_token_registry() as (registry, service), recording_proxy(registry.url) as proxy:
        tk.upload(blobs, tmp_path / "src", base_url=proxy.url, repository=WHERE, auth=USER)
        tk.download(blobs, tmp_path / "new", base_url=proxy.url, repository=WHERE, auth=USER)

    assert_stored(tmp_path / "new", blobs)
    assert service.authorizations == {basic(*USER)}
    seen = {request.headers.get("authorization") for request in proxy.requests}
    assert {(text or "none").partition(" ")[0] for text in seen} == {"none", "Bearer"}
    assert len(seen) == 3  # none, the token to push and the token to pull


def test_a_token_is_renewed_before_the_time_that_it_was_said_to_last(
    run_token_registry: Any, make_blobs: Any, assert_stored: AssertStored, tmp_path: Path
) -> None:
    """The registry would take each for longer: that it ends is known from the answer of the service alone."""
    blobs = make_blobs(tmp_path / "src", [250_000] * 16)
    with run_token_registry(told=2.0) as (registry, service), fault_proxy(registry.url) as proxy:
        where = {"base_url": proxy.url, "repository": WHERE, "auth": USER}
        tk.upload(blobs, tmp_path / "src", **where)
        service.asked.clear()
        proxy.set(Faults(bandwidth=1_000_000))
        report = tk.download(blobs, tmp_path / "new", **where, concurrency=1)

    assert_stored(tmp_path / "new", blobs)
    assert 3 < report.seconds < 60
    assert {scope for (scope,) in service.asked} == {PULL}
    # A quarter of its time before its end, and at the next request: after 1.5 seconds at the earliest.
    assert 2 <= len(service.asked) <= report.seconds / 1.4 + 1


def test_a_token_that_ends_unannounced_is_renewed_when_the_registry_refuses_it(
    run_token_registry: Any, make_blobs: Any, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "src", [250_000] * 16)
    with run_token_registry(lifetime=2.0, told=None) as (registry, service):
        with fault_proxy(registry.url, Faults(bandwidth=1_000_000)) as proxy:
            where = {"base_url": proxy.url, "repository": WHERE, "auth": USER}
            report = tk.upload(blobs, tmp_path / "src", **where, concurrency=1)
        assert set(registry.blobs()) == {blob.digest for blob in blobs}

    assert 3 < report.seconds < 60
    assert {scope for (scope,) in service.asked} == {PUSH}
    assert 2 <= len(service.asked) <= report.seconds / 1.9 + 1


def test_a_mount_asks_for_both_repositories(
    run_token_registry: Any, make_blobs: Any, assert_stored: AssertStored, tmp_path: Path
) -> None:
    (blob,) = make_blobs(tmp_path / "src", [300_000])
    other = "library/other"
    with run_token_registry() as (registry, service):
        where = {"base_url": registry.url, "auth": USER}
        tk.upload([blob], tmp_path / "src", repository=other, **where)
        service.asked.clear()
        known = tk.Blob(blob.digest, blob.size, source=other)
        report = tk.upload([known], tmp_path / "src", repository=WHERE, **where)

        assert (report.mounted, report.bytes) == (1, 0)
        assert sorted(service.asked) == [[PUSH], [PUSH, f"repository:{other}:pull"]]
        assert registry.links(WHERE) == {blob.digest}
        tk.download([blob], tmp_path / "new", repository=WHERE, **where)
    assert_stored(tmp_path / "new", [blob])


def test_who_may_pull_without_a_password_may_not_push(
    run_token_registry: Any, make_blobs: Any, assert_stored: AssertStored, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "src", [20_000] * 5)
    (more,) = make_blobs(tmp_path / "src", [20_000], seed=1)
    with run_token_registry(anonymous=WHERE) as (registry, service):
        where = {"base_url": registry.url, "repository": WHERE}
        tk.upload(blobs, tmp_path / "src", **where, auth=USER)
        service.asked.clear()
        service.authorizations.clear()

        tk.download(blobs, tmp_path / "new", **where)
        assert_stored(tmp_path / "new", blobs)
        assert (service.asked, service.authorizations) == ([[PULL]], {None})
        with pytest.raises(tk.UnauthorizedError) as caught:
            tk.upload([more], tmp_path / "src", **where)
        assert caught.value.status == 401
        assert more.digest not in registry.blobs()
        with pytest.raises(tk.UnauthorizedError):
            tk.fetch_manifest("v1", base_url=registry.url, repository="library/secret")


def test_a_token_service_that_refuses_the_password_is_asked_once(
    run_token_registry: Any, make_blobs: Any, contents: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (blob,) = make_blobs(tmp_path / "src", [10_000])
    with run_token_registry(anonymous=WHERE) as (registry, service):
        where = {"base_url": registry.url, "repository": WHERE, "auth": WRONG}
        for call in (
            lambda: tk.upload([blob], tmp_path / "src", **where),
            lambda: tk.download([blob], tmp_path / "new", **where),
        ):
            service.asked.clear()
            with pytest.raises(tk.UnauthorizedError, match="token service") as caught:
                call()
            assert len(service.asked) == 1
            assert is_kept_secret([WRONG[1], basic(*WRONG)[6:]], caught.value, caplog)
        assert registry.blobs() == {}
    assert contents(tmp_path / "new") == {}


def test_neither_password_nor_token_is_in_the_log(
    run_token_registry: Any, recording_proxy: Any, make_blobs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    blobs = make_blobs(tmp_path / "src", [10_000] * 3)
    with run_token_registry() as (registry, _), recording_proxy(registry.url) as proxy:
        tk.upload(blobs, tmp_path / "src", base_url=proxy.url, repository=WHERE, auth=USER)
        with pytest.raises(tk.ManifestNotFoundError) as caught:
            tk.fetch_manifest("v1", base_url=proxy.url, repository=WHERE, auth=USER)

    sent = {request.headers.get("authorization", "none") for request in proxy.requests} - {"none"}
    assert len(sent) == 2
    signatures = [text.rpartition(".")[2] for text in sent]
    assert "a token of" in caplog.text
    assert is_kept_secret([USER[1], basic(*USER)[6:], *signatures], caught.value, caplog)


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that names no CA bundle."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def bundle(certificate_authority: trustme.CA, tmp_path: Path) -> str:
    path = str(tmp_path / "authority.pem")
    certificate_authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def other_bundle(tmp_path: Path) -> str:
    path = str(tmp_path / "other.pem")
    trustme.CA().cert_pem.write_to_path(path)
    return path


@pytest.mark.timeout(600)
def test_a_real_model_makes_the_round_trip_over_tls_with_the_bundle_of_the_environment(
    tls_registry: Any, tensors: ModuleType, minilm: Path, bundle: str, no_bundle: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_bundle.setenv("REQUESTS_CA_BUNDLE", bundle)
    assert tls_registry.url.startswith("https://")
    pushed = tensors.push(minilm, tls_registry.url, WHERE, tag="v1")
    _, digest, pulled = tensors.pull(tls_registry.url, WHERE, tmp_path / "new", tag="v1")

    assert digest == MODEL_SHA256
    assert (in_vain(pushed.bytes - 90_868_376), in_time(pulled, 90_868_376)) == (True, True)
    # Who is late at the tail of a busy machine is asked again.
    assert (pushed.retried, pulled.retried) == (0, pulled.healed)
    assert len(tls_registry.blobs()) == 106


@pytest.mark.usefixtures("no_bundle")
def test_a_session_brings_its_own_bundle(
    tls_registry: Any, make_blobs: Any, assert_stored: AssertStored, bundle: str, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "src", [0, 1, 100_000, 3_000_000])
    with requests.Session() as session:
        session.verify = bundle
        where = {"base_url": tls_registry.url, "repository": WHERE, "session": session}
        tk.upload(blobs, tmp_path / "src", **where)
        tk.download(blobs, tmp_path / "new", **where)
    assert_stored(tmp_path / "new", blobs)


def test_the_bundle_of_a_session_comes_before_that_of_the_environment(
    tls_registry: Any, make_blobs: Any, bundle: str, other_bundle: str, no_bundle: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_bundle.setenv("REQUESTS_CA_BUNDLE", other_bundle)
    (blob,) = make_blobs(tmp_path / "src", [1000])
    with requests.Session() as session:
        session.verify = bundle
        tk.upload([blob], tmp_path / "src", base_url=tls_registry.url, repository=WHERE, session=session)
    assert set(tls_registry.blobs()) == {blob.digest}


@pytest.mark.parametrize("how", ["default", "environment", "session"])
def test_a_certificate_that_does_not_verify_is_final_and_the_error_names_the_bundle(
    tls_registry: Any,
    make_blobs: Any,
    contents: Any,
    other_bundle: str,
    no_bundle: pytest.MonkeyPatch,
    tmp_path: Path,
    how: str,
) -> None:
    (blob,) = make_blobs(tmp_path / "src", [10_000])
    if how == "environment":
        no_bundle.setenv("REQUESTS_CA_BUNDLE", other_bundle)
    calls: list[Callable[..., Any]] = [
        lambda **where: tk.fetch_manifest("v1", **where),
        lambda **where: tk.download([blob], tmp_path / "new", **where),
        lambda **where: tk.upload([blob], tmp_path / "src", **where),
    ]
    with ExitStack() as stack:
        keywords: dict[str, Any] = {}
        if how == "session":
            keywords["session"] = stack.enter_context(requests.Session())
            keywords["session"].verify = other_bundle
        for call in calls:
            with fault_proxy(tls_registry.url) as proxy:
                began = time.monotonic()
                with pytest.raises(tk.CertificateError) as caught:
                    call(base_url=proxy.url, repository=WHERE, **keywords)
                assert time.monotonic() - began < 5
                assert len(proxy.connections) == 1
            assert ("the default CA bundle" if how == "default" else other_bundle) in str(caught.value)
            assert "REQUESTS_CA_BUNDLE" in str(caught.value)
    assert contents(tmp_path / "new") == {}
    assert tls_registry.blobs() == {}


# --- What the machine has -----------------------------------------------------------------------------------------


@pytest.fixture
def docker_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """``docker_login(config)`` leaves Docker's config.json as ``docker login`` does."""
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def write(config: dict[str, Any]) -> None:
        (tmp_path / "docker" / "config.json").write_text(json.dumps(config))

    return write


def round_trip(url: str, blobs: list[tk.Blob], folder: Path, assert_stored: AssertStored) -> None:
    tk.upload(blobs, folder / "src", base_url=url, repository=WHERE)
    tk.download(blobs, folder / "new", base_url=url, repository=WHERE)
    assert_stored(folder / "new", blobs)


def test_who_has_logged_in_with_docker_needs_no_arguments(
    guarded_registry: Any, docker_login: Any, make_blobs: Any, assert_stored: AssertStored, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "src", [1, 20_000])
    docker_login({"auths": {guarded_registry.authority: {"auth": basic(*USER)[6:]}}})
    round_trip(guarded_registry.url, blobs, tmp_path, assert_stored)


def test_a_helper_that_speaks_dockers_protocol_is_asked(
    guarded_registry: Any,
    docker_login: Any,
    make_blobs: Any,
    assert_stored: AssertStored,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blobs = make_blobs(tmp_path / "src", [1, 20_000])
    answer = json.dumps({"ServerURL": guarded_registry.authority, "Username": USER[0], "Secret": USER[1]})
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n[ $1 = get ] && [ $(cat) = {guarded_registry.authority} ] && echo '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    docker_login({"credsStore": "test"})
    round_trip(guarded_registry.url, blobs, tmp_path, assert_stored)


def test_an_identity_token_brings_tokens_that_docker_registry_takes(
    run_token_registry: Any, docker_login: Any, make_blobs: Any, assert_stored: AssertStored, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "src", [1, 20_000])
    with run_token_registry() as (registry, service):
        docker_login({"auths": {registry.authority: {"identitytoken": IDENTITY}}})
        round_trip(registry.url, blobs, tmp_path, assert_stored)
        assert service.asked == [[PUSH], [PULL]]


# --- What is said of one host -------------------------------------------------------------------------------------


def test_a_registry_that_wants_a_client_certificate(
    run_docker_registry: Any, certificate_authority: trustme.CA, bundle: str, tmp_path: Path
) -> None:
    certificate = certificate_authority.issue_cert("127.0.0.1")
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("chain", "key", "mine", "both")}
    certificate.cert_chain_pems[0].write_to_path(paths["chain"])
    certificate.private_key_pem.write_to_path(paths["key"])
    own = certificate_authority.issue_cert("me@example.org")
    own.private_key_and_cert_chain_pem.write_to_path(paths["both"])
    tls = {"certificate": paths["chain"], "key": paths["key"], "clientcas": [bundle]}
    (tmp_path / "a.bin").write_bytes(b"content" * 1000)
    with run_docker_registry(tmp_path / "server", http={"tls": tls}) as running:
        name = f"{running.authority}/{WHERE}:v1"
        mine = tk.HostOptions(ca_bundle=bundle, client_cert=paths["both"])
        with tk.Registry(cache=tmp_path / "one", hosts={running.authority: mine}) as registry:
            registry.push(name, files=[tmp_path / "a.bin"])
            registry.pull(name)
            assert registry.export(name, tmp_path / "out").keys() == {"a.bin"}
        options = tk.TransferOptions(retry=tk.RetryOptions(attempts=1, patience=0))
        nobody = {running.authority: tk.HostOptions(ca_bundle=bundle)}
        with tk.Registry(cache=tmp_path / "two", hosts=nobody, options=options) as registry:
            with pytest.raises(tk.TransportError):
                registry.resolve(name)
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"content" * 1000


def test_a_mirror_that_pulls_through(run_docker_registry: Any, recording_proxy: Any, tmp_path: Path) -> None:
    """docker-registry as a cache of another one, which is asked for the manifest alone."""
    (tmp_path / "a.bin").write_bytes(b"content" * 1000)
    with run_docker_registry(tmp_path / "origin") as origin, recording_proxy(origin.url) as seen:
        proxy = {"remoteurl": origin.url}
        with run_docker_registry(tmp_path / "mirror", proxy=proxy, storage={"delete": None}) as mirror:
            host = seen.url.partition("://")[2]
            given = {host: tk.HostOptions(mirrors=(mirror.url,), scheme="http")}
            with tk.Registry(cache=tmp_path / "cache", hosts=given) as registry:
                registry.push(f"http://{origin.authority}/{WHERE}:v1", files=[tmp_path / "a.bin"])
                registry.pull(f"{host}/{WHERE}:v1")
                registry.export(f"{host}/{WHERE}:v1", tmp_path / "out")
            assert not [request for request in seen.requests if "/blobs/" in request.target]
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"content" * 1000
