"""What one blob takes with ``requests``, as a user would write it: blocks of 64 KiB down, the whole content up."""

from __future__ import annotations

import hashlib
from urllib.parse import urljoin

import requests

from benchmarks.contestants.job import Job


def move(session: requests.Session, job: Job, hexdigest: str) -> None:
    """Download or upload a blob, as the job says."""
    (_fetch if job.action == "download" else _send)(session, job, hexdigest)


def _fetch(session: requests.Session, job: Job, hexdigest: str) -> None:
    sha256 = hashlib.sha256()
    with session.get(job.blob_url(hexdigest), stream=True, timeout=60) as response:
        response.raise_for_status()
        with open(job.path(hexdigest), "wb") as out:
            for block in response.iter_content(65536):
                sha256.update(block)
                out.write(block)
    if sha256.hexdigest() != hexdigest:
        raise ValueError(f"{hexdigest}: other bytes")


def _send(session: requests.Session, job: Job, hexdigest: str) -> None:
    content = job.path(hexdigest).read_bytes()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    begun = session.post(f"{job.url}/v2/{job.repository}/blobs/uploads/", timeout=60)
    begun.raise_for_status()
    location = urljoin(job.url, begun.headers["Location"])
    session.put(location, params={"digest": digest}, data=content, timeout=60).raise_for_status()
