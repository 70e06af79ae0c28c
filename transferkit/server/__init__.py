"""WSGI applications: an OCI registry over a directory, Ollama's API of models, and how to serve them.

They need the extra ``transferkit[server]``.

Nothing is imported before it is asked for: werkzeug and cheroot are optional.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferkit.server.app import Application
    from transferkit.server.local import LocalAPI
    from transferkit.server.oci import OCIRegistry
    from transferkit.server.serve import serving

__all__ = ["Application", "LocalAPI", "OCIRegistry", "serving"]


def __getattr__(name: str) -> Any:
    if name == "Application":
        from transferkit.server.app import Application

        return Application
    if name == "LocalAPI":
        from transferkit.server.local import LocalAPI

        return LocalAPI
    if name == "OCIRegistry":
        from transferkit.server.oci import OCIRegistry

        return OCIRegistry
    if name == "serving":
        from transferkit.server.serve import serving

        return serving
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
