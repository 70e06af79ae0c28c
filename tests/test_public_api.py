"""What the package promises by name."""

from __future__ import annotations

import doctest
import importlib
import pickle
import pkgutil

import pytest

import transferkit as tk
from transferkit import errors


def test_all_is_sorted_and_every_name_is_there():
    assert sorted(tk.__all__) == tk.__all__
    assert all(getattr(tk, name) is not None for name in tk.__all__)
    assert set(tk.__all__) <= set(dir(tk))


def test_every_exception_is_public():
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}

    assert classes - {"Any"} <= set(tk.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'downlaod'"):
        tk.downlaod  # noqa: B018 - the access is the test


def test_values_pickle():
    blob = tk.Blob("sha256:" + 64 * "a", 5, source="a/b")
    descriptor = tk.Descriptor("sha256:" + 64 * "b", 6)

    assert (blob, descriptor) == pickle.loads(pickle.dumps((blob, descriptor)))
    assert isinstance(pickle.loads(pickle.dumps(descriptor)).digest, tk.Digest)


MODULES = [
    module.name
    for module in pkgutil.walk_packages(tk.__path__, "transferkit.")
    if not module.name.startswith(("transferkit.__main__", "transferkit.testing.plugin"))
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    failures, _ = doctest.testmod(importlib.import_module(name))

    assert 0 == failures
