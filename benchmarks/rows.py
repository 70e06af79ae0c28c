"""The rows of the benchmark: which data, against which server, in which direction, by whom."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.data import WORKLOADS, Workload
from benchmarks.results import CLUSTER, DEMO, EARLIER, FIRST_CALL, OURS, OWN_SESSION, PROCESSES, SERVE

# Files that a server hands out. 64 threads where each request waits for 20 ms, 16 where none does; there the floor has
# two, which is what does it most good.
_FILES = (OURS, EARLIER, "requests, threads", "aria2c", "pooch", "bare sockets", "SHA-256 alone")
_PLAIN = ("requests, sequential", "requests, threads")
_PULL = (OURS, EARLIER, *_PLAIN, "aria2c", "oras", "python-dxf", "skopeo", "bare sockets", "SHA-256 alone")
_PUSH = (OURS, EARLIER, *_PLAIN, "oras", "python-dxf", "skopeo", "bare sockets", "SHA-256 alone")
# Of 1 GiB each: who sends one blob after the other, or takes a minute, is left to the smaller ones.
_PULL_LARGE = (OURS, EARLIER, "requests, threads", "aria2c", "skopeo", "bare sockets", "SHA-256 alone")
_PUSH_LARGE = (OURS, EARLIER, "requests, threads", "python-dxf", "bare sockets", "SHA-256 alone")
_DISK = (OURS, EARLIER, "transferkit, durable", "requests, threads", "aria2c", "bare sockets")
# Who has one connection waits for the time limit where that is the slow one: one of them is enough to show it.
_HEAL = (OURS, EARLIER, "requests, threads", "aria2c")
_SILENT = (OURS, EARLIER, "aria2c")
_LIMITED = (OURS, EARLIER, "aria2c, retrying")
_COPY = (OURS, "skopeo")
_PULL_BY_NAME = (OURS, "oras", "skopeo")
_VERIFY = (OURS, "sha256sum", "SHA-256 alone")
_FOLDER = (OURS, "oras")
# One process beside several, which share the two cores with the server.
_SEVERAL = (OURS, PROCESSES, CLUSTER)
# Of servers, to one client.
_SERVERS_DOWN = (SERVE, "docker-registry", "nginx")
_SERVERS_UP = (SERVE, "docker-registry")
_WHERE = {
    "cdn": "loopback with 20 ms and 40 MB/s a connection",
    "pinned": "loopback with 20 ms and 40 MB/s a connection, 50 KB/s on the first",
    "silent": "loopback with 20 ms and 40 MB/s a connection, one of which falls silent in the last chunk",
    "limited-1": "one connection at once, of 1 MB/s",
    "limited-2": "two connections at once, of 1 MB/s",
    "registry": "docker-registry",
    "none": "files in memory",
    "servers": "one client of each server",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSpec:
    name: str
    workload: Workload
    server: str
    """``loopback``, ``cdn``, ``pinned``, ``silent``, ``tls``, ``limited-1``, ``limited-2``, ``registry`` or ``none``;
    ``servers``: they are the contestants."""
    contestants: tuple[str, ...] = _FILES
    action: str = "download"
    threads: int = 16
    """For the contestants that have to be told."""
    floor: int = 2
    """The same for bare sockets."""
    on_disk: bool = False

    def title(self, scale: float) -> str:
        kind = "file" if "folder" in self.action or self.action == "tensor" else "blob"
        groups = [f"{n:,} {kind}{'s' * (n != 1)} of {human(size)}" for n, size in self.workload.scaled(scale)]
        blobs = " and ".join(groups) or "a real model"
        where = ", on a disk" if self.server == "servers" else ", to a disk"
        where = where if self.on_disk else ""
        return f"{blobs}, {self.action}, {_WHERE.get(self.server, self.server)}{where}"


def human(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:g} {unit}"
        size = size // 1024 if size % 1024 == 0 else round(size / 1024)
    return f"{size:g} GiB"


def _rows() -> list[RowSpec]:
    rows = []
    for name in ("small", "medium", "large"):
        for server, threads in (("loopback", 16), ("cdn", 64), ("tls", 16)):
            workload = WORKLOADS[name]
            session = (OWN_SESSION,) if name == "small" and server != "cdn" else ()
            rows.append(
                RowSpec(
                    name=f"{name}-{server}",
                    workload=workload,
                    server=server,
                    contestants=(*_FILES[:2], *session, *_FILES[2:]),
                    threads=threads,
                    floor=64 if server == "cdn" else 2,
                )
            )
    rows.append(RowSpec(name="real-loopback", workload=WORKLOADS["real"], server="loopback"))
    rows.append(RowSpec(name="real-cdn", workload=WORKLOADS["real"], server="cdn", threads=64, floor=64))
    for name in ("small", "medium", "large"):
        pull, push = (_PULL_LARGE, _PUSH_LARGE) if name == "large" else (_PULL, _PUSH)
        for action, contestants in (("download", pull), ("upload", push)):
            rows.append(
                RowSpec(
                    name=f"registry-{name}-{action}",
                    workload=WORKLOADS[name],
                    server="registry",
                    action=action,
                    contestants=contestants,
                    floor=16,
                )
            )
    for name in ("small", "medium", "large"):
        workload = WORKLOADS[name]
        rows.append(
            RowSpec(name=f"copy-{name}", workload=workload, server="registry", action="copy", contestants=_COPY)
        )
    real, large = WORKLOADS["real"], WORKLOADS["large"]
    rows.append(RowSpec(name="pull-real", workload=real, server="registry", action="pull", contestants=_PULL_BY_NAME))
    rows.append(RowSpec(name="verify-large", workload=large, server="none", action="verify", contestants=_VERIFY))
    for name, workload in (("small", WORKLOADS["files"]), ("large", large)):
        for action in ("push", "push-again", "pull", "pull-again"):
            verb, *again = action.split("-")
            rows.append(
                RowSpec(
                    name=f"folder-{name}-{action}",
                    workload=workload,
                    server="registry",
                    action="-".join((verb, "folder", *again)),
                    contestants=_FOLDER,
                )
            )
    tensors = WORKLOADS["tensors"]
    rows.append(RowSpec(name="tensor", workload=tensors, server="registry", action="tensor", contestants=_FOLDER))
    for name in ("small", "large"):
        workload = WORKLOADS[name]
        rows.append(RowSpec(name=f"disk-{name}", workload=workload, server="loopback", contestants=_DISK, on_disk=True))
    for name in ("small", "large"):
        bar = (OURS, "transferkit, bar")
        rows.append(RowSpec(name=f"bar-{name}", workload=WORKLOADS[name], server="loopback", contestants=bar))
    for name, server, who in (("none", "cdn", _HEAL), ("one", "pinned", _HEAL), ("silent", "silent", _SILENT)):
        workload = WORKLOADS["heal"]
        rows.append(RowSpec(name=f"heal-{name}", workload=workload, server=server, contestants=who, threads=64))
    for name in ("limited-1", "limited-2"):
        rows.append(RowSpec(name=name, workload=WORKLOADS["limited"], server=name, contestants=_LIMITED))
    for name in ("small", "large"):
        for action, on_disk in (("download", False), ("upload", False), ("upload", True)):
            rows.append(
                RowSpec(
                    name=f"server-{name}-{action}{'-disk' * on_disk}",
                    workload=WORKLOADS[name],
                    server="servers",
                    action=action,
                    contestants=_SERVERS_DOWN if action == "download" else _SERVERS_UP,
                    on_disk=on_disk,
                )
            )
    rows.append(
        RowSpec(
            name="demo-push",
            workload=WORKLOADS["demo"],
            server="servers",
            action="push-folder",
            contestants=(DEMO, "to docker-registry"),
        )
    )
    start = (FIRST_CALL, "import requests")
    rows.append(RowSpec(name="start", workload=WORKLOADS["tiny-1"], server="loopback", contestants=start))
    for name in ("1k", "10k", "100k"):
        only = (OURS, EARLIER, "bare sockets")
        workload = WORKLOADS[f"tiny-{name}"]
        rows.append(RowSpec(name=f"growth-{name}", workload=workload, server="loopback", contestants=only))
    for name in ("10k", "100k"):
        rows.append(
            RowSpec(
                name=f"present-{name}",
                workload=WORKLOADS[f"tiny-{name}"],
                server="loopback",
                action="download-again",
                contestants=(OURS, EARLIER),
            )
        )
    several = (("tiny", "tiny-100k", "loopback"), ("small", "small", "cdn"), ("large", "large", "loopback"))
    for name, workload, server in several:
        rows.append(RowSpec(name=f"several-{name}", workload=WORKLOADS[workload], server=server, contestants=_SEVERAL))
    return rows


ROWS = {row.name: row for row in _rows()}


def select(wanted: str) -> list[RowSpec]:
    """Return the rows that a list names, in their own order; ``small`` stands for all that begin with ``small-``.

    Raises:
        ValueError: a name that is no row.

    >>> [row.name for row in select("large-cdn,registry-small")]
    ['large-cdn', 'registry-small-download', 'registry-small-upload']
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if not names or names == ["all"]:
        return list(ROWS.values())
    chosen = set()
    for name in names:
        found = {row for row in ROWS if row == name or row.startswith(f"{name}-")}
        if not found:
            raise ValueError(f"there is no row {name!r}; there are {', '.join(ROWS)}")
        chosen |= found
    return [row for row in ROWS.values() if row.name in chosen]
