"""This library in a process that has imported none of it: what a first call costs."""

from __future__ import annotations

from benchmarks.contestants.job import parse, run


def main() -> None:
    job = parse()
    pairs = job.blobs

    def work() -> None:
        import transferkit as tk

        blobs = [tk.Blob(f"sha256:{hexdigest}", size) for hexdigest, size in pairs]
        tk.download(blobs, job.folder, base_url=job.url, repository=job.repository)

    run(work)


if __name__ == "__main__":
    main()
