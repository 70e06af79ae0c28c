"""Models by name: pulled, pushed and copied between registries and a store on disk."""

from transferkit.registry.defaults import copy, pull, push, snapshot
from transferkit.registry.registry import Registry

__all__ = ["Registry", "copy", "pull", "push", "snapshot"]
