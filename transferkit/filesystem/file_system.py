"""The file system: artifacts of registries as folders that can be read."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike, tokenize

from transferkit.filesystem.artifacts import Artifact, Artifacts, client, shared
from transferkit.filesystem.entries import complaint, entry, folder, missing
from transferkit.filesystem.failures import as_file_errors, read_only
from transferkit.filesystem.file import OCIFile
from transferkit.filesystem.paths import Path
from transferkit.options import HostOptions, TransferOptions
from transferkit.registry.open_files import FileInfo

EXPIRY = (
    30.0  # seconds: who reads a hundred files of a model asks for its tag once, and who moves a tag waits no longer
)
_SECRETS = ("auth", "token", "get_token", "hosts")
# What fsspec itself, and programs that know no file system but it, pass to any.
_FSSPEC = ("use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "asynchronous", "loop")


class OCIFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files of artifacts (ModelPack, ORAS, Docker, KitOps, Ollama) in registries: read-only, by ranges.

    Paths are ``oci://host/namespace/name:tag/path/in/artifact``, or with ``@sha256:...`` in place of the tag or behind
    it. Thread-safe, usable after a fork, and it pickles, with its settings; keep what it pickles to as secret as those.

    ``auth``, ``token``, ``get_token``, ``options`` and ``offline`` are those of :class:`~transferkit.Registry`; without
    the first three, Docker's and podman's credentials are used. ``hosts`` has, by host, a mapping of what
    :class:`~transferkit.HostOptions` take: ``{"registry.local:5000": {"scheme": "http"}}``. ``cache`` is the path of
    a cache, by default the usual one: files that are there are read there, and nothing is written to it. ``platform``
    chooses from an index. ``require_verified`` refuses parts that nobody can verify. A tag is believed to stay where
    it is for ``listings_expiry_time`` seconds (30; ``None``: for ever). ``block_size`` (5 MiB) and ``cache_type``
    (``readahead``) are what ``open`` goes by that is told nothing else.

    Raises:
        TypeError: there is no such option, or one is of the wrong type.
        FileNotFoundError, PermissionError: as for any file; the cause is the error of the registry.
        TransferKitError: whatever else goes wrong.
    """

    protocol = ("oci", "transferkit")  # the second one is for where another program has registered the first
    root_marker = ""

    def __init__(
        self,
        *,
        auth: Any = None,
        token: str | None = None,
        get_token: Any = None,
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        cache: str | os.PathLike[str] | None = None,
        platform: str | None = None,
        require_verified: bool = False,
        offline: bool | None = None,
        options: TransferOptions | None = None,
        listings_expiry_time: float | None = EXPIRY,
        block_size: int | None = None,
        cache_type: str = "readahead",
        **more: Any,
    ) -> None:
        if unknown := more.keys() - set(_FSSPEC):
            raise TypeError(f"oci:// has no option {', '.join(sorted(unknown))}")
        super().__init__(**more)
        self._expiry = listings_expiry_time if more.get("use_listings_cache", True) else 0.0
        self._block_size, self._cache_type = block_size, cache_type
        settings = {
            "auth": tuple(auth) if isinstance(auth, list) else auth,  # from JSON
            "token": token,
            "get_token": get_token,
            "hosts": _hosts(hosts),
            "cache": cache,
            "offline": offline,
            "options": options,
        }

        def make() -> Artifacts:
            return Artifacts(client(settings), platform=platform, require_verified=require_verified)

        # What is shared is told apart by all that was given: a file system with another token is another one.
        given = {**settings, "hosts": hosts, "platform": platform, "require_verified": require_verified}
        self._artifacts = shared(tokenize(**given), make)

    # -- what there is

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = os.fspath(path)
        return next((text[len(p) + 3 :] for p in cls.protocol if text.startswith(f"{p}://")), text).strip("/")

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **keywords: Any) -> list[Any]:
        """List a folder of an artifact, or, of a path without a tag, the tags of that repository as folders.

        ``refresh`` asks for the tag again. Files have ``digest``, ``media_type`` and ``packing`` besides.
        """
        path = self._strip_protocol(path)
        with as_file_errors(path):
            found = self._ls(path, Path.parse(path), refresh=refresh)
        return found if detail else [each["name"] for each in found]

    def _ls(self, path: str, parsed: Path, *, refresh: bool) -> list[dict[str, Any]]:
        if not parsed.has_version:
            return [folder(f"{parsed.name}:{tag}") for tag in self._tags(parsed)]
        artifact = self._artifacts.open(parsed.name, self._expiry, refresh=refresh)
        names = artifact.folders.get(parsed.inside)
        if names is None:
            return [entry(parsed, artifact, parsed.inside)]
        prefix = f"{parsed.inside}/" if parsed.inside else ""
        return [entry(parsed, artifact, prefix + name) for name in sorted(names)]

    def info(self, path: str, **keywords: Any) -> dict[str, Any]:
        """Tell name, size and type of a path; of a file also ``digest``, ``media_type`` and ``packing``."""
        path = self._strip_protocol(path)
        parsed = Path.parse(path)
        with as_file_errors(path):
            if not parsed.has_version:
                self._tags(parsed)
                return folder(parsed.name)
            return entry(parsed, self._artifacts.open(parsed.name, self._expiry), parsed.inside)

    def exists(self, path: str, **keywords: Any) -> bool:
        """Tell whether there is such a file or folder. An error that does not tell is raised."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def walk(self, path: str, *args: Any, **keywords: Any) -> Any:
        """Yield folder, folders and files, from the top; ``find`` and ``glob`` go by it.

        What is not there has nothing in it; who is refused is told so, and not that there is nothing.
        """
        self.exists(path)
        return super().walk(path, *args, **keywords)

    def _tags(self, parsed: Path) -> list[str]:
        if "/" not in parsed.name:
            raise missing(parsed.name, "a path has a host and a name: oci://host/namespace/name:tag/path")
        return self._artifacts.registry.tags(parsed.name)

    def ukey(self, path: str) -> str:
        """Return what changes when the content of a file does: its digest."""
        return str(self._file(path)[2].digest)

    def checksum(self, path: str) -> int:
        """Return the digest of a file as a number."""
        return int(self._file(path)[2].digest.hex, 16)

    def is_verified(self, path: str) -> bool:
        """Tell whether parts of a file are held to a digest when they are read; whole files always are."""
        artifact, inside, _ = self._file(path)
        with as_file_errors(path):
            return artifact.files.is_verified(inside)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget what tags stand for: all, or that of a path."""
        self._artifacts.forget(None if path is None else Path.parse(self._strip_protocol(path)).name)
        super().invalidate_cache(path)

    # -- reading

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **keywords: Any) -> OCIFile:
        if mode != "rb":
            raise read_only(path)
        artifact, inside, _ = self._file(path)
        for name in ("autocommit", "size"):  # of a file that is written, and of one that is known, as from a pickle
            keywords.pop(name, None)
        given = {"cache_type": self._cache_type, **keywords, "block_size": block_size or self._block_size}
        return OCIFile(self, self._strip_protocol(path), artifact.files, inside, **given)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **keywords: Any) -> bytes:
        """Read a file, which is verified, or a part of it, with bounds as those of a slice."""
        artifact, inside, _ = self._file(path)
        with as_file_errors(path):
            return artifact.files.read_many([(inside, start, end)])[0]

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **keywords: Any,
    ) -> list[Any]:
        """Read parts of files, all at once; those that lie near each other come in one request."""
        if not isinstance(paths, list):
            raise TypeError("paths is a list")
        starts = starts if isinstance(starts, Sequence) else [starts] * len(paths)
        ends = ends if isinstance(ends, Sequence) else [ends] * len(paths)
        if not len(starts) == len(ends) == len(paths):
            raise ValueError("there is a start and an end for each path")
        try:
            return self._read_all(list(zip(paths, starts, ends, strict=True)))
        except Exception:
            if on_error != "return":
                raise
        # One of them fails: each by itself, so that the others come.
        return [self._try(*each) for each in zip(paths, starts, ends, strict=True)]

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **keywords: Any) -> Any:
        """Read whole files, all at once, each held to its digest."""
        paths = self.expand_path(path, recursive=recursive)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0])
        # A folder has no content, and is no error where it was not asked for by name.
        paths = [each for each in paths if not (recursive and self.isdir(each))]
        read = self.cat_ranges(paths, None, None, on_error="raise" if on_error == "raise" else "return")
        together = dict(zip(paths, read, strict=True))
        if on_error == "omit":
            return {path: data for path, data in together.items() if not isinstance(data, Exception)}
        return together

    def get_file(
        self, rpath: str, lpath: Any = None, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **keywords: Any
    ) -> None:
        """Bring a file to a path on disk: verified, in chunks side by side, and in one step; its folder is made."""
        if outfile is not None or isfilelike(lpath):
            super().get_file(rpath, lpath, callback=callback, outfile=outfile)
            return
        if self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        artifact, inside, info = self._file(rpath)
        os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
        callback.set_size(info.size)
        with as_file_errors(rpath):
            artifact.files.save(inside, lpath, progress=lambda completed, total: callback.absolute_update(completed))

    def _file(self, path: str) -> tuple[Artifact, str, FileInfo]:
        """Return where a file is. FileNotFoundError, IsADirectoryError: it is none."""
        path = self._strip_protocol(path)
        parsed = Path.parse(path)
        if not parsed.has_version:
            raise missing(path, "the name in it has neither a tag nor a digest: oci://host/namespace/name:tag/path")
        with as_file_errors(path):
            artifact = self._artifacts.open(parsed.name, self._expiry)
        if parsed.inside in artifact.folders:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if parsed.inside not in artifact.files:
            raise missing(path, complaint(artifact))
        return artifact, parsed.inside, artifact.files[parsed.inside]

    def _read_all(self, wanted: Sequence[tuple[str, int | None, int | None]]) -> list[bytes]:
        by_artifact: dict[int, list[int]] = {}
        places = [self._file(path) for path, _, _ in wanted]
        for number, (artifact, _, _) in enumerate(places):
            by_artifact.setdefault(id(artifact), []).append(number)
        found = [b""] * len(wanted)
        for numbers in by_artifact.values():
            files = places[numbers[0]][0].files
            with as_file_errors(wanted[numbers[0]][0]):
                read = files.read_many([(places[number][1], *wanted[number][1:]) for number in numbers])
            for number, data in zip(numbers, read, strict=True):
                found[number] = data
        return found

    def _try(self, path: str, start: int | None, end: int | None) -> bytes | Exception:
        try:
            return self.cat_file(path, start, end)
        except Exception as error:  # noqa: BLE001 - it is what who asked for it gets in place of the bytes
            return error

    # -- what cannot be done

    def _refuse(self, path: object = "", *args: Any, **keywords: Any) -> NoReturn:
        raise read_only(path)

    mkdir = makedirs = rmdir = rm_file = _rm = rm = cp_file = touch = pipe_file = put_file = _refuse

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        """As JSON; without passwords, without whatever may be one."""
        found: dict[str, Any] = super().to_dict(include_password=include_password)
        return found if include_password else {name: found[name] for name in found if name not in _SECRETS}


def _hosts(hosts: Mapping[str, Mapping[str, Any]] | None) -> dict[str, HostOptions] | None:
    """Return the options of hosts. TypeError: they are no mappings, which could be told apart by what is in them."""
    for options in (hosts or {}).values():
        if not isinstance(options, Mapping):
            kind = type(options).__name__
            raise TypeError(f'hosts has a mapping for each host, such as {{"scheme": "http"}}, not {kind}')
    return None if hosts is None else {host: HostOptions(**options) for host, options in hosts.items()}
