"""The tensors of a model, read when they are asked for: a mapping of names to arrays over its safetensors files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from transferkit.content.flow import Closing
from transferkit.errors import InvalidModelError
from transferkit.models import safetensors
from transferkit.registry.arrays import allocate, finish
from transferkit.registry.job import Job
from transferkit.registry.parts import Place
from transferkit.registry.reader import Reader
from transferkit.registry.tensor_files import TensorFile, TensorFiles

if TYPE_CHECKING:
    from transferkit.registry.arrays import Array

Begin: TypeAlias = Callable[[], AbstractContextManager[Job]]
Rows: TypeAlias = "slice | int | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """What is known of a tensor before it is read."""

    name: str
    dtype: str
    """As the format calls it: ``F32``, ``BF16``, ``F8_E4M3``."""
    shape: tuple[int, ...]
    file: str
    """The path of its file in the model."""
    start: int
    """Offset of its first byte in the file."""
    end: int
    """Offset of the byte behind its last one."""
    verified: bool
    """Whether its bytes are held to a digest when they are read: of the whole file, or of each chunk."""

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return self.end - self.start


class Tensors(Closing, Mapping[str, Any]):
    """A mapping of the names of a model's tensors to ``numpy`` arrays, each read when it is asked for.

    Nothing of a tensor is kept: what is asked for twice is read twice. Thread-safe, and usable after a fork. An array
    is the caller's own: writable, in C order, in this machine's byte order. Of types that numpy does not have
    (``BF16``, ``F8_...``) the elements are those of ``ml_dtypes``, or, where that is not installed, the plain bits as
    ``uint16`` and ``uint8``; ``info`` names the type. ``F4`` and ``F6_...`` come as bytes.

    Raises, wherever something is read:
        ValueError: it is closed.
        DigestMismatchError: what came is not what the list of the file's chunks says.
        TransferKitError, CancelledError: as for ``download``.
    """

    def __init__(self, files: TensorFiles, about: str, begin: Begin, *, require_verified: bool = False) -> None:
        self._files = files
        self._about = about
        self._begin = begin
        self._reader = Reader(files, f"the tensors of {{}} in {about}", require_verified=require_verified)
        self._found = _by_name(files.files)
        self._closed = False

    # -- what there is

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._all()))

    def __len__(self) -> int:
        return len(self._all())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    # Two mappings are not compared: that would read both.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def info(self, name: str) -> Tensor:
        """Tell type, shape and place of a tensor, without reading it. KeyError: there is none of that name."""
        file, found = self._find(name)
        return Tensor(
            name=name,
            dtype=found.dtype,
            shape=found.shape,
            file=file.path,
            start=found.start,
            end=found.end,
            verified=file.is_verified,
        )

    @property
    def metadata(self) -> dict[str, dict[str, str]]:
        """What the headers say besides (``__metadata__``), by the paths of the files."""
        self._all()
        return {file.path: dict(file.header.metadata) for file in self._files.files if file.header is not None}

    # -- reading

    def __getitem__(self, name: str) -> Array:
        return self.load([name])[name]

    def load(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Read many tensors at once, by default all: in few ranges, which come in parallel.

        Tensors that lie near each other come in one range, with what is between them; a long one comes in several.

        Raises:
            KeyError: there is no tensor of one of the names; nothing was read.
        """
        if isinstance(names, str):
            raise TypeError(f"names is a list of names, such as [{names!r}]")
        wanted: dict[TensorFile, list[Place]] = {}
        made: dict[str, tuple[str, Array]] = {}
        there = self._all()
        for name in dict.fromkeys(there if names is None else names):
            file, found = self._find(name)
            array, memory = allocate(found.dtype, found.shape, found.end - found.start)
            wanted.setdefault(file, []).append((found.start, memory))
            made[name] = (found.dtype, array)
        self._read(wanted)
        return {name: finish(dtype, array) for name, (dtype, array) in made.items()}

    def slice(self, name: str, start: Rows, stop: int | None = None) -> Array:
        """Read ``tensor[start:stop]``, rows along the first axis, and no other bytes.

        ``start`` may be a ``slice`` in place of both. Bounds count as those of a list: negative ones from the end, and
        what is beyond it is not there.

        Raises:
            KeyError: there is no such tensor.
            TypeError: ``stop`` goes with a ``slice``.
            ValueError: it has no axis; or there is a step; or its rows do not begin at whole bytes (``F4``).
        """
        if isinstance(start, slice) and stop is not None:
            raise TypeError("a slice says where it stops: tensors.slice(name, slice(start, stop))")
        rows = start if isinstance(start, slice) else slice(start, stop)
        file, found = self._find(name)
        if not found.shape:
            raise ValueError(f"{name!r} is a single number, which has no rows")
        first, last, step = rows.indices(found.shape[0])
        if step != 1:
            raise ValueError("rows are read one after the other: take the step of the array that comes")
        count = max(last - first, 0)
        size, rest = divmod(found.end - found.start, found.shape[0] or 1)
        if rest:
            raise ValueError(f"the rows of {name!r}, {found.dtype}{list(found.shape)}, do not begin at whole bytes")
        array, memory = allocate(found.dtype, (count, *found.shape[1:]), count * size)
        self._read({file: [(found.start + first * size, memory)]})
        return finish(found.dtype, array)

    def prove(self) -> None:
        """Hold the headers of all files to their digests, as far as these are known; else the first read of each does.

        VerificationError: ``require_verified``, and nobody can verify a file.
        """
        self._all()
        self._read({file: [] for file in self._files.files})

    def close(self) -> None:
        """Let go of it: whoever asks it from now on gets a ValueError. What is being read comes to its end."""
        self._closed = True

    def __repr__(self) -> str:
        what = "closed" if self._closed else f"{len(self._found)} in {len(self._files.files)} files"
        return f"<Tensors of {self._about}: {what}>"

    # -- how

    def _all(self) -> dict[str, tuple[TensorFile, safetensors.TensorInfo]]:
        if self._closed:
            raise ValueError(f"the tensors of {self._about} are closed")
        return self._found

    def _find(self, name: str) -> tuple[TensorFile, safetensors.TensorInfo]:
        try:
            return self._all()[name]
        except KeyError:
            raise KeyError(f"{self._about} has no tensor {name!r}") from None

    def _read(self, wanted: Mapping[TensorFile, Sequence[Place]]) -> None:
        """Fill places with bytes of their files."""
        with self._begin() as job:
            self._reader.read(job, wanted)


def _by_name(files: Iterable[TensorFile]) -> dict[str, tuple[TensorFile, safetensors.TensorInfo]]:
    """Return the tensors of some files by name. InvalidModelError: two files have one of the same name."""
    found: dict[str, tuple[TensorFile, safetensors.TensorInfo]] = {}
    for file in files:
        for name, tensor in file.header.tensors.items() if file.header is not None else ():
            first, _ = found.setdefault(name, (file, tensor))
            if first is not file:
                text = f"both {first.path} and {file.path} have a tensor {name[:200]!r}"
                raise InvalidModelError(f"{text}; choose between them with only= or exclude=")
    return found
