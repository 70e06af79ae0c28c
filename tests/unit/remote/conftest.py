"""Fixtures of the tests of a repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.unit.remote.rig import WHERE, Flow
from transferkit.remote.repository import Repository
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts


@pytest.fixture
def flow() -> Flow:
    return Flow()


@pytest.fixture
def repository_of() -> Iterator[Callable[..., Repository]]:
    """``repository_of(url, **arguments)`` makes a repository; the arguments are those of ``Hosts``."""
    with ExitStack() as stack:

        def make(url: str, **arguments: Any) -> Repository:
            return Repository(Client(url, stack.enter_context(Hosts(**arguments))), WHERE)

        yield make
