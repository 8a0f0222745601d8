"""`vllm` for a CPU, whose engine is a fork of the server.

vLLM's CPU build starts the engine as a new process, which imports everything once more: nearly half of the time until
the server is ready, and 380 MB (benchmarks/server_start.py). A fork shares what is there. On a CPU server.py runs this
in the place of `vllm`.
"""

import gc
import os
import sys
from typing import Any


def fork_engine() -> None:
    """Have vLLM's CPU platform fork engines; whatever else it prepares stays as it is."""
    from vllm.platforms.cpu import CpuPlatform

    prepare = CpuPlatform.check_and_update_config

    def prepare_to_fork(platform: type[CpuPlatform], config: Any) -> None:
        prepare(config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"  # it has just been set to spawn
        gc.freeze()  # a collector that looks at what both share would copy it

    CpuPlatform.check_and_update_config = classmethod(prepare_to_fork)


def run() -> None:
    """`vllm`, with the arguments of this process."""
    from vllm.entrypoints.cli.main import main

    fork_engine()
    sys.argv[0] = "vllm"  # as its messages name it
    sys.exit(main())
