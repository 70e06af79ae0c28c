"""WSGI applications: an OCI registry over a directory, and how to serve one. Needs the extra ``transferkit[server]``.

Nothing is imported before it is asked for: werkzeug and cheroot are optional.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferkit.server.oci import OCIRegistry
    from transferkit.server.serve import serving

__all__ = ["OCIRegistry", "serving"]


def __getattr__(name: str) -> Any:
    if name == "OCIRegistry":
        from transferkit.server.oci import OCIRegistry

        return OCIRegistry
    if name == "serving":
        from transferkit.server.serve import serving

        return serving
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
