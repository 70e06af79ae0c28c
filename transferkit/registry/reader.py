"""Reading many parts of many files at once: what is asked for, in which workers, and what is held to a digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from transferkit.errors import SourceError, VerificationError
from transferkit.registry.blob_files import BlobFile, BlobFiles
from transferkit.registry.job import Job
from transferkit.registry.parts import Part, Place
from transferkit.transfer.flow import WorkerFlow

Unit: TypeAlias = tuple[BlobFile, Part, bool]
F = TypeVar("F", bound=BlobFile)


class Reader:
    """Fills memory with parts of files. Thread-safe.

    ``about`` says what cannot be verified, where an error has to: a text with ``{}`` for the paths of the files.
    """

    def __init__(self, files: BlobFiles, about: str, *, require_verified: bool = False) -> None:
        self._files = files
        self._about = about
        self._require_verified = require_verified

    def read(self, job: Job, wanted: Mapping[F, Sequence[Place]], *, is_whole: bool = False) -> None:
        """Fill places with bytes of their files, which have been located; places of a file do not overlap.

        ``is_whole``: who calls holds all of each file to its digest, so no other proof is wanted.

        Raises:
            VerificationError: ``require_verified``, and nobody can verify a file.
            DigestMismatchError: what came is not what the list of the file's chunks says.
        """
        try:
            self._fetch(job, wanted, is_whole=is_whole)
        except SourceError:
            if self._files.source is None:
                raise
            # A file of the cache has gone, or was changed: the registry has it still.
            job.operation.each([file for file in wanted if file.is_local], self._files.locate)
            self._fetch(job, wanted, is_whole=is_whole)

    def _fetch(self, job: Job, wanted: Mapping[F, Sequence[Place]], *, is_whole: bool) -> None:
        units: list[Unit] = []
        unknown: list[str] = []
        checks: list[Callable[[], None]] = []
        for file, places in wanted.items():
            if (proof := file.proof()) is not None:
                place, check = proof
                checks.append(check)
                places = [place, *places]
            # Who has it in the cache reads it there: a part that is planned so is held to no chunk's digest.
            is_local = bool(file.is_local)
            parts = file.parts(places, job.options.chunk_size)
            # Another thread may find out meanwhile that a file is to come from elsewhere: what is planned here counts.
            if not is_local and (not file.chunks or any(part.digest is None for part in parts)):
                unknown.append(file.path)
            units += [(file, part, is_local) for part in parts]
        if not is_whole:
            self._check(unknown)
        if units:
            total = sum(part.end - part.start for _, part, _ in units)
            job.operation.each(units, self._work, total=total)
        for check in checks:
            check()

    def _work(self, unit: Unit, flow: WorkerFlow) -> None:
        file, part, is_local = unit
        self._files.fetch(file, part, flow, is_local=is_local)

    def _check(self, unknown: Sequence[str]) -> None:
        """Raise VerificationError where there are files that nobody can verify, and they have to be."""
        if unknown and self._require_verified:
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            what = self._about.format(f"{', '.join(unknown[:3])}{more}")
            raise VerificationError(
                f"nobody can verify {what}: the cache has not the file, and the registry no list of its chunks; pull "
                "the model first, or open it without require_verified"
            )
