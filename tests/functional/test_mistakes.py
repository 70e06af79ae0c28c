"""The twenty commonest mistakes, as a new user makes them: what the message says, of what, and what to do."""

from __future__ import annotations

import base64
import errno
import fcntl
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

import transferkit as tk
from transferkit.server import OCIRegistry, serving
from transferkit.storage import lock
from transferkit.storage.disk import Disk
from transferkit.testing import (
    FaultRule,
    HTTPFaults,
    answer,
    html_page,
    respond,
    running_registry,
    scripted_server,
)

QUICK = tk.TransferOptions(
    retry=tk.RetryOptions(attempts=2, patience=0, max_wait=0.01),
    transport=tk.TransportOptions(response_timeout=0.3, connect_timeout=5),
)
ABSENT = "sha256:" + 32 * "ab"
AGAIN = "run it again later: what is in place stays"
PLACE = "is it a registry, or does a proxy or a login page answer in its place?"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A registry with ``team/model:v1`` of one blob of 700 bytes, whose answers can be spoilt, and a folder."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "weights.bin").write_bytes(b"weights" * 100)
    faults = HTTPFaults()
    with running_registry(middleware=faults) as running:
        host = running.url.removeprefix("http://")
        with tk.Registry(cache=folder / "first", options=QUICK) as registry:
            registry.push(f"{host}/team/model:v1", files=[folder / "weights.bin"])
            (layer,) = registry.resolve(f"{host}/team/model:v1").layers
        yield SimpleNamespace(url=running.url, host=host, folder=folder, faults=faults, blob=tk.Blob(layer.digest, 700))


@pytest.fixture
def spoil(shelf: SimpleNamespace) -> Iterator[Callable[..., None]]:
    yield lambda action: shelf.faults.set(FaultRule(action))
    shelf.faults.set()


@pytest.fixture
def says(tmp_path: Path) -> Callable[..., tk.TransferKitError]:
    """``says(name)`` returns the error of a pull of that name; ``says(call=...)`` that of a call with a registry."""

    def of(
        name: str = "", *, call: Callable[[tk.Registry], object] | None = None, **how: object
    ) -> tk.TransferKitError:
        with tk.Registry(**{"cache": tmp_path / "cache", "options": QUICK, **how}) as registry:  # type: ignore[arg-type]
            with pytest.raises(tk.TransferKitError) as caught:
                call(registry) if call is not None else registry.pull(name)
        return caught.value

    return of


def download(shelf: SimpleNamespace, folder: Path, digest: str = ABSENT, url: str = "") -> tk.TransferKitError:
    with pytest.raises(tk.TransferKitError) as caught:
        where = {"base_url": url or shelf.url, "repository": "team/model"}
        tk.download([tk.Blob(digest, 700)], folder, options=QUICK, **where)
    return caught.value


# -- names


def test_a_wrong_name_or_a_wrong_tag(shelf: SimpleNamespace, says: Callable[..., tk.TransferKitError]) -> None:
    for repository, tag in (("team/modle", "v1"), ("team/model", "v2")):
        error = says(f"{shelf.host}/{repository}:{tag}")
        assert isinstance(error, tk.ManifestNotFoundError)
        assert (
            f'model "{shelf.host}/{repository}:{tag}" not found: GET {shelf.url}/v2/{repository}/manifests/{tag}: '
            "registry responded with status 404: code MANIFEST_UNKNOWN: there is no such manifest; "
            f"check the name and the tag ('transferkit tags {shelf.host}/{repository}' lists the tags)"
        ) == str(error)


def test_a_name_that_is_none(says: Callable[..., tk.TransferKitError]) -> None:
    assert (
        'invalid or missing name: "team/mo del:v1"; a name is written [host/][namespace/]model[:tag][@sha256:...]'
    ) == str(says("team/mo del:v1"))


