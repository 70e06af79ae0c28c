"""Where models are kept on this machine, unless somebody says otherwise."""

from __future__ import annotations

import os

VARIABLES = ("TRANSFERKIT_CACHE", "OLLAMA_MODELS")
"""What names the store of this machine, in this order."""


def default_cache() -> str:
    """Return where models are kept unless somebody says otherwise.

    ``TRANSFERKIT_CACHE``, else Ollama's own store (``OLLAMA_MODELS``, or ``~/.ollama/models`` where that is), else
    ``transferkit`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    for variable in VARIABLES:
        if path := os.environ.get(variable):
            return path
    theirs = os.path.expanduser("~/.ollama/models")
    if os.path.isdir(theirs):
        return theirs
    base = os.environ.get("XDG_CACHE_HOME", "")  # one that is not absolute is to be ignored, says its specification
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "transferkit")
