"""``python -m transferkit``, and the program ``transferkit``."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line. A Ctrl-C before it can say anything ends it in silence, and by no traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from transferkit.cli import main as program

    program(prog_name="transferkit")


if __name__ == "__main__":
    main()