def test_a_digest_that_is_not_there(
    shelf: SimpleNamespace, says: Callable[..., tk.TransferKitError], tmp_path: Path
) -> None:
    error = says(f"{shelf.host}/team/model:v1@{ABSENT}")
    assert isinstance(error, tk.ManifestNotFoundError)
    assert str(error).startswith(f'model "{shelf.host}/team/model:v1@sha256:abababababab" not found: GET ')
    assert str(error).endswith(
        f"; check the digest ('transferkit show {shelf.host}/team/model:TAG' tells the one that a tag has now)"
    )
    assert str(download(shelf, tmp_path)) == (
        f"1 of 1 blobs failed: GET {shelf.url}/v2/team/model/blobs/{ABSENT}: registry responded with status 404: "
        "code BLOB_UNKNOWN: the repository has no such blob; check the digest and the repository"
    )


def test_a_manifest_that_is_not_supported(shelf: SimpleNamespace, says: Callable[..., tk.TransferKitError]) -> None:
    signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    connection = http.client.HTTPConnection(shelf.host)
    layers = [{"blobSum": shelf.blob.digest}]
    for tag, media_type, body in (
        ("old", signed, {"schemaVersion": 1, "name": "team/model", "tag": "old", "fsLayers": layers, "history": []}),
        ("bare", "application/vnd.oci.image.manifest.v1+json", {"schemaVersion": 2, "layers": []}),
    ):
        connection.request(
            "PUT", f"/v2/team/model/manifests/{tag}", json.dumps(body), headers={"Content-Type": media_type}
        )
        with connection.getresponse() as stored:
            assert (201, b"") == (stored.status, stored.read())
    connection.close()
    error = says(f"{shelf.host}/team/model:old")
    assert isinstance(error, tk.InvalidManifestError)
    assert str(error) == (
        f'model "{shelf.host}/team/model:old" cannot be read: it is a manifest of Docker\'s schema 1, which tells no '
        "sizes: push it again with a newer tool"
    )
    assert str(says(f"{shelf.host}/team/model:bare")) == (
        f'model "{shelf.host}/team/model:bare" cannot be read: invalid manifest: no layers'
    )


# -- credentials


@pytest.mark.parametrize("tokens", [False, True])
def test_no_login_and_a_login_that_is_not_good_any_more(
    says: Callable[..., tk.TransferKitError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: bool
) -> None:
    with serving(OCIRegistry(tmp_path / "r", auth={"ann": "new-secret"}, tokens=tokens)) as url:
        host = url.removeprefix("http://")
        where = f"GET {url}/v2/team/model/manifests/v1: registry responded with status 401: code UNAUTHORIZED: "
        service = f"the token service {url} of {host} answered 401; "
        error = says(f"{host}/team/model:v1")
        assert isinstance(error, tk.UnauthorizedError)
        wanted = service if tokens else f"{where}authentication is required; "
        assert str(error).startswith(
            f"{wanted}check the name, log in ('transferkit login {host}'), or pass auth=, token= or get_token=; there "
            "are none in TRANSFERKIT_TOKEN, TRANSFERKIT_USERNAME, "
        )
        entry = {"auth": base64.b64encode(b"ann:old-secret").decode()}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {host: entry}}))
        refused = service if tokens else f"{where}the user name or the password is wrong; "
        assert str(says(f"{host}/team/model:v1")) == (
            f"{refused}it refused the user name and password of DOCKER_AUTH_CONFIG, entry {host}; "
            "check it, or log in again: it may have expired"
        )
        assert str(says(f"{host}/team/model:v1", token="old")).endswith(
            "; it refused the token of token=; it may have expired"
        )


def test_a_login_that_may_not_do_this(
    shelf: SimpleNamespace, says: Callable[..., tk.TransferKitError], spoil: Callable[..., None]
) -> None:
    spoil(respond(403, '{"errors":[{"code":"DENIED","message":"no right to push"}]}', content_type="application/json"))
    error = says(f"{shelf.host}/team/model:v1")
    assert isinstance(error, tk.DeniedError)
    assert str(error) == (
        f"GET {shelf.url}/v2/team/model/manifests/v1: registry responded with status 403: code DENIED: no right to push"
        "; who is logged in may not do this: use other credentials, or ask whoever runs the registry"
    )


