"""The order of the table of foreign errors, and what comes before it."""

from __future__ import annotations

import http.client
import pickle
import socket
import ssl

import pytest
import requests
import requests.exceptions as theirs
import urllib3
import urllib3.exceptions as urllib3s
from urllib3.util import Retry

from tests.unit.transport.rig import HERE, LIMIT, raised_by
from transferkit.errors import (
    CancelledError,
    CertificateError,
    ConnectError,
    ReadError,
    SourceError,
    TransferKitError,
    TransportTimeout,
)
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.failures import convert, foreign_errors, root_of
from transferkit.transport.request import BytesBody, RequestBody

# -- the order of the rows


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        # A certificate is one, though it is an SSLError and comes as a ProxyError of a proxy that speaks TLS.
        (theirs.ProxyError(ssl.SSLCertVerificationError(1, "certificate verify failed")), CertificateError),
        # A name that does not resolve is one below all that urllib3 and requests wrap it in.
        (theirs.ConnectionError(urllib3s.MaxRetryError(None, "/", socket.gaierror(-2, "x"))), ConnectError),  # type: ignore[arg-type]
        # A proxy that lets us wait is an error of connecting in time.
        (theirs.ProxyError(urllib3s.ConnectTimeoutError("x")), TransportTimeout),
        # The outermost decides about time: an error of reading that had a timeout below it is a broken connection.
        (theirs.ConnectionError(TimeoutError("x")), ReadError),
        (theirs.ChunkedEncodingError(urllib3s.ProtocolError("x", TimeoutError())), ReadError),
        # RemoteDisconnected is a BadStatusLine, and still no answer that is not HTTP.
        (theirs.ConnectionError(urllib3s.ProtocolError("x", http.client.RemoteDisconnected("y"))), ReadError),
        (http.client.IncompleteRead(b""), ReadError),
    ],
)
def test_the_first_row_that_fits_decides(error: BaseException, kind: type[TransferKitError]) -> None:
    assert kind is type(convert(error, HERE))


def test_an_error_that_came_from_itself_is_walked_once() -> None:
    one, other = OSError("one"), OSError("other")
    one.__cause__, other.__cause__ = other, one
    assert "the connection to http://registry.example broke: other" == str(convert(one, HERE))


# -- around a call


def test_what_the_flow_says_comes_first() -> None:
    flow, reason = WorkerFlow(), CancelledError("now")
    flow.cut(reason, final=True)
    with pytest.raises(CancelledError) as caught, foreign_errors(flow, HERE):
        raise ConnectionResetError("woken")
    assert caught.value is reason


def test_what_the_source_of_a_body_raised_comes_before_what_a_library_made_of_it() -> None:
    flow = WorkerFlow()
    body = RequestBody(5, lambda: BytesBody(b"hello"), flow)
    body.error = SourceError("gone")
    with pytest.raises(SourceError, match="gone"), foreign_errors(flow, HERE, body=body):
        raise theirs.ConnectionError("wrapped")


@pytest.mark.parametrize("error", [ReadError("ours"), KeyError("nobody's"), KeyboardInterrupt()])
def test_our_own_errors_and_those_of_no_library_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, foreign_errors(WorkerFlow(), HERE):
        raise error
    assert caught.value is error


def test_a_cause_is_the_systems_error_and_no_error_of_a_library(nobody: str) -> None:
    """Theirs repeat the URL, with the signature in its query, in every traceback."""
    with pytest.raises(ConnectError) as caught, foreign_errors(WorkerFlow(), HERE):
        requests.get(f"{nobody}/?X-Signature=secret", timeout=LIMIT)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.__suppress_context__
    assert "secret" not in repr(caught.value.__cause__)
    assert root_of(urllib3s.LocationParseError("x")) is None


def test_a_retry_of_the_users_own_keeps_the_cause(nobody: str) -> None:
    with urllib3.PoolManager(retries=Retry(2, backoff_factor=0)) as pool:
        error = raised_by(lambda: pool.request("GET", nobody))
    assert ConnectError is type(convert(error, HERE))
    assert pickle.loads(pickle.dumps(convert(error, HERE))).args
