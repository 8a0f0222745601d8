"""Runs pytest and sees to it that nothing of the tests stays: `TIME_LIMIT=3300 python -m tests ARGUMENT...`, for
test.sh. Exit code: pytest's; 124 at the limit, 130 for Ctrl-C, 143 for a TERM signal."""

import os
import signal
import subprocess
import sys

from alignxplore.processes import Family


def main(arguments: list[str], limit: float) -> int:
    """pytest in a family of its own, which is asked to end, and killed by pid if it does not."""

    def asked(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, asked)
    # A job in the background of a script inherits that Ctrl-C is ignored; what is tested is not, as in a terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tests = Family([sys.executable, "-m", "pytest", *arguments], stdin=subprocess.DEVNULL)
    try:
        return _wait(tests, limit)
    except KeyboardInterrupt:
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if killed := tests.end((signal.SIGINT, 5.0), (signal.SIGTERM, 5.0)):
            print("test.sh: these did not end with the tests and were killed:", file=sys.stderr)
            print("\n".join(line[:160] for line in killed), file=sys.stderr)


def _wait(tests: Family, limit: float) -> int:
    try:
        return tests.wait(limit)
    except subprocess.TimeoutExpired:
        print(f"test.sh: the tests took {limit:.0f} s and are ended", file=sys.stderr)
        tests.send_signal(signal.SIGINT)
    try:
        tests.wait(60)  # pytest says how far it came
    except subprocess.TimeoutExpired:
        pass
    return 124


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], float(os.environ["TIME_LIMIT"])))
