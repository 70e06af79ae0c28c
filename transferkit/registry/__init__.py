"""Models by name: pulled, pushed and copied between registries and a store on disk."""

from transferkit.registry.defaults import copy, open_tensors, pull, push, snapshot
from transferkit.registry.open_files import OpenFiles
from transferkit.registry.registry import Registry
from transferkit.registry.tensors import Tensors

__all__ = ["OpenFiles", "Registry", "Tensors", "copy", "open_tensors", "pull", "push", "snapshot"]
