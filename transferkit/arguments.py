"""What may be passed for the keywords of a call, a table that is asked before anything is done; and what comes of them.

Without it, a wrong type fails somewhere inside, late, or not at all. A message names the type of what was passed, never
the value: it may be a password.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import AnyBlob, Blob, Descriptor, HasBlobs, described, distinct
from transferkit.errors import InvalidNameError, SourceError
from transferkit.forks import importing
from transferkit.options import TransferOptions
from transferkit.storage.directory import Directory
from transferkit.trace import NULL_TRACE, Trace, Traces
from transferkit.transfer.outcomes import ProgressCallback
from transferkit.transport.hosts import Hosts

if TYPE_CHECKING:
    import requests

    from transferkit.content.manifest import Index, Manifest

Path: TypeAlias = "str | os.PathLike[str]"
Blobs: TypeAlias = "Iterable[Blob | Descriptor] | Manifest | Index"
Progress: TypeAlias = "ProgressCallback | bool | None"


def _is_a(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def _is_auth(value: Any) -> bool:
    is_pair = isinstance(value, tuple) and len(value) == 2 and all(isinstance(text, str) for text in value)
    return is_pair or callable(value) or hasattr(value, "for_")


def _has(*methods: str) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in methods)


def _is_listed(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | os.PathLike)


def _is_chosen(value: Any) -> bool:
    if isinstance(value, str) or callable(value):
        return True
    # An iterator would be at its end after the first file that is held against it.
    return _is_listed(value) and not isinstance(value, Iterator) and all(isinstance(text, str) for text in value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)


_TAKEN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dest_dir": (_is_a(str, os.PathLike), "a path (str or os.PathLike)"),
    "directory": (_is_a(str, os.PathLike), "a path (str or os.PathLike)"),
    "src_dir": (_is_a(str, os.PathLike), "a path (str or os.PathLike)"),
    "options": (_is_a(TransferOptions), "a TransferOptions, such as TransferOptions(concurrency=8)"),
    "concurrency": (_is_a(int), "a number of blobs (int)"),
    "stall_timeout": (_is_a(int, float), "a number of seconds"),
    "progress": (
        lambda value: isinstance(value, bool) or callable(value),
        "a function of (completed, total) in bytes, or True",
    ),
    "platform": (_is_a(str), 'a text, such as "linux/arm64", or "all"'),
    "source": (_is_a(str), "the name of a model (str)"),
    "files": (_is_listed, "a list of paths, or a mapping of titles to paths"),
    "artifact_type": (_is_a(str), "a text"),
    "annotations": (_is_texts, "a mapping of texts to texts"),
    "only": (_is_chosen, 'a pattern, such as "*.json", a list of patterns, or a function of a path'),
    "exclude": (_is_chosen, "a pattern, a list of patterns, or a function of a path"),
    "to": (_is_a(str, os.PathLike), "a path (str or os.PathLike)"),
    "cache": (_is_a(str, os.PathLike), "a DiskCache, or a path (str or os.PathLike)"),
    "format": (_is_a(str), 'a text, such as "modelpack"'),
    "link": (_is_a(str), 'a text, such as "auto"'),
    "overwrite": (_is_a(bool), "True or False"),
    "folder": (_is_a(str, os.PathLike), "a path (str or os.PathLike)"),
    "ollama": (_is_a(bool), "True or False"),
    "sign": (callable, "a function from a Manifest to the bytes of a Sigstore bundle"),
    "hosts": (_is_a(Mapping), "a mapping of hosts to HostOptions"),
    "auth": (_is_auth, "a pair of texts (user, password), or a function that returns one for a host"),
    "token": (_is_a(str), "the text of a token"),
    "get_token": (callable, "a function from an AuthChallenge to a token"),
    "session": (_has("send", "get_adapter"), "a requests.Session"),
    "user_agent": (_is_a(str), "a text"),
    "logger": (_has("debug", "warning"), "a logging.Logger"),
    "cancel": (_is_a(Cancellation), "a Cancellation"),
    "trace": (_is_a(Trace), "an instance of a subclass of Trace"),
    "manifest": (_is_a(bytes, bytearray, memoryview), "the bytes of a manifest; those of a Manifest are its .raw"),
    "manifest_ref": (_is_a(str), "a tag or a digest (str)"),
    "manifest_media_type": (_is_a(str), "a text"),
}
_FOLDERS = ("dest_dir", "src_dir")
_PATHS = (*_FOLDERS, "directory", "to", "cache", "folder")


def check(**given: object) -> None:
    """Refuse what a call cannot take; ``None`` is nothing given.

    Raises:
        TypeError: it says what is taken.
        InvalidNameError: a path is empty, or one that no system takes.
    """
    for name, value in given.items():
        holds, taken = _TAKEN[name]
        if (value is not None or name in _FOLDERS) and not holds(value):
            raise TypeError(f"{name} is {taken}, not {_kind(value)}")
        if value is not None and name in _PATHS:
            _check_path(name, value)


def _check_path(name: str, value: Any) -> None:
    try:
        raw = os.fsencode(value)
    except UnicodeEncodeError as error:
        raise InvalidNameError(f"{name} is no path: {os.fspath(value)!r} is not Unicode") from error
    if not raw:
        raise InvalidNameError(f'{name} is empty; the current folder is "."')
    if b"\0" in raw:
        raise InvalidNameError(f"{name} is no path: {os.fspath(value)!r} has a NUL")


def descriptors_of(blobs: Blobs) -> list[Descriptor]:
    """Return what a call is to move, as ``blobs_of`` does, as descriptors."""
    return list(map(described, blobs_of(blobs)))


def blobs_of(blobs: Blobs) -> list[AnyBlob]:
    """Return what a call is to move, each digest once; of a manifest all that it names, its config too.

    Raises:
        TypeError: it is no list of blobs, or one of them is no blob.
        InvalidDescriptorError: one of them has two sizes.
        InvalidManifestError: an index has no blobs of its own.
    """
    if isinstance(blobs, HasBlobs):
        return distinct(blobs.blobs)
    if isinstance(blobs, str | bytes | dict | Blob | Descriptor) or not isinstance(blobs, Iterable):
        raise TypeError(f"blobs is a list of Blob or Descriptor objects, or a Manifest, not {_kind(blobs)}")
    return distinct(blobs)


@contextmanager
def shown(
    progress: Progress, label: str, blobs: Iterable[AnyBlob], trace: Trace = NULL_TRACE
) -> Iterator[tuple[ProgressCallback | None, Trace]]:
    """Return the callback for ``progress``, and the trace of a call; for ``True`` there is none of the first, and the
    other one draws bars as well, or writes lines where there is no terminal."""
    if progress is not True:
        yield (None if progress is False else progress), trace
        return
    with importing:
        from transferkit.render import bars
    drawn = bars.shown(label, sum(blob.size for blob in blobs))
    try:
        yield None, drawn if trace is NULL_TRACE else Traces(trace, drawn)
    finally:
        drawn.close()


def options_of(options: TransferOptions | None, user_agent: str | None, **keywords: Any) -> TransferOptions:
    """Return the options of a call, whose keywords beat those that it was given."""
    options = options or TransferOptions()
    if user_agent is not None:
        keywords["transport"] = replace(options.transport, user_agent=user_agent)
    return replace(options, **{name: value for name, value in keywords.items() if value is not None})


def hosts_of(options: TransferOptions, session: requests.Session | None, connections: int, **credentials: Any) -> Hosts:
    """Return what a call knows of its hosts."""
    timeout = options.stall_timeout
    return Hosts(session, connections=connections, options=options.transport, stall_timeout=timeout, **credentials)


def directory_of(path: Path, options: TransferOptions) -> Directory:
    """Return the folder that a call fills, or reads from."""
    return Directory(
        path,
        # Whatever may come in chunks must survive an interruption: this is never above the threshold for chunks.
        resume_threshold=min(options.resume_threshold, options.chunk_threshold + 1),
        rehash=options.rehash_existing,
        durable=options.durable,
    )


class Checked(Protocol):
    """A source on disk."""

    def check_source(self, descriptor: Descriptor) -> None:
        """See that a blob can be read, and has the right size; ``SourceError`` where not."""


def check_sources(source: Checked, descriptors: list[Descriptor]) -> None:
    """See that all files that are to be sent are there; ``SourceError`` names the first one that is not."""
    problems: list[SourceError] = []
    for descriptor in descriptors:
        try:
            source.check_source(descriptor)
        except SourceError as error:
            problems.append(error)
    if problems:
        first, *others = problems
        more = f" (and {len(others)} more files)" if others else ""
        raise SourceError(f"{first}{more}; nothing was sent", errno=first.errno) from first


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
