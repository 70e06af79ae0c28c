"""Start one program, wait for it, and write what it cost.

::

    python -I -S launcher.py RESULT TIMEOUT PROGRAM ARGUMENT...

Why a process of its own: Linux hands the peak memory of whoever forks on to the new program (``ru_maxrss`` survives
``exec``), so a runner of 60 MB would be every contestant's lower bound. This one has 10 MB, because it imports nothing
but built-in modules; nothing smaller can be seen.
"""

import _signal as signal  # type: ignore[import-not-found]  # typeshed has none
import os
import sys
import time


def main() -> None:
    result, timeout, *command = sys.argv[1:]
    child = 0
    timed_out = False

    def end(signum: int, _frame: object) -> None:
        nonlocal timed_out
        timed_out = signum == signal.SIGALRM
        if child:
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:
                pass

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, float(timeout))
    # A group of its own, so that whatever it starts ends with it.
    child = os.posix_spawnp(command[0], command, os.environ, setpgroup=0, setsigdef=[signal.SIGINT])
    _, status, usage = os.wait4(child, 0)
    ended = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0)
    code = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    figures = (ended - began, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * unit, code, int(timed_out))
    with open(result, "w") as out:
        out.write(" ".join(map(str, figures)))


if __name__ == "__main__":
    main()
