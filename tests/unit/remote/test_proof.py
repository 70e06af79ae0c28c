"""The two rules: what an answer proves, and when the job goes on without one."""

from __future__ import annotations

import pytest

from tests.unit.remote.rig import BLOB, OTHER, Flow
from transferkit.errors import (
    BlobNotFoundError,
    CancelledError,
    CertificateError,
    ConnectError,
    DeniedError,
    ProtocolError,
    RateLimitedError,
    ReadError,
    ServerError,
    SizeMismatchError,
    SourceError,
    StalledError,
    TransferKitError,
    TransportTimeout,
)
from transferkit.remote.proof import EXISTS, MOUNT, Questions


@pytest.mark.parametrize(
    "error",
    [
        DeniedError(status=403),
        BlobNotFoundError(),
        ProtocolError(),
        SizeMismatchError(),
        ServerError(status=501, retryable=False),
    ],
)
def test_a_refusal_is_an_answer(flow: Flow, error: TransferKitError) -> None:
    Questions().go_without(error, EXISTS, BLOB.digest, flow)


@pytest.mark.parametrize(
    "error",
    [
        ConnectError(),
        CertificateError(),
        CancelledError(),
        StalledError(),
        SourceError(),
        RateLimitedError(status=429, retryable=False),
        ServerError(status=503, retryable=False),
    ],
)
def test_what_concerns_more_than_the_request_is_raised_each_time(flow: Flow, error: TransferKitError) -> None:
    questions = Questions()
    for _ in range(6):
        with pytest.raises(type(error)) as caught:
            questions.go_without(error, EXISTS, BLOB.digest, flow)
        assert caught.value is error
    assert not questions.is_spent(EXISTS, BLOB.digest, flow)


@pytest.mark.parametrize(
    "error", [ServerError(status=500), RateLimitedError(status=429), ReadError(), TransportTimeout()]
)
def test_trouble_is_raised_twice(flow: Flow, error: TransferKitError) -> None:
    questions = Questions()
    for _ in range(2):
        with pytest.raises(type(error)):
            questions.go_without(error, EXISTS, BLOB.digest, flow)
    assert not questions.is_spent(EXISTS, BLOB.digest, flow)
    questions.go_without(error, EXISTS, BLOB.digest, flow)
    assert questions.is_spent(EXISTS, BLOB.digest, flow)
    # Each question, blob and worker has a count of its own.
    for question, digest, other in (
        (MOUNT, BLOB.digest, flow),
        (EXISTS, OTHER.digest, flow),
        (EXISTS, BLOB.digest, Flow()),
    ):
        assert not questions.is_spent(question, digest, other)
    questions.answered(EXISTS, BLOB.digest, flow)
    assert not questions.is_spent(EXISTS, BLOB.digest, flow)


def test_what_is_here_in_part_is_given_up_later(flow: Flow) -> None:
    questions = Questions()
    for _ in range(4):
        with pytest.raises(ReadError):
            questions.go_without(ReadError(), EXISTS, BLOB.digest, flow, costly=True)
    questions.go_without(ReadError(), EXISTS, BLOB.digest, flow, costly=True)
