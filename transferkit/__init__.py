"""transferkit moves content-addressed data between registries (OCI, Docker, Ollama) and disk.

>>> import transferkit as tk
>>> tk.digest_to_path("sha256:" + 64 * "a")[:10]
'sha256-aaa'

Names are imported when they are used: ``import transferkit`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from transferkit._version import __version__
from transferkit.forks import importing

if TYPE_CHECKING:
    from transferkit.bulk import fetch_manifest, plan, upload
    from transferkit.cancellation import Cancellation
    from transferkit.cluster.downloading import download
    from transferkit.cluster.report import ClusterReport
    from transferkit.cluster.running import run_plan
    from transferkit.content.descriptor import Blob, Descriptor
    from transferkit.content.digest import Digest, digest_to_path
    from transferkit.content.manifest import Index, Manifest
    from transferkit.errors import *
    from transferkit.names import Name, Reference
    from transferkit.options import HostOptions, RetryOptions, TransferOptions, TransportOptions
    from transferkit.protocol.challenge import AuthChallenge
    from transferkit.registry import Registry, Tensors, copy, open_tensors, pull, push, snapshot
    from transferkit.registry.plans import TransferPlan, plan_download
    from transferkit.report import Report
    from transferkit.report.folder import FolderReport
    from transferkit.report.plan import Plan, PushPlan
    from transferkit.storage.cache import DiskCache
    from transferkit.storage.layout import OCILayout
    from transferkit.storage.partials import PartialFile, discard, partials
    from transferkit.trace import Status, Trace, Traces
    from transferkit.trace.adapters import JSONTrace, LoggingTrace
    from transferkit.trace.recording import Recording
    from transferkit.transport.adapter import PooledAdapter

# The module of each public name; those that are not here are exceptions.
_HOMES = {
    "bulk": ("fetch_manifest", "plan", "upload"),
    "cancellation": ("Cancellation",),
    "cluster": ("ClusterReport", "run_plan"),
    "cluster.downloading": ("download",),
    "content.descriptor": ("Blob", "Descriptor"),
    "content.digest": ("Digest", "digest_to_path"),
    "content.manifest": ("Index", "Manifest"),
    "names": ("Name", "Reference"),
    "options": ("HostOptions", "RetryOptions", "TransferOptions", "TransportOptions"),
    "protocol.challenge": ("AuthChallenge",),
    "registry": ("Registry", "Tensors", "copy", "open_tensors", "pull", "push", "snapshot"),
    "registry.plans": ("TransferPlan", "plan_download"),
    "report": ("Report",),
    "report.folder": ("FolderReport",),
    "report.plan": ("Plan", "PushPlan"),
    "storage.cache": ("DiskCache",),
    "storage.layout": ("OCILayout",),
    "storage.partials": ("PartialFile", "discard", "partials"),
    "trace": ("Status", "Trace", "Traces"),
    "trace.adapters": ("JSONTrace", "LoggingTrace"),
    "trace.recording": ("Recording",),
    "transport.adapter": ("PooledAdapter",),
}

__all__ = [
    "AuthChallenge",
    "Blob",
    "BlobNotFoundError",
    "Cancellation",
    "CancelledError",
    "CertificateError",
    "ClusterReport",
    "ConnectError",
    "DeniedError",
    "Descriptor",
    "Digest",
    "DigestMismatchError",
    "DiskCache",
    "FolderReport",
    "HostOptions",
    "IncompleteError",
    "Index",
    "InvalidDescriptorError",
    "InvalidDigestError",
    "InvalidManifestError",
    "InvalidModelError",
    "InvalidNameError",
    "InvalidPlanError",
    "JSONTrace",
    "LoggingTrace",
    "Manifest",
    "ManifestNotFoundError",
    "Name",
    "NotFoundError",
    "OCILayout",
    "OutOfSpaceError",
    "PartialFile",
    "Plan",
    "PooledAdapter",
    "ProtocolError",
    "PushPlan",
    "RateLimitedError",
    "ReadError",
    "Recording",
    "Reference",
    "Registry",
    "RegistryError",
    "Report",
    "RetriesExhaustedError",
    "RetryOptions",
    "ServerError",
    "SizeMismatchError",
    "SlowError",
    "SourceError",
    "StalledError",
    "Status",
    "StorageError",
    "Tensors",
    "Trace",
    "Traces",
    "TransferKitError",
    "TransferOptions",
    "TransferPlan",
    "TransportError",
    "TransportOptions",
    "TransportTimeout",
    "UnauthorizedError",
    "VerificationError",
    "WriteError",
    "__version__",
    "copy",
    "digest_to_path",
    "discard",
    "download",
    "fetch_manifest",
    "open_tensors",
    "partials",
    "plan",
    "plan_download",
    "pull",
    "push",
    "run_plan",
    "snapshot",
    "upload",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'transferkit' has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "errors")
    with importing:
        value = getattr(importlib.import_module(f"transferkit.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
