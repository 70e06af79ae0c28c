"""A manifest whose end is that of its connection, over TLS: one that somebody may have cut is not believed."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

import transferkit as tk

RAW = b'{"schemaVersion": 2, "layers": []}'


@pytest.fixture
def ending(authority, monkeypatch):
    """``ending(says_so)``: the URL of a server that ends its answers with its connections, by the book or not."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("127.0.0.1").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def serve(says_so):
        try:
            while True:
                sock, _ = listener.accept()
                with context.wrap_socket(sock, server_side=True) as wrapped:
                    wrapped.recv(65536)
                    wrapped.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + RAW)
                    if says_so:
                        wrapped.unwrap().close()
        except OSError:
            pass

    def start(says_so):
        threads.append(threading.Thread(target=serve, args=(says_so,), name="ending", daemon=True))
        threads[0].start()
        return f"https://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join(10)


def test_an_end_that_tls_knows_of_is_one(ending):
    assert RAW == tk.fetch_manifest("v1", base_url=ending(True), repository="library/model").raw


def test_an_end_that_tls_does_not_know_of_may_be_a_cut(ending, impatient):
    with pytest.raises(tk.ReadError, match="without the end of TLS"):
        tk.fetch_manifest("v1", base_url=ending(False), repository="library/model", options=impatient)
