"""The fault proxy, seen from plain sockets on both sides."""

from __future__ import annotations

import contextlib
import http.client
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.descriptors import open_descriptors
from transferkit.testing import (
    FaultProxy,
    Faults,
    Reset,
    answer,
    fault_proxy,
    random_faults,
    running_registry,
    scripted_server,
)

PATTERN = bytes(range(251)) * 40_000  # 10 MB; 251 is prime: a shifted block is seen

PROMPT = 2.0  # seconds: it takes milliseconds, on an idle machine; every wait in the code is longer


class Peer(socketserver.ThreadingTCPServer):
    """A server with three words: ``send N``, ``quit``, and ``eat``, after which it tells how much it ate."""

    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.endings: list[str] = []
        self.eaten: list[int] = []
        self.target = f"127.0.0.1:{self.server_address[1]}"


class Handler(socketserver.StreamRequestHandler):
    server: Peer

    def handle(self) -> None:
        try:
            while line := self.rfile.readline():
                word, _, number = line.decode().strip().partition(" ")
                if word == "send":
                    self.wfile.write(PATTERN[: int(number)])
                elif word == "eat":
                    self._eat()
                else:
                    return
        except ConnectionError:
            self.server.endings.append("reset")
        else:
            self.server.endings.append("end")

    def _eat(self) -> None:
        eaten = 0
        try:
            while block := self.rfile.read1(65536):
                eaten += len(block)
        finally:
            self.server.eaten.append(eaten)
        self.wfile.write(f"{eaten}\n".encode())


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=20)


def read(sock: socket.socket, size: int = 1 << 40) -> tuple[bytes, str]:
    """Return what comes, up to ``size`` bytes, and how it ended."""
    blocks = []
    try:
        while size:
            block = sock.recv(min(size, 65536))
            if not block:
                return b"".join(blocks), "end"
            blocks.append(block)
            size -= len(block)
    except ConnectionResetError:
        return b"".join(blocks), "reset"
    except TimeoutError:
        return b"".join(blocks), "silence"
    return b"".join(blocks), "enough"


def assert_reset_at_once(proxy: FaultProxy) -> None:
    with pytest.raises(ConnectionResetError):  # while connecting or after: that is the client's luck
        with connect(proxy) as sock:
            sock.recv(1)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def test_without_faults_every_byte_passes_both_ways(peer: Peer) -> None:
    with fault_proxy(peer.target) as proxy:
        with connect(proxy) as sock:
            sock.sendall(b"send 10000000\n")
            assert (PATTERN[:10_000_000], "enough") == read(sock, 10_000_000)
            sock.sendall(b"eat\n" + PATTERN)
            sock.shutdown(socket.SHUT_WR)  # half-closed: the answer still comes
            assert (b"10040000\n", "end") == read(sock)
        wait_for(lambda: proxy.connections[0].ended is not None)
        (record,) = proxy.connections

    assert (0, 14 + 4 + 10_040_000, 10_000_000 + 9) == (record.number, record.up, record.down)
    assert ("client closed", Faults()) == (record.ended, record.faults)


def test_the_url_is_the_targets_with_another_port() -> None:
    with fault_proxy("https://localhost:5000/base", host="localhost") as proxy:
        assert proxy.url == f"https://localhost:{proxy.port}/base"
    with fault_proxy("127.0.0.1:80") as proxy:
        assert proxy.url == f"127.0.0.1:{proxy.port}"
        assert repr(proxy) == f"<FaultProxy 127.0.0.1:{proxy.port}: 0 connections, 0 open>"


@pytest.mark.parametrize("target", ["", "127.0.0.1", "ftp://127.0.0.1", "http://"])
def test_a_target_without_a_port_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="URL or host:port"):
        fault_proxy(target)


@pytest.mark.parametrize("position", [1, 1000, 3_000_001])
def test_a_reset_comes_after_exactly_so_many_bytes_to_both_sides(peer: Peer, position: int) -> None:
    with fault_proxy(peer.target, Faults(reset_after=position)) as proxy:
        with connect(proxy) as sock:
            sock.sendall(b"send 10000000\n")
            assert (PATTERN[:position], "reset") == read(sock)
        assert ("reset", position) == (proxy.connections[0].ended, proxy.connections[0].down)
        wait_for(lambda: peer.endings == ["reset"])


