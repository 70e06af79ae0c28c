"""Our own client and Ollama's against ``transferkit serve`` as a process: TLS, a password, read-only."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
import requests

import transferkit as tk
from tests.functional.models import Model
from tests.integration.served import MIB, PASSWORD, USER, Served, served
from transferkit.server import OCIRegistry, serving

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("served")]

OWNER = (USER, PASSWORD)
FILES = {"weights.bin": bytes(range(256)) * 2000, "config.json": b"{}", "empty": b""}
MODEL = Model([b"weights " * 5000, b"do as you like"])


@pytest.fixture(params=["plain", "secure"])
def server(request: pytest.FixtureRequest) -> Served:
    found: Served = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def session(server: Served) -> Iterator[requests.Session]:
    """One that trusts the server."""
    with requests.Session() as found:
        if server.url.startswith("https"):
            found.verify = str(server.ca)
        yield found


def registry(server: Served, folder: Path, **keywords: Any) -> tk.Registry:
    """Our client, with what it takes to be let in."""
    if server.url.startswith("https"):
        hosts = {server.authority: tk.HostOptions(ca_bundle=str(server.ca))}
        keywords = {"auth": OWNER, "hosts": hosts, **keywords}
    return tk.Registry(cache=folder, **keywords)


def test_blobs_go_up_and_come_down(
    server: Served,
    session: requests.Session,
    make_blobs: Callable[..., list[tk.Blob]],
    assert_stored: Callable[..., None],
    tmp_path: Path,
) -> None:
    blobs = make_blobs(tmp_path / "blobs", [0, 5, 100_000, 17 * MIB])  # the last one comes in chunks
    where: dict[str, Any] = {"base_url": server.url, "repository": "ours/blobs", "session": session, "auth": OWNER}
    assert 4 == tk.upload(blobs, tmp_path / "blobs", **where).blobs
    assert 100_005 + 17 * MIB == tk.download(blobs, tmp_path / "new", **where).bytes
    assert_stored(tmp_path / "new", blobs)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for title, content in FILES.items():
        (tmp_path / title).write_bytes(content)
    return [tmp_path / title for title in FILES]


def test_files_go_by_name_and_are_copied(server: Served, plain: Served, files: list[Path], tmp_path: Path) -> None:
    name, copy, elsewhere = f"{server.url}/ours/files:v1", f"{server.url}/ours/copy:v2", f"{plain.url}/ours/other:v3"
    with registry(server, tmp_path / "one") as client:
        pushed = client.push(name, files=files)
        assert pushed.raw == client.copy(name, copy).raw == client.copy(copy, elsewhere).raw
        assert ["v2"] == client.tags(copy)
    with registry(server, tmp_path / "two") as client:
        client.pull(copy, to=tmp_path / "new")
    with registry(plain, tmp_path / "three") as client:
        client.pull(elsewhere, to=tmp_path / "newer")
    for folder in ("new", "newer"):
        assert FILES == {title: (tmp_path / folder / title).read_bytes() for title in FILES}


def test_nobody_else_is_let_in(secure: Served, files: list[Path], tmp_path: Path) -> None:
    name = f"{secure.url}/ours/files:v9"
    for auth in (None, (USER, "wrong")):
        with registry(secure, tmp_path / "cache", auth=auth) as client:
            with pytest.raises(tk.UnauthorizedError):
                client.push(name, files=files)
            with pytest.raises(tk.UnauthorizedError):
                client.pull(name)
    with registry(secure, tmp_path / "cache", hosts={}) as client, pytest.raises(tk.CertificateError):
        client.pull(name)


@pytest.fixture(scope="module")
def read_only(
    secure_arguments: tuple[list[str | Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A registry and the API, read-only, with TLS and a password, that have a model."""
    folder = tmp_path_factory.mktemp("read-only")
    arguments, ca = secure_arguments
    with serving(OCIRegistry(folder / "store")) as url, tk.Registry(cache=folder / "cache") as client:
        MODEL.put(url, "library/smol", "v1")
        client.pull(f"{url}/library/smol:v1")
    parts = ["--api", "--registry", folder / "store"]
    with served(folder, *parts, "--read-only", *arguments, ca=ca) as server:
        yield server


def test_what_is_read_only_is_read(read_only: Served, tmp_path: Path) -> None:
    name = f"{read_only.url}/library/smol:v1"
    with registry(read_only, tmp_path / "cache") as client:
        assert MODEL.raw == client.pull(name).raw
        with pytest.raises(tk.TransferKitError, match="read-only"):
            client.push(f"{read_only.url}/library/smol:v2", source=name)
        with pytest.raises(tk.TransferKitError, match="read-only"):
            client.copy(name, f"{read_only.url}/library/copy:v1")


def trusting(server: Served) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(server.ca))


@pytest.fixture
def user(read_only: Served) -> Iterator[ollama.Client]:
    with ollama.Client(host=read_only.url, auth=OWNER, verify=trusting(read_only), trust_env=False) as found:
        yield found


def test_ollamas_client_reads_with_a_password_and_is_refused_what_changes_something(user: ollama.Client) -> None:
    (listed,) = user.list().models
    assert listed.model is not None
    assert listed.model.endswith("/library/smol:v1")
    assert "do as you like" == user.show(listed.model).license
    calls: list[Callable[[], object]] = [
        lambda: user.pull(listed.model),
        lambda: list(user.pull(listed.model, stream=True)),
        lambda: user.delete(listed.model),
    ]
    for call in calls:
        with pytest.raises(ollama.ResponseError, match="read-only") as caught:
            call()
        assert 403 == caught.value.status_code


def test_ollamas_client_without_a_password_is_told_so(read_only: Served) -> None:
    with ollama.Client(host=read_only.url, verify=trusting(read_only), trust_env=False) as user:
        for call in (user.list, lambda: list(user.pull("smol", stream=True))):
            with pytest.raises(ollama.ResponseError, match="a user and a password are needed") as caught:
                call()
            assert 401 == caught.value.status_code


def test_ollamas_client_finds_nobody_listening(read_only: Served) -> None:
    with ollama.Client(host="http://127.0.0.1:1", trust_env=False) as user:
        with pytest.raises(ConnectionError, match="Failed to connect to Ollama"):
            user.list()
