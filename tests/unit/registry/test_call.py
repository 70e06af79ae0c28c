"""The keywords of a call: a wrong type is refused before anything is done."""

from __future__ import annotations

from typing import Any

import pytest

from transferkit.cancellation import Cancellation
from transferkit.registry.call import Call
from transferkit.trace import NULL_TRACE, Trace


def test_nothing_is_given_by_default() -> None:
    call = Call()
    assert (call.progress, call.trace, call.cancel, call.logger) == (None, NULL_TRACE, None, None)


@pytest.mark.parametrize(
    "given", [{"progress": True}, {"progress": print}, {"trace": Trace()}, {"cancel": Cancellation()}]
)
def test_what_fits_is_taken(given: dict[str, Any]) -> None:
    (name,) = given
    assert getattr(Call(**given), name) == given[name]


def test_an_unknown_keyword_is_told_as_the_methods() -> None:
    assert Call.of("pull", {"progress": True}).progress is True
    with pytest.raises(TypeError, match=r"^pull\(\) got an unexpected keyword argument 'wrong'$"):
        Call.of("pull", {"progress": True, "wrong": 1})


@pytest.mark.parametrize("name", ["progress", "trace", "cancel", "logger"])
def test_what_does_not_fit_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} is .*, not int$"):
        Call(**{name: 5})  # type: ignore[arg-type]
