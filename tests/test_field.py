"""The pages that name tests name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGES = {"docs/field.rst": TESTS.parent / "docs" / "field.rst", "ACCEPTANCE.rst": TESTS / "ACCEPTANCE.rst"}


def named(text: str) -> list[tuple[str, str]]:
    """Return file and test of each name that has both."""
    return re.findall(r"``((?:unit|functional|integration)/[\w/]+\.py)::(?:\w+::)?(test_\w+)``", text)


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    tests = named(PAGES[page].read_text())
    assert len(tests) > 40
    missing = [
        f"{file}::{test}"
        for file, test in tests
        if not (TESTS / file).exists() or not re.search(rf"def {test}\(", (TESTS / file).read_text())
    ]
    assert [] == missing


def test_a_name_is_found_in_a_text() -> None:
    assert [("unit/a/test_b.py", "test_c")] == named("one: ``unit/a/test_b.py::test_c``, ``make soak``")