def test_a_reset_while_sending(peer: Peer) -> None:
    with fault_proxy(peer.target, Faults(reset_after_up=200_000)) as proxy:
        with connect(proxy) as sock:
            with pytest.raises(ConnectionError):
                sock.sendall(b"eat\n")
                while True:
                    sock.sendall(PATTERN)
        assert ("reset", 200_000) == (proxy.connections[0].ended, proxy.connections[0].up)
        wait_for(lambda: peer.eaten == [200_000 - 4])


def test_a_clean_end_in_the_middle(peer: Peer) -> None:
    with fault_proxy(peer.target, Faults(close_after=5000)) as proxy:
        with connect(proxy) as sock:
            sock.sendall(b"send 10000000\n")
            assert (PATTERN[:5000], "end") == read(sock)
            for _ in range(10):  # is thrown away, and not answered with a reset, which would break the pipe
                sock.sendall(b"more")
                time.sleep(0.005)
            assert (b"", "end") == read(sock)
        assert ("closed", 5000) == (proxy.connections[0].ended, proxy.connections[0].down)


def test_a_clean_end_behind_a_whole_answer_leaves_a_stale_connection(peer: Peer) -> None:
    with fault_proxy(peer.target, Faults(close_after=100)) as proxy, connect(proxy) as sock:
        sock.sendall(b"send 100\n")
        assert (PATTERN[:100], "end") == read(sock)


def test_silence_in_the_middle(peer: Peer) -> None:
    with fault_proxy(peer.target, Faults(silent_after=5000)) as proxy:
        with connect(proxy) as sock:
            sock.sendall(b"send 10000000\n")
            sock.settimeout(0.2)
            assert (PATTERN[:5000], "silence") == read(sock)
            assert proxy.connections[0].ended is None
        wait_for(lambda: proxy.connections[0].ended == "client closed")


def test_a_client_that_is_not_read_from_blocks(peer: Peer) -> None:
    with fault_proxy(peer.target, Faults(silent_after_up=1000)) as proxy:
        with connect(proxy) as sock:
            sock.settimeout(0.2)
            sock.sendall(b"eat\n")
            with pytest.raises(TimeoutError):
                while True:
                    sock.sendall(PATTERN)
        assert (1000, None) == (proxy.connections[0].up, proxy.connections[0].ended)
    assert proxy.connections[0].ended == "proxy closed"


def test_one_bit_of_one_byte_is_flipped(peer: Peer) -> None:
    with fault_proxy(peer.target, Faults(corrupt_at=70_000)) as proxy, connect(proxy) as sock:
        sock.sendall(b"send 100000\n")
        data, _ = read(sock, 100_000)
    wrong = [index for index in range(100_000) if data[index] != PATTERN[index]]
    assert [70_000] == wrong
    assert data[70_000] ^ PATTERN[70_000] == 1


def test_latency_is_added_to_every_round_trip_and_not_to_every_block(peer: Peer) -> None:
    with fault_proxy(peer.target, Faults(latency=0.15)) as proxy, connect(proxy) as sock:
        for _ in range(2):
            begin = time.monotonic()
            sock.sendall(b"send 3000000\n")
            assert (PATTERN[:3_000_000], "enough") == read(sock, 3_000_000)
            assert 0.15 <= time.monotonic() - begin < 5


def test_bandwidth_is_limited_down_and_up(peer: Peer) -> None:
    with fault_proxy(peer.target, Faults(bandwidth=1_000_000)) as proxy, connect(proxy) as sock:
        begin = time.monotonic()
        sock.sendall(b"send 400000\n")
        assert (PATTERN[:400_000], "enough") == read(sock, 400_000)
        assert time.monotonic() - begin > 0.3

        begin = time.monotonic()
        sock.sendall(b"eat\n" + PATTERN[:400_000])
        sock.shutdown(socket.SHUT_WR)
        assert (b"400000\n", "end") == read(sock)
        assert time.monotonic() - begin > 0.3


