"""Silence, slowness and what wakes a blocked call, over plain sockets and over TLS with data pending."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import requests
import trustme

import transferkit as tk
from transferkit.testing import FaultRule, Faults, delay, fault_proxy, with_faults
from transferkit.testing.registry import running_registry
from transferkit.transport.sockets import abort_of

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
MIB = 1024 * 1024
SIZE = 4 * MIB
UNTAKEN = 8 * MIB  # more than the buffers of all sockets on the way take in, where the servers have small ones
QUICK = tk.TransferOptions(stall_timeout=0.8, resume_threshold=MIB)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ca")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    certificate = ca.issue_cert("127.0.0.1")
    (folder / "server.pem").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(folder / "server.key")
    return folder


@pytest.fixture(params=["plain", "tls"])
def place(request, authority, monkeypatch):
    """A registry, plain or over TLS, and what a call needs to trust it."""
    tls = None
    if request.param == "tls":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.pem"))
        tls = (str(authority / "server.pem"), str(authority / "server.key"))
    with running_registry(tls=tls) as registry:
        yield registry


def upload(url, blobs, source, **keywords):
    return tk.upload(blobs, source, base_url=url, repository=REPOSITORY, **keywords)


def download(url, blobs, folder, **keywords):
    return tk.download(blobs, folder, base_url=url, repository=REPOSITORY, **keywords)


def test_a_silent_body_is_continued_on_a_new_connection(place, make_blobs, tmp_path, assert_exactly):
    blobs = make_blobs(tmp_path / "s", [SIZE])
    upload(place.url, blobs, tmp_path / "s")
    with fault_proxy(place.url, [Faults(silent_after=MIB + 12_345), Faults(silent_after=2 * MIB)]) as proxy:
        report = download(proxy.url, blobs, tmp_path / "d", options=QUICK)

        assert 3 == len(proxy.connections)
    assert 2 == report.retried
    assert report.bytes < SIZE + 3 * 64 * 1024
    assert_exactly(tmp_path / "d", blobs)


def test_a_silent_small_body_is_fetched_again(place, make_blobs, tmp_path, assert_exactly):
    blobs = make_blobs(tmp_path / "s", [50_000])
    upload(place.url, blobs, tmp_path / "s")
    with fault_proxy(place.url, [Faults(silent_after=20_000)]) as proxy:
        report = download(proxy.url, blobs, tmp_path / "d", options=QUICK)

    assert 1 == report.retried
    assert_exactly(tmp_path / "d", blobs)


@pytest.mark.usefixtures("small_buffers")
def test_an_upload_whose_body_nobody_takes_is_sent_again(place, make_blobs, tmp_path):
    blobs = make_blobs(tmp_path / "s", [UNTAKEN])
    with fault_proxy(place.url, [Faults(silent_after_up=MIB)]) as proxy:
        report = upload(proxy.url, blobs, tmp_path / "s", options=QUICK)

    assert report.healed >= 1  # a loaded machine may let the second attempt stall too
    assert UNTAKEN == place.blob_path(blobs[0].digest).stat().st_size


def test_a_head_that_is_late_is_no_stall(make_blobs, tmp_path, assert_exactly):
    blobs = make_blobs(tmp_path / "s", [SIZE])
    waits = FaultRule(delay(2.0), method="GET")
    with running_registry(middleware=lambda app: with_faults(app, waits)) as registry:
        upload(registry.url, blobs, tmp_path / "s")
        report = download(registry.url, blobs, tmp_path / "d", options=QUICK)

    assert 0 == report.retried
    assert_exactly(tmp_path / "d", blobs)


def test_a_head_that_never_comes_is_a_timeout(registry, make_blobs, tmp_path):
    options = tk.TransferOptions(
        retry=tk.RetryOptions(attempts=2, patience=0), transport=tk.TransportOptions(response_timeout=0.3)
    )
    with fault_proxy(registry.url, Faults(silent_after=0)) as proxy:
        with pytest.raises(tk.IncompleteError) as caught:
            download(proxy.url, [tk.Blob("sha256:" + 64 * "a", 5)], tmp_path / "d", options=options)

    (error,) = caught.value.failures.values()
    assert isinstance(error.__cause__, tk.TransportTimeout)
    assert "did not answer in time" in str(error)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_cancelling_over_tls_with_data_pending_never_stores_ciphertext(
    place, make_blobs, tmp_path, direction, assert_exactly
):
    """The fast server keeps the socket's buffer full: whatever the wake does to TLS would be read next."""
    blobs = make_blobs(tmp_path / "s", [SIZE] * 4)
    if direction == "down":
        upload(place.url, blobs, tmp_path / "s")
    for number in range(6):
        cancel = tk.Cancellation()

        def stop(completed: int, total: int, number: int = number, cancel: tk.Cancellation = cancel) -> None:
            if completed > (number + 1) * MIB:
                cancel.cancel()

        options = tk.TransferOptions(resume_threshold=MIB, progress_interval=0.0005)
        try:
            if direction == "down":
                download(place.url, blobs, tmp_path / "d", options=options, cancel=cancel, progress=stop)
            else:
                upload(place.url, blobs, tmp_path / "s", options=options, cancel=cancel, progress=stop)
        except tk.CancelledError:
            pass
        for blob in blobs:
            partial = tmp_path / "d" / ".partial" / tk.digest_to_path(blob.digest)
            if partial.exists():
                original = (tmp_path / "s" / tk.digest_to_path(blob.digest)).read_bytes()
                assert original.startswith(partial.read_bytes())

    if direction == "down":
        report = download(place.url, blobs, tmp_path / "d", options=QUICK)
        assert 0 == report.retried  # a prefix with a wrong byte in it would have cost a second attempt
        assert_exactly(tmp_path / "d", blobs)
    else:
        upload(place.url, blobs, tmp_path / "s")
        assert [SIZE] * 4 == [place.blob_path(blob.digest).stat().st_size for blob in blobs]


