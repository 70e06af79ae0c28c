"""Short versions of the soaks of ``transferkit serve``, and what they must find; the seed as in ``test_soak``."""

from __future__ import annotations

import os
import random
import socket
import time
from contextlib import ExitStack

import pytest

from benchmarks import soak_server_kills as kills
from benchmarks.soak_rig import MIB, WrongBytes
from benchmarks.soak_serve import Answer, Client, check_store, expect, get_blob, manifest_of, position_of, serve, sha256
from benchmarks.soak_server import soak_server
from benchmarks.soak_server_gc import soak_server_gc
from transferkit.server import OCIRegistry, serving

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="asks Linux what a process holds")
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.fixture
def seed():
    chosen = int(os.environ.get("TRANSFERKIT_SOAK_SEED", random.randrange(10**6)))
    print(f"TRANSFERKIT_SOAK_SEED={chosen}")
    return chosen


@pytest.fixture
def told():
    return []


def test_clients_of_which_a_third_is_cut_off_leave_nothing_behind(seed, told):
    soak_server(0.8, clients=16, seed=seed, say=told.append)
    assert 3 == len(told)
    assert " cut, " in told[0]


def test_what_was_acknowledged_outlives_kill_9_and_nothing_half_done_is_visible(seed, told):
    kills.soak_server_kills(3, seed=seed, say=told.append)
    assert 3 == len(told)


def test_a_delete_and_a_collection_during_a_pull_lose_nothing(seed, told):
    soak_server_gc(1.0, seed=seed, say=told.append)
    assert 1 == len(told)


# -- the soaks find what is wrong


def put(client: Client, repository: str, data: bytes) -> str:
    expect(client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}", data), 201)
    return sha256(data)


@pytest.fixture
def store(tmp_path):
    """The directory of a registry with a blob, a manifest and a tag."""
    with serving(OCIRegistry(tmp_path, durable=False)) as url:
        client = Client(url.removeprefix("http://"), random.Random(1))
        put(client, "soak/0", b"hello")
        expect(client.ask("PUT", "/v2/soak/0/manifests/v1", manifest_of({HELLO: 5})), 201)
        assert 1 == kills.check_tags(client)
        client.close()
    check_store(tmp_path, set())
    return tmp_path


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("blobs/" + HELLO.replace(":", "-"), "other", "is another content"),
        ("blobs/sha256-short", "", "among the blobs"),
        ("repositories/soak/0/_blobs/sha256-" + 64 * "a", "", "leads nowhere"),
        ("repositories/soak/0/_tags/v2", "sha256:" + 64 * "a", "no manifest here"),
        ("uploads/sha256-" + 64 * "0" + ".0123", "", "among the uploads"),
    ],
)
def test_a_store_in_disorder_is_found(store, path, text, message):
    (store / path).write_text(text)
    with pytest.raises(WrongBytes, match=message):
        check_store(store, set())


def test_wrong_answers_are_found(store):
    (store / "blobs" / HELLO.replace(":", "-")).write_bytes(b"other")
    with serving(OCIRegistry(store)) as url:
        client = Client(url.removeprefix("http://"), random.Random(1))
        with pytest.raises(WrongBytes, match="was read as"):
            get_blob(client, "soak/0", HELLO)
        with pytest.raises(WrongBytes, match="404 and not"):
            get_blob(client, "soak/0", "sha256:" + 64 * "a")
        (store / "repositories" / "soak" / "0" / "_blobs" / HELLO.replace(":", "-")).unlink()
        with pytest.raises(WrongBytes, match="404 and not"):
            kills.check_tags(client)
        client.close()


@pytest.mark.parametrize(
    ("acknowledged", "sent", "ending", "message"),
    [
        (8, 8, False, "were acknowledged"),
        (0, 4, False, "were acknowledged"),
        (5, 9, False, None),
        (5, 9, True, "not known"),
    ],
)
def test_an_upload_that_is_not_as_it_was_acknowledged_is_found(tmp_path, acknowledged, sent, ending, message):
    """Five bytes of it are there; in the last case it has vanished."""
    with serving(OCIRegistry(tmp_path)) as url:
        client = Client(url.removeprefix("http://"), random.Random(1))
        location = expect(client.ask("POST", "/v2/soak/0/blobs/uploads/"), 202).headers["location"]
        expect(client.ask("PATCH", location, b"hello"), 202)
        pusher = kills.Pusher("127.0.0.1:1", "seed", 0)
        pusher.upload = kills.Upload(location, b"hello, world", acknowledged, sent)
        if ending:
            expect(client.ask("DELETE", client.ask("GET", location).headers["location"]), 204)
        if message is None:
            assert 5 == pusher.go_on(client)
        else:
            with pytest.raises(WrongBytes, match=message):
                pusher.go_on(client)
        client.close()


# -- what is decided by one client and one moment


def test_a_stop_keeps_what_has_arrived_of_a_part_and_the_next_server_goes_on_there(tmp_path):
    """The end of ``serve`` on SIGTERM, when its grace is over."""
    data = random.Random(1).randbytes(MIB)
    with serving(OCIRegistry(tmp_path)) as url:
        client = Client(url.removeprefix("http://"), random.Random(1))
        location = expect(client.ask("POST", "/v2/a/blobs/uploads/"), 202).headers["location"]
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n".encode()
        sock = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10)
        sock.sendall(head + data[: MIB // 2])
        deadline = time.monotonic() + 10
        while sum(path.stat().st_size for path in (tmp_path / "uploads").iterdir()) < MIB // 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        client.close()
    sock.close()
    with serving(OCIRegistry(tmp_path)) as url:
        client = Client(url.removeprefix("http://"), random.Random(1))
        answer = expect(client.ask("GET", location), 204)
        assert MIB // 2 == position_of(answer.headers["range"], 0)
        answer = expect(client.ask("PATCH", answer.headers["location"], data[MIB // 2 :]), 202)
        expect(client.ask("PUT", f"{answer.headers['location']}&digest={sha256(data)}"), 201)
        assert data == get_blob(client, "a", sha256(data))
        client.close()


def test_a_client_that_works_is_answered_beside_200_half_heads_64_bodies_that_stall_and_64_that_read_nothing(tmp_path):
    """``serve`` as it is started: none of them may have to wait until the slow ones are cut off."""
    data = random.Random(1).randbytes(8 * MIB)
    with ExitStack() as stack:
        server = stack.enter_context(serve(tmp_path / "log", "--registry", tmp_path / "store"))
        client = Client(server.authority, random.Random(1))
        digest = put(client, "a", data)
        half = b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
        drip = b"POST /v2/a/blobs/uploads/?digest=%b HTTP/1.1\r\nHost: x.localhost\r\nContent-Length: 99999\r\n\r\n"
        stalled = drip % HELLO.encode() + b"x" * 10_000  # so much is worth 40 s of patience
        read = f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        slow = []
        for request in (*[half] * 200, *[stalled] * 64, *[read] * 64):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", int(server.authority.rpartition(":")[2])))
            sock.sendall(request)
            slow.append(sock)

        answers: list[Answer] = [client.ask("GET", "/v2/") for _ in range(20)]
        answers += [client.ask("HEAD", f"/v2/a/blobs/{digest}"), client.ask("GET", "/v2/a/tags/list")]
        put(client, "a", b"another one")

        assert [200] * 22 == [answer.status for answer in answers]
        # None of them has been cut off yet: it was not their end that the client has waited for.
        for sock in slow[200:264]:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        client.close()