def test_a_trickle_begins_at_its_position(peer: Peer) -> None:
    with fault_proxy(peer.target, Faults(trickle=200, trickle_after=50_000)) as proxy, connect(proxy) as sock:
        sock.sendall(b"send 50040\n")
        assert (PATTERN[:50_000], "enough") == read(sock, 50_000)
        begin = time.monotonic()
        assert (PATTERN[50_000:50_040], "enough") == read(sock, 40)
        assert time.monotonic() - begin > 0.1


def test_a_refused_connection_never_reaches_the_server(peer: Peer) -> None:
    with fault_proxy(peer.target, [Faults(refuse=True)]) as proxy:
        assert_reset_at_once(proxy)
        with connect(proxy) as sock:
            sock.sendall(b"send 5\n")
            assert (PATTERN[:5], "enough") == read(sock, 5)
        wait_for(lambda: len(peer.endings) == 1)
        assert ["refused", "client closed"] == [record.ended for record in proxy.connections]


def test_a_port_with_nobody_on_it_for_a_while(peer: Peer) -> None:
    with fault_proxy(peer.target) as proxy, connect(proxy) as old:
        old.sendall(b"send 1\n")
        assert (PATTERN[:1], "enough") == read(old, 1)
        with proxy.down():
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
            old.sendall(b"send 5\n")
            assert (PATTERN[:5], "enough") == read(old, 5)
        with connect(proxy) as new:
            new.sendall(b"send 5\n")
            assert (PATTERN[:5], "enough") == read(new, 5)


def test_a_server_that_is_not_there_is_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with fault_proxy(f"127.0.0.1:{port}") as proxy:
        assert_reset_at_once(proxy)
        assert proxy.connections[0].ended == "server unreachable"


def test_a_sequence_is_for_one_connection_each_and_a_function_for_all(peer: Peer) -> None:
    def lengths(proxy: FaultProxy) -> list[int]:
        found = []
        for _ in range(3):
            with connect(proxy) as sock:
                sock.sendall(b"send 50\nquit\n")
                found.append(len(read(sock)[0]))
        return found

    with fault_proxy(peer.target, [Faults(close_after=10), Faults(close_after=20)]) as proxy:
        assert [10, 20, 50] == lengths(proxy)
        proxy.set([Faults(close_after=30)])  # begins with the next one
        assert [30, 50, 50] == lengths(proxy)
        proxy.set(lambda number: Faults(close_after=number))
        assert [6, 7, 8] == lengths(proxy)


def test_faults_for_open_connections_count_from_there(peer: Peer) -> None:
    with fault_proxy(peer.target) as proxy, connect(proxy) as sock:
        sock.sendall(b"send 1000\n")
        assert (PATTERN[:1000], "enough") == read(sock, 1000)
        proxy.set(Faults(silent_after=10))
        sock.sendall(b"send 1000\n")
        assert (PATTERN[:10], "enough") == read(sock, 10)
        proxy.set(Faults(reset_after=500))
        assert (PATTERN[10:510], "reset") == read(sock)
        with connect(proxy) as other:
            other.sendall(b"send 1000\n")
            assert (PATTERN[:500], "reset") == read(other)


def test_cut_breaks_what_is_open_and_nothing_else(peer: Peer) -> None:
    with fault_proxy(peer.target) as proxy:
        with connect(proxy) as sock:
            sock.sendall(b"send 5\n")
            read(sock, 5)
            proxy.cut()
            assert (b"", "reset") == read(sock)
        with connect(proxy) as sock:
            sock.sendall(b"send 5\nquit\n")
            assert (PATTERN[:5], "end") == read(sock)
        wait_for(lambda: proxy.connections[1].ended is not None)
        assert ["cut", "server closed"] == [record.ended for record in proxy.connections]


def test_what_one_side_breaks_is_broken_for_the_other(peer: Peer) -> None:
    with fault_proxy(peer.target) as proxy:
        with connect(proxy) as sock:
            sock.sendall(b"send 10000000\n")
            read(sock, 1000)  # the rest stays unread: closing is a reset
        wait_for(lambda: peer.endings == ["reset"])
        assert proxy.connections[0].ended == "reset by client"


