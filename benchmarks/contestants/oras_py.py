"""oras (Python): its public client. It does not check what it downloads, so this does, as its user would have to."""

from __future__ import annotations

import hashlib

import oras.client  # type: ignore[import-untyped]  # has no annotations

from benchmarks.contestants.job import parse, run


def hash_of(path: str) -> str:
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def main() -> None:
    job = parse()
    client = oras.client.OrasClient(hostname=job.host, insecure=True)
    target = f"{job.host}/{job.repository}:v1"

    def download() -> None:
        container = client.get_container(target)
        for hexdigest, _ in job.blobs:
            path = client.download_blob(container, f"sha256:{hexdigest}", str(job.path(hexdigest)))
            if hash_of(path) != hexdigest:
                raise ValueError(f"{hexdigest}: other bytes")

    def upload() -> None:
        files = [f"{job.path(hexdigest)}:application/octet-stream" for hexdigest, _ in job.blobs]
        client.push(target, files=files, disable_path_validation=True)

    def push() -> None:
        client.push(
            target,
            files=[f"{path}:application/octet-stream" for path in sorted(job.folder.iterdir())],
            disable_path_validation=True,
        )

    def pull() -> None:
        for path in client.pull(target, outdir=str(job.folder)):
            hexdigest = path.rpartition("sha256-")[2].removesuffix(".safetensors")
            if hash_of(path) != hexdigest:
                raise ValueError(f"{path}: other bytes")

    work = {"upload": upload, "push-folder": push, "pull-folder": pull, "tensor": pull}
    action = job.action.removesuffix("-again")
    if action != job.action:
        work[action]()
    run(work.get(action, download))


if __name__ == "__main__":
    main()
