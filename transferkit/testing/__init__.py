"""For tests of whatever moves content: a real registry on a real socket, in this process.

::

    from transferkit.testing import running_registry

    with running_registry() as registry:
        push_something_to(registry.url)
        assert registry.log.count("PUT", "/manifests/") == 1

Public, and stable like the rest of the library. Needs the extra ``transferkit[server]``; nothing is imported before it
is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferkit.testing.registry import LoggedRequest, RequestLog, RunningRegistry, running_registry

_HOME = {
    "LoggedRequest": "registry",
    "RequestLog": "registry",
    "RunningRegistry": "registry",
    "running_registry": "registry",
}

__all__ = ["LoggedRequest", "RequestLog", "RunningRegistry", "running_registry"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
