"""torchrun, which says in a sentence what ended it: the processes that it starts have said the rest.

    python -m alignxplore.torchrun --standalone --nproc_per_node 2 sft.py ...

Options are those of torchrun. sft.sh and synthesize.sh launch with it. Exit codes: that of the first process that
failed (1 where it was killed), 130 for Ctrl-C, 143 for SIGTERM. Processes that are told to end have
TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds (default 30) to save, under every version of torch.
"""

import functools
import os
import signal
import sys
from typing import Any

from alignxplore.errors import one_sentence


def give_time() -> None:
    """Before torch 2.12 torchrun kills after 30 seconds, whatever TORCH_ELASTIC_SHUTDOWN_TIMEOUT says.

    Only those that are told to end have the time. Those whose neighbour has failed hang in a collective, and save
    nothing.
    """
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.launcher.api import LaunchConfig

    if hasattr(LaunchConfig, "shutdown_timeout"):
        return
    seconds = int(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30"))
    shutdown = LocalElasticAgent._shutdown

    def patient_shutdown(agent: LocalElasticAgent, *arguments: Any, **options: Any) -> None:
        if processes := agent._pcontext:
            processes.close = functools.partial(processes.close, timeout=seconds)
        shutdown(agent, *arguments, **options)

    LocalElasticAgent._shutdown = patient_shutdown


def launch() -> None:
    """Run torchrun with this process's words.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    give_time()
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