# -- the way to the registry


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A registry under TLS, with a certificate that no bundle of this machine knows."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = folder / "server.pem", folder / "server.key"
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    certificate.private_key_pem.write_to_path(str(key))
    bundle = folder / "other.pem"
    authority.cert_pem.write_to_path(str(folder / "right.pem"))
    trustme.CA().cert_pem.write_to_path(str(bundle))
    with running_registry(tls=(str(chain), str(key))) as running:
        yield SimpleNamespace(
            right=str(folder / "right.pem"),
            url=running.url,
            host=running.url.removeprefix("https://"),
            bundle=str(bundle),
        )


def test_the_wrong_authority(secured: SimpleNamespace, says: Callable[..., tk.TransferKitError]) -> None:
    hosts = {secured.host: tk.HostOptions(ca_bundle=secured.bundle)}
    error = says(f"{secured.url}/team/model:v1", hosts=hosts)
    assert isinstance(error, tk.CertificateError)
    begin, end = (
        f"the certificate of {secured.url} does not verify against the CA bundle {secured.bundle}: ",
        "; set REQUESTS_CA_BUNDLE or pass a session with .verify, or HostOptions(ca_bundle=...)",
    )
    assert (begin, end) == (str(error)[: len(begin)], str(error)[-len(end) :])


def test_the_certificate_of_another_name(secured: SimpleNamespace, says: Callable[..., tk.TransferKitError]) -> None:
    host = secured.host.replace("127.0.0.1", "localhost")
    error = says(f"https://{host}/team/model:v1", hosts={host: tk.HostOptions(ca_bundle=secured.right)})
    assert isinstance(error, tk.CertificateError)
    assert str(error) == (
        f"the certificate of https://{host} does not verify against the CA bundle {secured.right}: Hostname mismatch, "
        "certificate is not valid for 'localhost'; use a name that the certificate has, or ask whoever runs the host "
        "for another certificate"
    )


def test_http_where_https_is_spoken_and_the_other_way_round(
    secured: SimpleNamespace, shelf: SimpleNamespace, says: Callable[..., tk.TransferKitError]
) -> None:
    assert str(says(f"http://{secured.host}/team/model:v1")) == (
        f"gave up after 2 attempts: http://{secured.host} closed the connection without an answer; if it speaks https, "
        f"use its https:// address; {AGAIN}"
    )
    error = says(f"https://{shelf.host}/team/model:v1")
    assert isinstance(error, tk.ConnectError)
    assert str(error) == (
        f"https://{shelf.host} speaks http, not https: use its http:// address, or HostOptions(scheme='http')"
    )
    with scripted_server(lambda request: [b"\x15\x03\x01\x00\x02\x02\x46"]) as alerting:  # unexpected message
        assert str(says(f"{alerting.url}/team/model:v1")) == (
            f"{alerting.url} speaks https, not http: use its https:// address, or HostOptions(scheme='https')"
        )


