"""docker-registry on an S3 store, which sends whoever wants a blob there: a 307 to a signed URL on another port."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import bcrypt
import pytest

import transferkit as tk
from tests.integration.conftest import in_vain
from transferkit.testing import Faults, ScriptedServer, fault_proxy

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("s3")]

MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WHERE = "library/model"
USER = ("alice", "s3cret:with colon")
MIB = 1024 * 1024
BASIC = "Basic " + base64.b64encode(b"alice:s3cret:with colon").decode()

AssertStored = Callable[[Path, list[tk.Blob]], None]


def raw_get(url: str, headers: dict[str, str]) -> tuple[int, str | None, bytes]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.request("GET", url.removeprefix(f"http://{parts.netloc}"), headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Location"], answer.read()


def sent_by_us(storage: ScriptedServer) -> list[Any]:
    """The requests that came to the storage from here; the others are docker-registry's own."""
    return [request for request in storage.requests if request.headers["user-agent"].startswith("transferkit/")]


@pytest.mark.timeout(600)  # the model may have to be fetched first
def test_a_real_model_makes_the_round_trip_over_redirects(
    tensors: ModuleType, s3_store: Any, run_docker_registry: Any, minilm: Path, tmp_path: Path
) -> None:
    with run_docker_registry(tmp_path / "server", storage=s3_store.storage("model")) as registry:
        pushed = tensors.push(minilm, registry.url, WHERE, tag="v1")
        path, digest, pulled = tensors.pull(registry.url, WHERE, tmp_path / "new", tag="v1")

    assert digest == MODEL_SHA256
    assert hashlib.sha256(path.read_bytes()).hexdigest() == MODEL_SHA256
    assert (pushed.blobs, in_vain(pushed.bytes - 90_868_376), pushed.retried) == (105, True, 0)
    assert (pulled.blobs, pulled.bytes, pulled.retried) == (105, 90_868_376, 0)
    assert registry.blobs() == {}  # nothing on its own disk


def test_the_storage_sees_no_credentials(
    s3_store: Any,
    run_docker_registry: Any,
    recording_proxy: Any,
    make_blobs: Any,
    assert_stored: AssertStored,
    tmp_path: Path,
) -> None:
    blobs = make_blobs(tmp_path / "src", [1, 1000, 100_000, 300_000])
    users = tmp_path / "htpasswd"
    users.write_bytes(b"alice:" + bcrypt.hashpw(USER[1].encode(), bcrypt.gensalt(rounds=4, prefix=b"2a")))
    with recording_proxy(s3_store.url) as storage:
        with run_docker_registry(
            tmp_path / "server",
            storage=s3_store.storage("credentials", endpoint=storage.url),
            auth={"htpasswd": {"realm": "basic", "path": str(users)}},
        ) as registry:
            where = {"base_url": registry.url, "repository": WHERE, "auth": USER}
            tk.upload(blobs, tmp_path / "src", **where)
            tk.download(blobs, tmp_path / "new", **where)
            path = f"/v2/{WHERE}/blobs/{blobs[2].digest}"
            status, location, _ = raw_get(f"{registry.url}{path}", {"Authorization": BASIC})

    assert_stored(tmp_path / "new", blobs)
    # It is what it should be: a redirect to the storage, by a signed URL.
    assert status == 307
    assert location is not None
    assert location.startswith(f"{storage.url}/registry/credentials/")
    assert "X-Amz-Signature=" in location

    seen = sent_by_us(storage)
    assert [request.method for request in seen] == ["GET"] * len(blobs)
    assert all("X-Amz-Signature=" in request.target for request in seen)
    for request in seen:
        assert not {"authorization", "cookie", "proxy-authorization"} & set(request.headers)
    for secret in (USER[1], BASIC[6:]):
        assert not any(secret in f"{request.target} {request.headers}" for request in storage.requests)


