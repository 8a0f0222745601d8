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
    except SignalException as request:
        if request.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        sys.exit(128 + request.sigval)
    except ChildFailedError as failure:
        rank, process = failure.get_first_failure()
        end = f"exit code {process.exitcode}" if process.exitcode > 0 else process.signal_name()
        print(f"torchrun: process {rank} ended with {end}; the others were ended", file=sys.stderr)
        sys.exit(max(process.exitcode, 1))


if __name__ == "__main__":
    with one_sentence():
        launch()
