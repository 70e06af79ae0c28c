"""The body of a request to the local API: bounded, read by its first value, and refused in the words of Go."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferkit.server.api_errors import Failure
from transferkit.server.json_body import LIMIT, parse, read_json


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty request body"),
        (b"  \n", "unexpected end of JSON input"),
        (b"!", "invalid character '!' looking for beginning of value"),
        (b'{"model":', "unexpected end of JSON input"),
        (b'{"model":"a', "unexpected end of JSON input"),
        (b'{"model":!}', "invalid character '!' in the request body"),
        (b"[1]", "the request body is a JSON object, not an array"),
        (b"null", "the request body is a JSON object, not null"),
        (b'"smol"', "the request body is a JSON object, not a text"),
        (b"{" + b'"a":' * 3, "invalid character"),
        (b'{"a":NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (LIMIT + 1), f"more than {LIMIT} bytes"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(body, message):
    with pytest.raises(Failure, match=message.replace("(", "\\(")) as caught:
        read_json(io.BytesIO(body))
    assert (400, "bad_request") == (caught.value.status, caught.value.code)


def test_a_body_that_cannot_be_read_is_an_error_of_the_server():
    class Broken(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(22, "invalid argument")

    with pytest.raises(Failure, match=r"^internal server error$") as caught:
        read_json(Broken())
    assert (500, "internal_error", "[Errno 22] invalid argument") == (
        caught.value.status,
        caught.value.code,
        caught.value.cause,
    )


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConnectionAbortedError("the body ended early"), 400, "bad_request"),
        (TimeoutError("the body comes too slowly"), 408, "request_timeout"),
    ],
)
def test_a_body_that_the_client_has_cut_or_lets_drip_is_the_clients_fault(error, status, code):
    class Cut(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise error

    with pytest.raises(Failure, match=r"the (request )?body") as caught:
        read_json(Cut())
    assert (status, code) == (caught.value.status, caught.value.code)


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        ('{"model": "smol"}', "smol", True),
        ('{"name": "smol"}', "smol", True),
        ('{"model": "", "name": "older"}', "older", True),
        ('{"MODEL": "smol", "Stream": false}', "smol", False),
        ('{"model": "smol", "stream": null, "insecure": true, "other": []}', "smol", True),
        ('{"model": "first"}{"model": "second"} rest', "first", True),
        ("{}", "", True),
    ],
)
def test_what_is_asked_for(body, model, stream):
    asked = read_json(io.BytesIO(body.encode()))
    assert (model, stream) == (asked.model, asked.stream)


@pytest.mark.parametrize(
    ("body", "field"), [('{"model": 1}', "model"), ('{"name": []}', "name"), ('{"stream": 1}', "")]
)
def test_a_field_of_another_type_is_refused(body, field):
    asked = read_json(io.BytesIO(body.encode()))
    with pytest.raises(Failure, match=f"the field {field or 'stream'} is"):
        _ = asked.stream if not field else asked.model


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats(), st.lists).map(json.dumps))
def test_no_body_brings_anything_but_a_refusal(text):
    statuses = set()
    try:
        parse(text)
    except Failure as failure:
        statuses.add(failure.status)
    assert statuses <= {400}