def tls_pair(authority):
    """A TLS connection within this process: (client side, server side)."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(authority / "server.pem", authority / "server.key")
    client_context = ssl.create_default_context(cafile=authority / "ca.pem")
    near, far = socket.socketpair()
    accepted: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: accepted.append(server_context.wrap_socket(far, server_side=True)))
    thread.start()
    client = client_context.wrap_socket(near, server_hostname="127.0.0.1")
    thread.join()
    return client, accepted[0]


def test_an_aborted_tls_socket_hands_out_plain_text_or_nothing(authority):
    client, server = tls_pair(authority)
    with client, server:
        for _ in range(3):
            server.sendall(b"A" * 10_000)
        assert b"A" * 10 == client.recv(10)

        abort_of(client)()

        rest = b""
        try:
            while block := client.recv(65536):
                rest += block
        except ssl.SSLError:
            pass  # an end without a goodbye is an end
        assert set(rest) <= set(b"A")


def test_an_abort_wakes_a_blocked_tls_read(authority):
    client, server = tls_pair(authority)
    with client, server:
        ended = threading.Event()

        def read() -> None:
            try:
                client.recv(10)
            except OSError:
                pass
            ended.set()

        thread = threading.Thread(target=read)
        thread.start()
        assert not ended.wait(0.1)
        abort_of(client)()
        assert ended.wait(5)
        thread.join()


def test_an_abort_of_a_closed_socket_is_harmless():
    sock = socket.socket()
    sock.close()
    abort_of(sock)()
    assert sock.fileno() == -1


def test_a_users_session_is_woken_too(make_blobs, registry, tmp_path, assert_exactly):
    blobs = make_blobs(tmp_path / "s", [SIZE])
    upload(registry.url, blobs, tmp_path / "s")
    with fault_proxy(registry.url, [Faults(silent_after=MIB)]) as proxy, requests.Session() as session:
        report = download(proxy.url, blobs, tmp_path / "d", options=QUICK, session=session)

    assert 1 == report.retried
    assert_exactly(tmp_path / "d", blobs)


def test_one_slow_connection_among_fast_ones_is_replaced(registry, make_blobs, tmp_path, assert_exactly, monkeypatch):
    """The window is made shorter: the judgement itself is tested on an injected clock."""
    monkeypatch.setattr("transferkit.transfer.watchdog.WINDOW", 0.5)
    blobs = make_blobs(tmp_path / "s", [MIB] * 8 + [2 * MIB])
    upload(registry.url, blobs, tmp_path / "s")

    def choose(number: int) -> Faults:
        return Faults(bandwidth=20_000) if number == 3 else Faults(bandwidth=4_000_000)

    with fault_proxy(registry.url, choose) as proxy:
        report = download(proxy.url, blobs, tmp_path / "d", concurrency=4)

    assert 1 == report.retried
    assert_exactly(tmp_path / "d", blobs)
