"""Facts about a model, read from the headers of its weights and its ``config.json``: format, size, precision.

What is not known is left out: a header that cannot be read makes no error here, as a folder may be pushed whatever is
in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from transferkit.content.budget import Budget
from transferkit.errors import InvalidModelError
from transferkit.models import ggml, gguf, safetensors
from transferkit.models.names import shard_of
from transferkit.models.values import ReadAt

_MAX_SETTINGS = 4 * 1024 * 1024  # bytes of a config.json; real ones have a few kilobytes
_MAX_READ = 256 * 1024 * 1024  # bytes of all headers together; more than any model has
_MAX_TENSORS = 500_000  # of all files together; models of 1T parameters have some 200,000
_MOSTLY = 0.95  # of the elements: a few norms or buffers in another dtype do not make a model "mixed"
_PRECISIONS = {  # model-spec, docs/config.md: "bf16", "fp16", "int8" or "mixed"
    "F64": "fp64",
    "F32": "fp32",
    "F16": "fp16",
    "BF16": "bf16",
    "I8": "int8",
    "U8": "int8",
    "F4": "fp4",
    **dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), "fp8"),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), "fp6"),
}
_TORCH = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
_PACKED = ("I32", "U32", "U8")  # GPTQ, AWQ and bitsandbytes put several parameters into one element of these
# Endings that say little by themselves: a .bin of another name may be anything.
_OTHERS = {"onnx": r".+\.onnx", "pytorch": r".+\.pth?|(?:.+/)?pytorch_model[^/]*\.bin"}

Files = Mapping[str, tuple[ReadAt, int]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model, in the words of model-spec's ``config``; ``None`` is not known."""

    format: str | None = None
    architecture: str | None = None
    """Its family, as ``config.json`` (``model_type``) or GGUF has it, such as ``llama``."""
    param_size: str | None = None
    precision: str | None = None
    quantization: str | None = None


UNKNOWN = Facts()


def facts_of(files: Files) -> Facts:
    """Return what the files of a model say about it: a map of paths to readers and sizes in bytes.

    Only headers and the folder's own ``config.json`` are read. Where a folder has weights in two formats, those that
    have more bytes count. The readers' own errors go through.
    """
    files, tensors = _limited(files), Budget(_MAX_TENSORS)
    settings = _settings(files)
    by_ending = {ending: _ending_in(files, ending) for ending in (".safetensors", ".gguf")}
    ending = max(by_ending, key=lambda ending: sum(files[path][1] for path in by_ending[ending]))
    if paths := by_ending[ending]:
        if ending == ".gguf":
            return _of_gguf(files, paths, tensors)
        return _of_safetensors(files, paths, settings, tensors)
    others = (name for name, rule in _OTHERS.items() if any(re.fullmatch(rule, path, re.I) for path in files))
    return Facts(next(others, None), _text(settings, "model_type"), None, _declared(settings), _method(settings))


def param_size(count: int) -> str | None:
    """Return a number of parameters as model-spec writes it, with one digit after the point: ``8B``, ``22.7M``.

    ``None`` for fewer than its smallest unit can say.

    >>> param_size(268_098_176)
    '268.1M'
    """
    scale, unit = 1000, "K"
    for larger in "MBTQ":
        if count < 999.95 * scale:
            break
        scale, unit = scale * 1000, larger
    number = f"{count / scale:.1f}"
    return None if number == "0.0" else number.removesuffix(".0") + unit


def _of_safetensors(files: Files, paths: list[str], settings: Mapping[str, Any], tensors: Budget) -> Facts:
    sizes: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()  # a folder may have the same tensors in several files
    is_whole = True
    for path in paths:
        try:
            header = safetensors.read_header(*files[path], tensors)
        except InvalidModelError:
            is_whole = False
            continue
        folder = path.rpartition("/")[0]
        for name, tensor in header.tensors.items():
            if (folder, name) not in seen:
                seen.add((folder, name))
                sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.elements
    method, main = _method(settings), _main(sizes)
    is_packed = method is not None and any(sizes.get(dtype) for dtype in _PACKED)
    precision = _declared(settings) if method or not sizes else _PRECISIONS.get(main or "", "mixed")
    count = sum(sizes.values())
    return Facts(
        "safetensors",
        _text(settings, "model_type"),
        param_size(count) if is_whole and not is_packed else None,
        precision,
        method,
    )


def _of_gguf(files: Files, paths: list[str], tensors: Budget) -> Facts:
    """Return the facts of the first model among GGUF files; projectors beside it are no part of its size."""
    first = next((path for path in paths if "mmproj" not in path.lower()), paths[0])
    shard = shard_of(first)
    parts = [path for path in paths if shard and (other := shard_of(path)) and other[0] == shard[0]] or [first]
    try:
        first_header = gguf.read_header(*files[parts[0]], tensors)
        count = _elements(first_header)
        for path in parts[1:]:  # of the others nothing is kept
            count += _elements(gguf.read_header(*files[path], tensors))
    except InvalidModelError:
        return Facts("gguf")
    metadata = first_header.metadata
    kind = ggml.file_type(metadata.get("general.file_type"))
    is_whole = shard is None or len(parts) == shard[2]
    return Facts(
        "gguf",
        _text(metadata, "general.architecture"),
        param_size(count) if is_whole else None,
        _PRECISIONS.get(kind or ""),
        kind,
    )


def _elements(header: gguf.GGUFHeader) -> int:
    return sum(tensor.elements for tensor in header.tensors)


def _limited(files: Files) -> Files:
    """Return readers of the files that fail where all of them together have read too much."""
    budget = Budget(_MAX_READ)
    return {path: (partial(_read_limited, read, budget), size) for path, (read, size) in files.items()}


def _read_limited(read: ReadAt, budget: Budget, offset: int, count: int) -> bytes:
    if not budget.take(count):
        raise InvalidModelError(f"the headers have more than {budget.most} bytes together")
    return read(offset, count)


def _main(sizes: Mapping[str, int]) -> str | None:
    """Return the dtype that nearly all elements have, if one does."""
    total = sum(sizes.values())
    return next((dtype for dtype, count in sizes.items() if count >= _MOSTLY * total), None)


def _settings(files: Files) -> Mapping[str, Any]:
    if "config.json" not in files:
        return {}
    read, size = files["config.json"]
    try:
        settings = json.loads(read(0, size)) if size <= _MAX_SETTINGS else None
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _declared(settings: Mapping[str, Any]) -> str | None:
    """Return the precision that ``config.json`` names; transformers 5 calls it ``dtype``."""
    dtype = _text(settings, "torch_dtype") or _text(settings, "dtype")
    return _TORCH.get(dtype.removeprefix("torch.")) if dtype else None


def _method(settings: Mapping[str, Any]) -> str | None:
    """Return the method of quantization that ``config.json`` names, such as ``gptq``."""
    quantization = settings.get("quantization_config")
    return _text(quantization, "quant_method") if isinstance(quantization, dict) else None


def _text(settings: Mapping[str, Any], key: str) -> str | None:
    value = settings.get(key)
    return value if isinstance(value, str) and 0 < len(value) <= 100 else None


def _ending_in(paths: Iterable[str], ending: str) -> list[str]:
    return sorted(path for path in paths if path.lower().endswith(ending))
