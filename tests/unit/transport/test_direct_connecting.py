"""The direct way: nobody there, nobody known, and no socket left."""

from __future__ import annotations

import os
import socket
import ssl
import time

import pytest

from tests.unit.transport.rig import ANY, DIRECT_ALONE, HELLO, LIMIT, Serve, TLSServer, ask, client_of, everything
from transferkit.errors import CertificateError, ConnectError
from transferkit.transfer.flow import WorkerFlow

pytestmark = DIRECT_ALONE


def test_nobody_there_is_an_error_of_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with client_of(f"http://127.0.0.1:{port}") as client, pytest.raises(ConnectError, match="cannot connect"):
        ask(client)


def test_a_certificate_of_nobody_we_know_is_refused(server_context: ssl.SSLContext) -> None:
    with TLSServer(server_context, [HELLO]) as server, client_of(server) as client:
        with pytest.raises(CertificateError, match="does not verify"):
            ask(client)
        assert [] == server.requests


@pytest.mark.parametrize("ended", [True, False])
def test_a_client_that_is_closed_leaves_no_socket(serve: Serve, ended: bool) -> None:
    def sockets() -> int:
        names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum(os.readlink(name).startswith("socket:") for name in names if os.path.islink(name))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    with serve([HELLO] * 6) as server:
        before = sockets()
        with client_of(server) as client:
            several = [client.open("GET", "/", ok=ANY, flow=WorkerFlow()) for _ in range(6)]
            for each in several:
                everything(each) if ended else each.close()
        deadline = time.monotonic() + LIMIT
        while sockets() > before and time.monotonic() < deadline:
            time.sleep(0.01)  # the server's ends go when it has seen ours go
        assert before == sockets()
