"""torchrun, which says in a sentence what ended it: the processes that it starts have said the rest.

    python -m alignxplore.torchrun --standalone --nproc_per_node 2 sft.py ...

Options are those of torchrun. sft.sh and synthesize.sh launch with it. Exit codes: that of the first process that
failed (1 where it was killed), 130 for Ctrl-C, 143 for SIGTERM.
"""

import signal
import sys

from alignxplore.errors import one_sentence


def launch() -> None:
    """Run torchrun with this process's words.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    try:
        main()
    except SignalException as asked:
        if asked.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        sys.exit(128 + asked.sigval)
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        how = f"exit code {first.exitcode}" if first.exitcode > 0 else first.signal_name()
        print(f"torchrun: process {rank} ended with {how}; the others were ended", file=sys.stderr)
        sys.exit(max(first.exitcode, 1))


if __name__ == "__main__":
    with one_sentence():
        launch()
