"""The keywords of a call: a wrong type is refused before anything is done."""

from __future__ import annotations

from typing import Any

import pytest

from transferkit.cancellation import Cancellation
from transferkit.names import Reference
from transferkit.registry.call import Call, Calls
from transferkit.trace import NULL_TRACE, Trace
from transferkit.transfer.operation import Operation


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


def test_what_a_host_has_proven_to_bear_is_kept_for_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    class Seen(Operation):
        def __init__(self, *, proven: int, **keywords: Any) -> None:
            begun.append(proven)
            super().__init__(proven=proven, **keywords)
            self._concurrency.proven = 12 * len(begun)

    monkeypatch.setattr("transferkit.registry.call.Operation", Seen)
    one, other = Reference.parse("one.example/library/model:v1"), Reference.parse("other.example/library/model:v1")
    with Calls() as calls:
        for reference in (one, one, other):
            with calls._job(Call(), reference):
                pass
        with pytest.raises(KeyError), calls._job(Call(), one):
            raise KeyError
        with calls._job(Call(), one):
            pass
    assert begun == [0, 12, 0, 24, 48]