def test_a_reset_of_the_server_reaches_the_client() -> None:
    with scripted_server([[answer(200, b"x" * 100), Reset()]]) as server, fault_proxy(server.url) as proxy:
        with connect(proxy) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert read(sock)[1] == "reset"
        assert proxy.connections[0].ended == "reset by server"


def test_a_port_that_was_taken_meanwhile_is_an_error_of_the_caller(peer: Peer) -> None:
    with fault_proxy(peer.target) as proxy:
        with pytest.raises(OSError, match="in use"), contextlib.ExitStack() as stack:
            with proxy.down():
                stack.enter_context(socket.create_server((proxy.host, proxy.port)))


def test_an_error_of_the_users_function_comes_out_of_the_with(peer: Peer) -> None:
    def choose(number: int) -> Faults:
        raise LookupError(f"no plan for {number}")

    with pytest.raises(LookupError, match="no plan for 0"):
        with fault_proxy(peer.target, choose) as proxy:
            assert_reset_at_once(proxy)


def test_hundreds_of_connections_are_one_thread(peer: Peer) -> None:
    threads = threading.active_count()
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(fault_proxy(peer.target, Faults(silent_after_up=0)))
        socks = [stack.enter_context(connect(proxy)) for _ in range(200)]
        wait_for(lambda: len(proxy.connections) == 200)
        # The peer's own threads are one a connection; nothing else was started but the proxy's.
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("transferkit")]
        assert ["transferkit-proxy"] == names
        proxy.set(Faults())
        for sock in socks:
            sock.sendall(b"send 3\n")
        assert all((PATTERN[:3], "enough") == read(sock, 3) for sock in socks)
    wait_for(lambda: threading.active_count() == threads)


def test_the_way_out_is_quick_and_leaves_nothing(peer: Peer) -> None:
    threads, descriptors = threading.active_count(), len(open_descriptors())
    with contextlib.ExitStack() as stack:
        with fault_proxy(peer.target, Faults(bandwidth=1000)) as proxy:
            socks = [stack.enter_context(connect(proxy)) for _ in range(8)]
            for sock in socks:
                sock.sendall(b"send 10000000\n")
            wait_for(lambda: len(proxy.connections) == 8 and all(record.down for record in proxy.connections))
            begin = time.monotonic()
        assert time.monotonic() - begin < PROMPT
        assert {"proxy closed"} == {record.ended for record in proxy.connections}
        assert {"reset", "end"} >= {read(sock)[1] for sock in socks}
    wait_for(lambda: len(peer.endings) == 8)
    wait_for(lambda: threading.active_count() == threads and len(open_descriptors()) == descriptors)


def test_before_a_tls_server_only_bytes_are_seen(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def status(proxy: FaultProxy) -> int:
        connection = http.client.HTTPSConnection("localhost", proxy.port, context=context, timeout=20)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status
        finally:
            connection.close()

    with running_registry(tls=(str(chain), str(key))) as registry:
        with fault_proxy(registry.url, [Faults(), Faults(reset_after=100)], host="localhost") as proxy:
            assert proxy.url.startswith("https://localhost:")
            assert status(proxy) == 200
            with pytest.raises(OSError, match=r"reset|EOF"):
                status(proxy)


def test_random_faults_are_the_same_for_the_same_seed() -> None:
    first, second, other = random_faults(1), random_faults(1), random_faults(2)
    plan = [first(number) for number in range(1000)]
    assert plan == [second(number) for number in reversed(range(1000))][::-1]
    assert plan != [other(number) for number in range(1000)]
    faulty = [faults for faults in plan if faults != Faults()]
    assert 200 < len(faulty) < 400
    assert all(faults.refuse or max(faults.reset_after or 0, faults.close_after or 0) < 262_144 for faults in faulty)


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"within": 0}, {"kinds": []}])
def test_random_faults_refuse_nonsense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="share is between 0 and 1"):
        random_faults(1, **wrong)


@pytest.mark.parametrize("wrong", [{"reset_after": -1}, {"latency": -0.1}, {"bandwidth": 0}, {"trickle": 0.0}])
def test_faults_refuse_nonsense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"Faults.{next(iter(wrong))} is"):
        Faults(**wrong)
