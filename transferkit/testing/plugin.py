"""pytest fixtures, for who asks for them: ``pytest_plugins = ["transferkit.testing.plugin"]``.

That line stands in a ``conftest.py`` or in a test module. The only place that imports pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from transferkit.testing.network import FaultChoice
from transferkit.testing.proxy import FaultProxy
from transferkit.testing.registry import RunningRegistry, running_registry
from transferkit.testing.scripted import Script, ScriptedServer


class MakeProxy(Protocol):
    """The type of the fixture ``fault_proxy``."""

    def __call__(self, target: str, faults: FaultChoice = (), *, host: str = "127.0.0.1") -> FaultProxy: ...


class MakeServer(Protocol):
    """The type of the fixture ``scripted_server``."""

    def __call__(self, script: Script, *, read_body: bool = True) -> ScriptedServer: ...


@pytest.fixture
def registry() -> Iterator[RunningRegistry]:
    """An empty registry that runs until the test ends."""
    with running_registry() as running:
        yield running


@pytest.fixture
def fault_proxy() -> Iterator[MakeProxy]:
    """A function that starts a proxy before a server: ``fault_proxy(registry.url, [Faults(reset_after=9)])``."""
    with ExitStack() as stack:

        def make(target: str, faults: FaultChoice = (), *, host: str = "127.0.0.1") -> FaultProxy:
            return stack.enter_context(FaultProxy(target, faults, host=host))

        yield make


@pytest.fixture
def scripted_server() -> Iterator[MakeServer]:
    """A function that starts a server which says what a script says: ``scripted_server([answer(404)])``."""
    with ExitStack() as stack:

        def make(script: Script, *, read_body: bool = True) -> ScriptedServer:
            return stack.enter_context(ScriptedServer(script, read_body=read_body))

        yield make