def test_an_interrupted_blob_goes_on_at_its_byte_over_the_redirect(
    s3_store: Any,
    run_docker_registry: Any,
    recording_proxy: Any,
    make_blobs: Any,
    assert_stored: AssertStored,
    tmp_path: Path,
) -> None:
    size = 6_000_000
    (blob,) = make_blobs(tmp_path / "src", [size])
    options = tk.TransferOptions(resume_threshold=1_000_000)
    with recording_proxy(s3_store.url) as storage, fault_proxy(storage.url) as network:
        with run_docker_registry(
            tmp_path / "server", storage=s3_store.storage("resume", endpoint=network.url)
        ) as registry:
            where = {"base_url": registry.url, "repository": WHERE}
            tk.upload([blob], tmp_path / "src", **where)

            # Silent in the middle, so that the end of the first run is no matter of time.
            network.set(Faults(silent_after=2_500_000))
            cancel = tk.Cancellation()

            def stop(completed: int, total: int) -> None:
                if completed > 2_000_000:
                    cancel.cancel("enough")

            with pytest.raises(tk.CancelledError):
                tk.download([blob], tmp_path / "new", **where, options=options, progress=stop, cancel=cancel)

            network.set(Faults())
            before = {record.number: record.down for record in network.connections}
            figures: list[tuple[int, int]] = []
            report = tk.download(
                [blob], tmp_path / "new", **where, options=options, progress=lambda *figure: figures.append(figure)
            )
            brought = sum(record.down - before.get(record.number, 0) for record in network.connections)

    first, second = [request.headers.get("range") for request in sent_by_us(storage)]
    assert first is None
    asked = re.match(r"bytes=(\d+)-", second)
    assert asked is not None
    kept = int(asked[1])
    assert 1_000_000 < kept < 2_500_000
    assert report.bytes == size - kept
    assert figures[-1] == (size, size)
    # On the wire: the rest, and some heads of answers, docker-registry's own included.
    assert size - kept < brought < size - kept + 50_000
    assert_stored(tmp_path / "new", [blob])
    assert {path.name for path in (tmp_path / "new" / ".partial").iterdir()} <= {"verified"}


def asked_for_blobs(folder: Path) -> int:
    """How often a docker-registry with its files there was asked for a blob from here, and redirected."""
    return len(re.findall(r'"GET /v2/\S+/blobs/\S+ HTTP/1.1" 307 .*"transferkit/', (folder / "log").read_text()))


@pytest.mark.timeout(180)
def test_a_store_with_another_key_is_resolved_again_once_for_all_threads(
    run_s3_store: Any,
    run_docker_registry: Any,
    make_blobs: Any,
    assert_stored: AssertStored,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """In the middle of a blob in chunks, all URLs that were signed stop working, while nobody answers for seconds."""
    caplog.set_level("DEBUG", "transferkit")
    size = 16 * MIB
    (blob,) = make_blobs(tmp_path / "src", [size])
    options = tk.TransferOptions(chunk_threshold=MIB, chunk_size=MIB, resume_threshold=MIB, progress_interval=0.01)
    figures: list[tuple[int, int]] = []
    in_place: list[int] = []

    def seen(text: str) -> int:
        return sum(text in record.getMessage() for record in caplog.records)

    with ExitStack() as servers:
        store = servers.enter_context(run_s3_store(tmp_path / "s3"))
        with fault_proxy(store.url) as network:

            def run_registry(folder: str, store: Any, port: int = 0) -> Any:
                storage = store.storage("expiry", endpoint=network.url)
                log = {"accesslog": {"disabled": False}}
                return servers.enter_context(
                    run_docker_registry(tmp_path / folder, port=port, storage=storage, log=log)
                )

            def restart() -> None:
                # Silent meanwhile: of a storage that refuses connections, everybody would forget the URL at once.
                network.set(Faults(silent_after=0, silent_after_up=0))
                servers.close()
                again = servers.enter_context(run_s3_store(tmp_path / "s3", key="AKIAOTHER", ports=store.ports))
                network.set(Faults())
                network.cut()
                deadline = time.monotonic() + 30
                while not seen(f"cannot connect to {registry.url}") and time.monotonic() < deadline:
                    time.sleep(0.01)
                run_registry("second", again, int(registry.url.rpartition(":")[2]))

            def progress(completed: int, total: int) -> None:
                figures.append((completed, total))
                if completed > size // 4 and not in_place:
                    in_place.append(completed)
                    restart()

            registry = run_registry("first", store)
            where = {"base_url": registry.url, "repository": WHERE}
            tk.upload([blob], tmp_path / "src", **where)
            _, signed, _ = raw_get(f"{registry.url}/v2/{WHERE}/blobs/{blob.digest}", {})
            before = len(network.connections)
            network.set(Faults(bandwidth=4_000_000))
            report = tk.download([blob], tmp_path / "new", **where, options=options, concurrency=8, progress=progress)
            brought = sum(record.down for record in network.connections[before:])
            assert signed is not None
            assert raw_get(signed, {})[0] == 403

    assert in_place
    assert_stored(tmp_path / "new", [blob])
    assert (asked_for_blobs(tmp_path / "first"), asked_for_blobs(tmp_path / "second")) == (1, 1)
    assert seen("answers 403; resolved again")
    assert seen(f"cannot connect to {registry.url}")
    # What was in place was not sent again; heads of answers, and refusals, come on top.
    assert report.bytes == size
    assert size < brought < size + MIB
    assert figures[-1] == (size, size)
