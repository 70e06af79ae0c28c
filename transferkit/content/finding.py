"""What a look at one's own machine has found, for a person who asks why something does not work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact. A ``problem`` stops transfers, a ``warning`` may; a ``note`` is worth knowing. It holds no secret.

    ``about`` is what was looked at, ``text`` what is the case, and ``advice`` what to do, where there is something.
    """

    level: Level
    about: str
    text: str
    advice: str = ""
