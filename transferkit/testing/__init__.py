"""For tests of whatever moves content: a real registry on a real socket, in this process, and all that can go wrong.

::

    from transferkit.testing import Faults, fault_proxy, running_registry

    with running_registry() as registry, fault_proxy(registry.url, [Faults(reset_after=100_000)]) as proxy:
        push_something_to(registry.url)
        pull_it_from(proxy.url)
        assert registry.log.count("PUT", "/manifests/") == 1
        assert proxy.connections[0].ended == "reset"

- :func:`running_registry`: an OCI registry, and the log of its requests.
- :func:`fault_proxy`: before any TCP server; connections are late, slow, silent, cut, damaged or refused.
- :class:`HTTPFaults` and :func:`with_faults`: before any WSGI application; answers are refusals, redirects, challenges,
  or not what their heads say. ``running_registry(middleware=...)`` takes them.
- :func:`scripted_server`: answers that no proper server gives, byte for byte.
- ``pytest_plugins = ["transferkit.testing.plugin"]``: fixtures ``registry``, ``fault_proxy`` and ``scripted_server``.

Public, and stable like the rest of the library. The registry needs the extra ``transferkit[server]``; nothing is
imported before it is asked for. Only loopback addresses are used unless a caller names another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferkit.testing.actions import challenge, delay, hang_up, html_page, redirect, respond
    from transferkit.testing.alterations import (
        corrupt,
        encode_gzip,
        ignore_range,
        lengthen,
        set_header,
        shift_range,
        truncate,
    )
    from transferkit.testing.faults import FaultRule, FaultyApp, HTTPFaults, with_faults
    from transferkit.testing.network import Faults, random_faults
    from transferkit.testing.proxy import ConnectionRecord, FaultProxy, fault_proxy
    from transferkit.testing.registry import LoggedRequest, RequestLog, RunningRegistry, running_registry
    from transferkit.testing.scripted import RawRequest, ScriptedServer, scripted_server
    from transferkit.testing.wire import (
        Close,
        Pause,
        Reset,
        answer,
        bad_status_line,
        chunked,
        header_flood,
        informational,
        never,
        truncated,
        two_lengths,
        until_close,
    )

_HOMES = {
    "actions": ("challenge", "delay", "hang_up", "html_page", "redirect", "respond"),
    "alterations": ("corrupt", "encode_gzip", "ignore_range", "lengthen", "set_header", "shift_range", "truncate"),
    "faults": ("FaultRule", "FaultyApp", "HTTPFaults", "with_faults"),
    "network": ("Faults", "random_faults"),
    "proxy": ("ConnectionRecord", "FaultProxy", "fault_proxy"),
    "registry": ("LoggedRequest", "RequestLog", "RunningRegistry", "running_registry"),
    "scripted": ("RawRequest", "ScriptedServer", "scripted_server"),
    "wire": (
        "Close",
        "Pause",
        "Reset",
        "answer",
        "bad_status_line",
        "chunked",
        "header_flood",
        "informational",
        "never",
        "truncated",
        "two_lengths",
        "until_close",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Close",
    "ConnectionRecord",
    "FaultProxy",
    "FaultRule",
    "Faults",
    "FaultyApp",
    "HTTPFaults",
    "LoggedRequest",
    "Pause",
    "RawRequest",
    "RequestLog",
    "Reset",
    "RunningRegistry",
    "ScriptedServer",
    "answer",
    "bad_status_line",
    "challenge",
    "chunked",
    "corrupt",
    "delay",
    "encode_gzip",
    "fault_proxy",
    "hang_up",
    "header_flood",
    "html_page",
    "ignore_range",
    "informational",
    "lengthen",
    "never",
    "random_faults",
    "redirect",
    "respond",
    "running_registry",
    "scripted_server",
    "set_header",
    "shift_range",
    "truncate",
    "truncated",
    "two_lengths",
    "until_close",
    "with_faults",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
