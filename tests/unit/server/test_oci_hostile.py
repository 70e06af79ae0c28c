"""Requests that nobody planned: whatever comes, the answer is one of the specification, and the store is in order."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client

from transferkit.server import OCIRegistry
from transferkit.server.limits import Limits

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
SESSION = "00000000-0000-4000-8000-000000000000"
NAME = re.compile(r"sha256-[0-9a-f]{64}(\.chunks-[0-9]+)?|sha512-[0-9a-f]{128}")

texts = st.text(max_size=20)
names = st.sampled_from(["a", "library/model", "a/blobs/uploads", "..", "A", "a//b"]) | texts
digests = st.sampled_from([HELLO, "sha512:" + 128 * "0", "sha256:..", HELLO.upper(), ""]) | texts
references = digests | st.sampled_from(["latest", SESSION, "list", "-x"])
kinds = st.sampled_from(
    ["blobs", "blobs/uploads", "manifests", "tags", "referrers", "chunksums", "_catalog", "uploads"]
)
paths = st.builds(lambda name, kind, reference: f"/v2/{name}/{kind}/{reference}", names, kinds, references) | texts
keys = st.sampled_from(["digest", "digest-algorithm", "mount", "from", "n", "last", "tag", "_state", "artifactType"])
queries = st.lists(st.tuples(keys | texts, references | names | st.integers().map(str)), max_size=4)
fields = st.sampled_from(
    ["Range", "Content-Range", "Content-Type", "If-None-Match", "If-Match", "If-Range", "Authorization", "User-Agent"]
)
values = st.sampled_from(
    ["bytes=0-1", "0-4", "bytes=5-", f'"{HELLO}"', "W/*", "ollama/1", "application/json", "Basic x"]
)
headers = st.dictionaries(fields, values | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | digests
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["config", "layers", "manifests", "subject", "mediaType", "digest", "size", "urls", "annotations"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
bodies = st.binary(max_size=40) | documents.map(lambda document: json.dumps(document).encode()) | st.just(b"hello")
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Client, Path]:
    """A registry that lives on from request to request, and its folder."""
    folder = tmp_path_factory.mktemp("store")
    client = Client(OCIRegistry(folder, durable=False, sparse=True, patience=0, limits=Limits(uploads=5)))
    client.post(f"/v2/a/blobs/uploads/?digest={HELLO}", data=b"hello")
    return client, folder


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=methods, path=paths, query=queries, fields=headers, body=bodies)
def test_no_request_is_the_servers_fault(
    served: tuple[Client, Path],
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    query: list[tuple[str, str]],
    fields: dict[str, str],
    body: bytes,
) -> None:
    client, folder = served
    caplog.set_level(logging.ERROR)
    environ: dict[str, Any] = {"PATH_INFO": path.encode("utf-8", "surrogatepass").decode("latin-1")}

    with client.open(
        "/", method=method, query_string=dict(query), headers=fields, data=body, environ_overrides=environ
    ) as answer:
        text = answer.data

    assert answer.status_code < 500
    assert b"Traceback" not in text
    if answer.status_code >= 400 and method != "HEAD":
        assert {"code", "message", "detail"} == set(json.loads(text)["errors"][0])
    assert [] == caplog.records
    assert [] == [each.name for each in (folder / "blobs").iterdir() if not NAME.fullmatch(each.name)]
    assert {"blobs", "repositories", "uploads"} == {each.name for each in folder.iterdir()}
