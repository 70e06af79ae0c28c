"""``oci://`` for ``fsspec``: the files of models in registries, for whatever opens paths through it.

``fsspec`` finds the class by an entry point; nobody has to import this. It needs the extra ``transferkit[fsspec]``.
"""

from transferkit.filesystem.file_system import OCIFileSystem

__all__ = ["OCIFileSystem"]
