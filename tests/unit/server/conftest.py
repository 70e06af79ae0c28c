"""A registry without a socket: the application in a werkzeug client, over a fresh directory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from werkzeug.test import Client

from transferkit.server import OCIRegistry


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(OCIRegistry(tmp_path, durable=False))


@pytest.fixture
def push(client: Client) -> Callable[..., str]:
    """Push bytes into a repository and return their digest."""

    def push(data: bytes, repository: str = "library/model") -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        answer = client.post(f"/v2/{repository}/blobs/uploads/?digest={digest}", data=data)
        assert (201, digest) == (answer.status_code, answer.headers["Docker-Content-Digest"])
        return digest

    return push
