"""oras (Python): its public client. It does not check what it downloads, so this does, as its user would have to."""

from __future__ import annotations

import hashlib

import oras.client  # type: ignore[import-untyped]  # has no annotations

from benchmarks.contestants.job import parse, run


def main() -> None:
    job = parse()
    client = oras.client.OrasClient(hostname=job.host, insecure=True)
    target = f"{job.host}/{job.repository}:v1"

    def download() -> None:
        container = client.get_container(target)
        for hexdigest, _ in job.blobs:
            path = client.download_blob(container, f"sha256:{hexdigest}", str(job.path(hexdigest)))
            with open(path, "rb") as file:
                sha256 = hashlib.sha256()
                while block := file.read(1 << 20):
                    sha256.update(block)
            if sha256.hexdigest() != hexdigest:
                raise ValueError(f"{hexdigest}: other bytes")

    def upload() -> None:
        files = [f"{job.path(hexdigest)}:application/octet-stream" for hexdigest, _ in job.blobs]
        client.push(target, files=files, disable_path_validation=True)

    run(upload if job.action == "upload" else download)


if __name__ == "__main__":
    main()
