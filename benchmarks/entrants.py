"""Who takes part: a name, what it needs, and the command that does a job.

Contestants written in Python are modules of ``contestants``, with the arguments of ``job``; programs get their own
command lines here, and what these need is written before the time runs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants.job import Job
from benchmarks.results import CLUSTER, DEMO, EARLIER, FIRST_CALL, OURS, OWN_SESSION, PROCESSES, SERVE

Command = Callable[[Job, Path], list[str]]
"""Return the command line for a job; the folder is for files it needs."""

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/octet-stream"
VERSION_0_1_0 = "23ff17db2da800133f1e52fbd3de975f4319f411"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    name: str
    kind: str
    """``ours``, ``several`` (this library in several processes), ``earlier``, ``other`` or ``floor``."""
    command: Command
    package: str = ""
    """The distribution it needs, and whose version is told."""
    program: str = ""
    outputs: bool = True
    """Whether it leaves files behind."""
    server: str = ""
    """The server that it is, where a row compares servers: ``serve`` (and options), ``registry`` or ``loopback``,
    which is nginx."""
    commit: str = ""
    """The commit of this repository whose package it runs with, in place of the present one."""

    def missing(self) -> str:
        """Return why it cannot take part; an empty text if it can."""
        if self.program and shutil.which(self.program) is None:
            return "not installed"
        if self.package:
            try:
                importlib.metadata.version(self.package)
            except importlib.metadata.PackageNotFoundError:
                return "not installed"
        return ""

    def version(self) -> str:
        if self.package:
            return importlib.metadata.version(self.package)
        if self.program:
            done = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=False)
            words = done.stdout.split("\n", 1)[0].split()
            return next((word for word in words if word[0].isdigit()), "?")
        return ""


def script(module: str) -> Command:
    return lambda job, _scratch: [sys.executable, "-m", f"benchmarks.contestants.{module}", *job.arguments()]


def aria2c(job: Job, scratch: Path, options: tuple[str, ...] = ("-j64",)) -> list[str]:
    listing = scratch / "aria2.txt"
    with listing.open("w") as out:
        for hexdigest, _ in job.blobs:
            out.write(f"{job.blob_url(hexdigest)}\n out=sha256-{hexdigest}\n checksum=sha-256={hexdigest}\n")
    command = ["aria2c", "--no-conf", "-q", *options, "-x16", "-s16", "-k1M", "--file-allocation=none"]
    command += ["-i", str(listing), "-d", str(job.folder)]
    return [*command, f"--ca-certificate={job.ca}"] if job.ca else command


def aria2c_retrying(job: Job, scratch: Path) -> list[str]:
    """aria2c as its users tell it to go on where a server answers with a 503 to one connection too many."""
    return aria2c(job, scratch, ("--retry-wait=1", "--max-tries=0"))


def skopeo(job: Job, scratch: Path) -> list[str]:
    """skopeo copies images: the blobs are the layers of one, which the registry has under the tag ``v1``."""
    remote = f"docker://{job.host}/{job.repository}:v1"
    command = ["skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests"]
    if job.action == "copy":
        target = f"docker://{job.target.partition('://')[2]}/{job.repository}:v1"
        return [*command, "--src-tls-verify=false", "--dest-tls-verify=false", remote, target]
    if job.action in ("download", "pull"):
        return [*command, "--src-tls-verify=false", remote, f"dir:{job.folder}"]
    image = scratch / "image"
    if not image.exists():
        image.mkdir()
        manifest, config = image_of(job)
        (image / "version").write_text("Directory Transport Version: 1.1\n")
        (image / "manifest.json").write_bytes(manifest)
        (image / json.loads(manifest)["config"]["digest"][7:]).write_bytes(config)
        for hexdigest, _ in job.blobs:
            (image / hexdigest).symlink_to(job.path(hexdigest))
    return [*command, "--dest-tls-verify=false", f"dir:{image}", remote]


def sha256sum(job: Job, scratch: Path) -> list[str]:
    """sha256sum, as many at once as there are cores."""
    names = "".join(f"{job.source}/sha256-{hexdigest}\n" for hexdigest, _ in job.blobs)
    listing = scratch / "files.txt"
    listing.write_text(names)
    return ["xargs", "-a", str(listing), "-P", str(os.cpu_count() or 1), "-n", "1", "sha256sum"]


def image_of(job: Job) -> tuple[bytes, bytes]:
    """Return the manifest of an image whose layers are the blobs, and its config."""
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest, "size": len(config)},
        "layers": [
            {"mediaType": LAYER_TYPE, "digest": f"sha256:{hexdigest}", "size": size} for hexdigest, size in job.blobs
        ],
    }
    return json.dumps(manifest).encode(), config


ALL = {
    contestant.name: contestant
    for contestant in (
        Contestant(name=OURS, kind="ours", command=script("ours"), package="transferkit"),
        Contestant(name="transferkit, bar", kind="ours", command=script("ours_bar"), package="tqdm"),
        Contestant(name="transferkit, durable", kind="ours", command=script("ours_durable")),
        Contestant(name=OWN_SESSION, kind="ours", command=script("ours_session")),
        Contestant(name=FIRST_CALL, kind="ours", command=script("ours_first")),
        Contestant(name=PROCESSES, kind="several", command=script("ours_processes")),
        Contestant(name=CLUSTER, kind="several", command=script("ours_dask"), package="distributed"),
        Contestant(name=EARLIER, kind="earlier", command=script("ours_earlier"), commit=VERSION_0_1_0),
        Contestant(name="requests, threads", kind="other", command=script("plain_threads"), package="requests"),
        Contestant(name="requests, sequential", kind="other", command=script("plain_sequential"), package="requests"),
        Contestant(name="aria2c", kind="other", command=aria2c, program="aria2c"),
        Contestant(name="aria2c, retrying", kind="other", command=aria2c_retrying, program="aria2c"),
        Contestant(name="pooch", kind="other", command=script("pooch_client"), package="pooch"),
        Contestant(name="oras", kind="other", command=script("oras_py"), package="oras"),
        Contestant(name="python-dxf", kind="other", command=script("dxf_client"), package="python-dxf"),
        Contestant(name="skopeo", kind="other", command=skopeo, program="skopeo"),
        Contestant(name="sha256sum", kind="other", command=sha256sum, program="sha256sum", outputs=False),
        Contestant(name=SERVE, kind="ours", command=script("server_client"), outputs=False, server="serve"),
        Contestant(name="nginx", kind="other", command=script("server_client"), outputs=False, server="loopback"),
        Contestant(
            name="docker-registry", kind="other", command=script("server_client"), outputs=False, server="registry"
        ),
        Contestant(name=DEMO, kind="ours", command=script("ours"), outputs=False, server="serve --no-sync"),
        Contestant(name="to docker-registry", kind="other", command=script("ours"), outputs=False, server="registry"),
        Contestant(name="bare sockets", kind="floor", command=script("floor_sockets")),
        Contestant(name="import requests", kind="floor", command=script("floor_import"), outputs=False),
        Contestant(name="SHA-256 alone", kind="floor", command=script("floor_hash"), outputs=False),
    )
}
