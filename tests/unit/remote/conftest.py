"""Fixtures of the tests of a repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.remote.rig import WHERE, Flow
from transferkit.remote.repository import Repository
from transferkit.transport.client import Client


@pytest.fixture
def flow() -> Flow:
    return Flow()


@pytest.fixture
def repository_of() -> Iterator[Callable[..., Repository]]:
    clients: list[Client] = []

    def make(url: str, **arguments: Any) -> Repository:
        clients.append(Client(url, **arguments))
        return Repository(clients[-1], WHERE)

    yield make
    for client in clients:
        client.close()