def test_a_typo_in_the_host_and_no_network(
    says: Callable[..., tk.TransferKitError], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = says("nowhere.example/team/model:v1")
    assert isinstance(error, tk.ConnectError)
    assert str(error) == (
        "the host name of https://nowhere.example does not resolve: Name or service not known; check how it is "
        "written, and whether this machine is online, or needs a proxy"
    )

    def silent(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    assert str(says("registry.example.com/team/model:v1")) == (
        "gave up after 2 attempts: the host name of https://registry.example.com does not resolve: Temporary failure "
        f"in name resolution; is this machine online? Run it again later: {AGAIN.partition(': ')[2]}"
    )


def test_a_server_that_is_down(says: Callable[..., tk.TransferKitError]) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = says(f"{url}/team/model:v1")
    assert isinstance(error, tk.ConnectError)
    assert str(error) == (
        f"gave up after 2 attempts: cannot connect to {url}: Connection refused; is it running, and is the port right? "
        "Run it again later: what is in place stays"
    )


def test_a_server_that_is_slow(says: Callable[..., tk.TransferKitError]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        error = says(f"{url}/team/model:v1")
    assert isinstance(error, tk.TransportTimeout)
    assert str(error) == (
        f"gave up after 2 attempts: {url} did not answer in time (TransportOptions.response_timeout); it may be "
        f"overloaded; {AGAIN}"
    )


def test_too_many_requests(
    shelf: SimpleNamespace, says: Callable[..., tk.TransferKitError], spoil: Callable[..., None]
) -> None:
    said = '{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit exceeded"}]}'
    where = (
        f"GET {shelf.url}/v2/team/model/manifests/v1: registry responded with status 429: code TOOMANYREQUESTS: "
        "pull rate limit exceeded; many registries allow more to users who are logged in"
    )
    spoil(respond(429, said, content_type="application/json"))
    error = says(f"{shelf.host}/team/model:v1")
    assert isinstance(error, tk.RateLimitedError)
    assert str(error) == f"gave up after 2 attempts: {where}; {AGAIN}"
    spoil(respond(429, said, content_type="application/json", headers={"Retry-After": "3600"}))
    assert str(says(f"{shelf.host}/team/model:v1")) == (
        f"{where}; it asks to come back in 3600 s, more than RetryOptions(max_retry_after=300)"
    )


def test_the_page_of_a_proxy(
    shelf: SimpleNamespace,
    says: Callable[..., tk.TransferKitError],
    spoil: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(respond(403, "<html><head><title>Blocked by policy</title></head></html>", content_type="text/html"))
    where = f"GET {shelf.url}/v2/team/model/manifests/v1: registry responded with status"
    assert str(says(f"{shelf.host}/team/model:v1")) == (
        f"{where} 403: an HTML page, not a registry's answer ('Blocked by policy'); {PLACE}"
    )
    spoil(html_page(502))
    assert str(says(f"{shelf.host}/team/model:v1")) == (
        f"gave up after 2 attempts: {where} 502: an HTML page, not a registry's answer ('502 Bad Gateway'); "
        f"a proxy or a balancer before the registry has failed; {AGAIN}"
    )
    with scripted_server(lambda request: answer(407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = says("registry.example.com/team/model:v1")
    assert isinstance(error, tk.ConnectError)
    assert str(error) == (
        f"the proxy {proxy.url} on the way to https://registry.example.com failed: Tunnel connection failed: 407 Proxy "
        "Authentication Required; the proxy is from HTTPS_PROXY; the proxy wants a user name and a password: write "
        "them into its URL, http://user:password@host:port"
    )


def test_what_is_no_registry(
    shelf: SimpleNamespace, says: Callable[..., tk.TransferKitError], spoil: Callable[..., None], tmp_path: Path
) -> None:
    spoil(html_page(200))
    error = says(f"{shelf.host}/team/model:v1")
    assert isinstance(error, tk.InvalidManifestError)
    assert str(error) == (
        f'model "{shelf.host}/team/model:v1" cannot be read: {shelf.url} sent an HTML page and no manifest '
        f"for v1; {PLACE}"
    )
    error = says(call=lambda r: r.push(f"{shelf.host}/team/model:v2", files=[shelf.folder / "weights.bin"]))
    assert isinstance(error, tk.IncompleteError)
    text = f"{shelf.url} began an upload without saying where it goes (no Location); {PLACE}"
    assert {text} == {str(failure) for failure in error.failures.values()}
    assert str(download(shelf, tmp_path)) == (
        f"1 of 1 blobs failed: sha256:abababababab: {shelf.url} announces 76 bytes, expected 700 (it is text/html: a "
        "page of a proxy or of a login?)"
    )


# -- the disk


def test_a_disk_that_is_full(
    shelf: SimpleNamespace,
    says: Callable[..., tk.TransferKitError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Disk, "free", lambda self, path: 300)
    error = says(f"{shelf.host}/team/model:v1")
    assert isinstance(error, tk.OutOfSpaceError)
    assert str(error) == (
        f"{tmp_path}/cache/blobs has 300 B left, and 702 B are needed: free some, and run it again; nothing was fetched"
    )
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Disk, "pwrite", full)
    error = download(shelf, tmp_path / "d", shelf.blob.digest)
    assert isinstance(error, tk.OutOfSpaceError)
    begin, end = f"no space left writing {tmp_path}/d/.partial/sha256-", ": free some, and run it again"
    assert (begin, end) == (str(error)[: len(begin)], str(error)[-len(end) :])


def test_a_store_that_can_only_be_read(
    shelf: SimpleNamespace,
    says: Callable[..., tk.TransferKitError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Disk, "make_folder", refused)
    error = says(f"{shelf.host}/team/model:v1")
    assert isinstance(error, tk.StorageError)
    assert str(error) == (
        f"making the folder {tmp_path}/cache/blobs/.partial failed: Read-only file system; the file system is "
        "read-only: choose a folder on another one (to=, cache= or TRANSFERKIT_CACHE)"
    )


NOBODY = """
import os, sys
import transferkit as tk
folder, digest, url = sys.argv[1:]
where = dict(base_url=url, repository="team/model")
try:
    tk.download([], folder, **where)  # imports all that it needs
except tk.TransferKitError:
    pass
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    tk.download([tk.Blob(digest, 700)], folder + "/new", **where)
except tk.StorageError as error:
    print(error)
"""


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder that only its owner could make writable; below one that every user may look into, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_folder_of_somebody_else(shelf: SimpleNamespace, theirs: Path) -> None:
    folder = theirs
    command = [sys.executable, "-c", NOBODY, str(folder), shelf.blob.digest, shelf.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    us = os.getuid() or 65534
    assert (done.stdout, done.stderr) == (
        f"making the folder {folder}/new/.partial failed: Permission denied; {folder} belongs to user {os.getuid()} "
        f"(mode 555), and this is user {us}; check the permissions, or choose another folder (to=, cache= or "
        "TRANSFERKIT_CACHE)\n",
        "",
    )


def test_another_process_has_the_lock(
    shelf: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "LONG", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    caplog.set_level(logging.WARNING, "transferkit")
    partial = tmp_path / ".partial"
    partial.mkdir()
    path = partial / f"{tk.digest_to_path(shelf.blob.digest)}.lock"
    with path.open("w") as held:
        held.write("4711 node-7\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        options = tk.TransferOptions(resume_threshold=1)
        tk.download([shelf.blob], tmp_path, base_url=shelf.url, repository="team/model", options=options)
    (told,) = [record.getMessage() for record in caplog.records if record.name == "transferkit.storage.lock"]
    assert told == (
        f"waiting for {path}, which is locked by process 4711 on node-7; this goes on when that ends, or "
        "is silent for 0 s"
    )


# -- what is pushed


def test_nothing_to_push(
    shelf: SimpleNamespace, says: Callable[..., tk.TransferKitError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    target = f"{shelf.host}/team/new:v1"
    for how, text in (
        ({"folder": "empty"}, f"{tmp_path}/empty has no files: there is nothing to push; is it the right folder?"),
        ({"folder": "absent"}, "the folder absent cannot be read: No such file or directory"),
        ({"files": []}, "there are no files to push: files= is empty; name some, or pass folder= for all of a folder"),
        (
            {"folder": shelf.folder, "only": "*.gguf"},
            f"none of the {len(list(shelf.folder.iterdir()))} files in {shelf.folder} is wanted: there is nothing to "
            "push; see only= and exclude=",
        ),
    ):
        error = says(call=lambda registry, how=how: registry.push(target, **how))
        assert isinstance(error, tk.SourceError)
        assert text == str(error)
    assert str(says(call=lambda registry: registry.push(target))) == (
        f'model "{target}" not found in {tmp_path}/cache; pull it first'
    )


# -- no network, on purpose


def test_offline(
    shelf: SimpleNamespace, says: Callable[..., tk.TransferKitError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFERKIT_OFFLINE", "1")
    name = f"{shelf.host}/team/model:v1"
    calls = (
        lambda registry: registry.pull(name),
        lambda registry: registry.pull(name, to=tmp_path / "out"),
        lambda registry: registry.snapshot(name),
        lambda registry: registry.resolve(name),
    )
    for call in calls:
        error = says(call=call)
        assert isinstance(error, tk.ManifestNotFoundError)
        assert str(error) == (
            f'model "{name}" not found in {tmp_path}/cache; this is offline (TRANSFERKIT_OFFLINE, or offline=True), '
            "and no registry was asked: pull it once while there is a network"
        )
    assert str(says(call=lambda registry: registry.push(name, files=[]))) == (
        f"cannot push {name}: this is offline (TRANSFERKIT_OFFLINE, or offline=True); turn that off first"
    )
