"""Run rows: data, server, contestants in turn, every file checked after each. Knows no layout of tables."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import transferkit as tk
from benchmarks import data, measure, releases, servers
from benchmarks.contestants.job import Job
from benchmarks.data import Dataset
from benchmarks.entrants import ALL, Contestant, image_of
from benchmarks.results import OK, WRONG, Entry, Row, Run
from benchmarks.rows import RowSpec
from benchmarks.servers import Server, ServerError, Traffic


@dataclass(kw_only=True)
class Runner:
    work: Path
    """A folder in memory, for data, servers and destinations."""
    disk: Path
    scale: float = 1.0
    runs: int = 3
    timeout: float = 120.0
    only: frozenset[str] = frozenset()
    """Contestants; none stands for all."""
    _serial: int = field(default=0, init=False)
    _homes: dict[str, Path] = field(default_factory=dict, init=False)
    """Where the packages of earlier versions are, by their commits."""

    def row(self, spec: RowSpec) -> Row:
        """Run one row. What is missing here is named in ``left_out``, never an error."""
        try:
            dataset = data.prepare(spec.workload, self.work / "blobs", scale=self.scale)
        except data.MissingDataError as error:
            return Row(name=spec.name, title=spec.title(self.scale), blobs=0, size=0, left_out={"": str(error)})
        row = Row(name=spec.name, title=spec.title(self.scale), blobs=len(dataset.blobs), size=dataset.size)
        contestants = []
        for name in spec.contestants:
            if self.only and name not in self.only:
                continue
            reason = ALL[name].missing() or self._missing_release(ALL[name])
            if reason:
                row.left_out[name] = reason
            else:
                contestants.append(ALL[name])
        try:
            with _Place(self, spec, dataset) as place:
                row.entries.extend(self._entries(contestants, place))
        except ServerError as error:
            row.left_out[""] = str(error)
        return row

    def _entries(self, contestants: list[Contestant], place: _Place) -> list[Entry]:
        runs: dict[str, list[Run]] = {contestant.name: [] for contestant in contestants}
        traffic: dict[str, Traffic | None] = {}
        for number in range(self.runs):
            # Interleaved, each time in another order: what the machine does meanwhile hits all alike.
            shift = number % len(contestants) if contestants else 0
            for contestant in contestants[shift:] + contestants[:shift]:
                done = runs[contestant.name]
                if any(run.status != OK for run in done):
                    continue  # it would take as long to fail again
                run, seen = place.run(contestant)
                done.append(run)
                traffic[contestant.name] = seen
                shown = f"{run.wall:.2f} s" if run.status == OK else f"{run.status}: {run.note}"
                self.say(f"{place.spec.name} {number + 1}/{self.runs} {contestant.name}: {shown}")
        for contestant in contestants:
            worked = all(run.status == OK for run in runs[contestant.name])
            if place.counts_apart and contestant.kind in ("ours", "other") and worked:
                traffic[contestant.name] = place.count(contestant)
        entries = []
        for contestant in contestants:
            seen = traffic.get(contestant.name) if contestant.outputs else None
            entries.append(
                Entry(
                    contestant=contestant.name,
                    kind=contestant.kind,
                    runs=runs[contestant.name],
                    requests=seen.requests if seen else None,
                    connections=seen.connections if seen else None,
                    wire=seen.size if seen else None,
                )
            )
        return entries

    def home(self, contestant: Contestant) -> Path:
        """Return the folder in which a contestant finds the version of this library that it is.

        Raises:
            MissingReleaseError: that version cannot be had here.
        """
        if not contestant.commit:
            return measure.ROOT
        if contestant.commit not in self._homes:
            folder = self.folder("version")
            releases.unpack(contestant.commit, folder)
            self._homes[contestant.commit] = folder
        return self._homes[contestant.commit]

    def _missing_release(self, contestant: Contestant) -> str:
        try:
            self.home(contestant)
        except releases.MissingReleaseError as error:
            return str(error)
        return ""

    def folder(self, name: str, *, on_disk: bool = False) -> Path:
        """Return a new folder that nobody has used."""
        self._serial += 1
        folder = (self.disk if on_disk else self.work) / f"{name}-{self._serial}"
        folder.mkdir(parents=True)
        return folder

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class _Place:
    """One row's server and data: where a contestant runs and where its result is checked."""

    def __init__(self, runner: Runner, spec: RowSpec, dataset: Dataset) -> None:
        self.runner, self.spec, self.dataset = runner, spec, dataset
        self.counts_apart = spec.server == "registry" and spec.action != "copy"
        # Else the second contestant would find every blob there, or the slow connection gone.
        self._sends = spec.action == "upload" or spec.action.startswith("push-")
        self._anew = spec.server in ("pinned", "silent", "servers") or self._sends
        self._stack = ExitStack()
        self._server: Server | None = None

    def __enter__(self) -> _Place:
        if self._anew:
            return self
        try:
            self._server = self._stack.enter_context(self._started())
            if self.spec.server == "registry":
                try:
                    self._fill(self._server)
                except tk.TransferKitError as error:
                    raise ServerError(f"the registry could not be filled: {error}") from error
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, contestant: Contestant) -> tuple[Run, Traffic | None]:
        with self._target(contestant) as server:
            run = self._run(contestant, server, server)
            return run, server.counter.count() if server.counter and contestant.outputs else None

    def count(self, contestant: Contestant) -> Traffic | None:
        """Run once more, through a proxy that counts; its times are of no use."""
        with self._target(contestant) as server:
            folder = self.runner.folder("proxy")
            try:
                with servers.counting_proxy(server.url, folder) as proxy:
                    run = self._run(contestant, proxy, server)
                    return proxy.counter.count() if proxy.counter and run.status == OK else None
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _target(self, contestant: Contestant) -> Iterator[Server]:
        if self._server is not None:
            yield self._server
            return
        with self._started(contestant.server) as server:
            if contestant.server and server.storage is not None and not self._sends:
                self._fill(server)
            yield server

    @contextmanager
    def _started(self, kind: str = "") -> Iterator[Server]:
        """Start a server that has seen nothing: the row's, where no ``kind`` is given."""
        kind = kind or self.spec.server
        folder = self.runner.folder("server", on_disk=self.spec.server == "servers" and self.spec.on_disk)
        try:
            if kind == "none":
                yield Server("")
            elif kind == "registry":
                with servers.registry(folder) as server:
                    yield server
            elif kind.startswith("serve"):
                with servers.serve(folder, *kind.split()[1:]) as server:
                    yield server
            else:
                with servers.file_server(kind, self.runner.work / "blobs", folder) as server:
                    yield server
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, contestant: Contestant, server: Server, checked: Server) -> Run:
        scratch = self.runner.folder("scratch")
        uploads = self._sends
        folder = self.dataset.folder if uploads else self.runner.folder("to", on_disk=self.spec.on_disk)
        target = ExitStack()
        try:
            job = self._job(server.url, server.ca, folder, floor=contestant.kind == "floor")
            if self.spec.action == "copy":
                checked = target.enter_context(self._started())
                job = replace(job, target=checked.url)
            command = contestant.command(job, scratch)
            home = self.runner.home(contestant)
            env = measure.environment(ca=server.ca, scratch=scratch, home=home)
            if self.spec.on_disk:
                os.sync()  # what others have left unwritten is not this one's to wait for
            if self.spec.action == "download-again":
                for blob in self.dataset.blobs:
                    os.link(self.dataset.folder / f"sha256-{blob.hexdigest}", job.path(blob.hexdigest))
                measure.run(command, env=env, timeout=self.runner.timeout, home=home)
            run = measure.run(command, env=env, timeout=self.runner.timeout, home=home)
            if run.status != OK:
                return run
            problems = self._problems(checked, folder) if contestant.outputs else []
            if problems:
                note = f"{len(problems)} blobs are wrong, first {problems[0]}"
                return replace(run, status=WRONG, note=note)
            return run
        finally:
            target.close()
            shutil.rmtree(scratch, ignore_errors=True)
            if not uploads:
                shutil.rmtree(folder, ignore_errors=True)

    def _job(self, url: str, ca: Path | None, folder: Path, *, floor: bool = False) -> Job:
        return Job(
            action=self.spec.action,
            list_file=self.dataset.list_file,
            url=url,
            repository=f"bench/{self.dataset.folder.name}",
            folder=folder,
            source=self.dataset.folder,
            threads=self.spec.floor if floor else self.spec.threads,
            ca=ca,
        )

    def _problems(self, server: Server, folder: Path) -> list[str]:
        if self.spec.action == "tensor":
            return []
        if not self._sends and self.spec.action != "copy":
            places = (folder, folder / "blobs")
            return data.problems(
                self.dataset, lambda h: _first(*(place / name for place in places for name in (f"sha256-{h}", h)))
            )
        assert server.storage is not None
        storage = server.storage / "blobs/sha256"
        layers = server.storage / f"repositories/bench/{self.dataset.folder.name}/_layers/sha256"
        problems = data.problems(self.dataset, lambda h: storage / h[:2] / h / "data")
        unlinked = [blob.hexdigest for blob in self.dataset.blobs if not (layers / blob.hexdigest / "link").is_file()]
        return problems + [f"{hexdigest[:12]}: not in the repository" for hexdigest in unlinked]

    def _fill(self, server: Server) -> None:
        """Give the registry every blob, and the image that skopeo copies; or an artifact with the files."""
        job = self._job(server.url, None, self.dataset.folder)
        if "folder" in self.spec.action or self.spec.action == "tensor":
            scratch = self.runner.folder("cache")
            with tk.Registry(cache=scratch) as registry:
                registry.push(f"{server.url}/{job.repository}:v1", folder=self.dataset.folder)
            shutil.rmtree(scratch)
            return
        manifest, config = image_of(job)
        extra = self.runner.folder("config")
        digest = hashlib.sha256(config).hexdigest()
        (extra / f"sha256-{digest}").write_bytes(config)
        blobs = [tk.Blob(f"sha256:{hexdigest}", size) for hexdigest, size in job.blobs]
        tk.upload(blobs, self.dataset.folder, base_url=server.url, repository=job.repository)
        tk.upload(
            [tk.Blob(f"sha256:{digest}", len(config))],
            extra,
            base_url=server.url,
            repository=job.repository,
            manifest=manifest,
            manifest_ref="v1",
        )
        shutil.rmtree(extra)


def _first(*paths: Path) -> Path:
    return next((path for path in paths if path.exists()), paths[0])
