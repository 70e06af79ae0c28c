"""What closes on its way out."""

from __future__ import annotations

import pytest

from transferkit.content.flow import Closing


class Door(Closing):
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_closed_on_its_way_out() -> None:
    door = Door()
    with door as entered:
        assert entered is door
        assert not door.closed
    assert door.closed == 1


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_it_is_closed_where_something_is_raised_and_hides_no_error(error: type[BaseException]) -> None:
    door = Door()
    with pytest.raises(error), door:
        raise error
    assert door.closed == 1
