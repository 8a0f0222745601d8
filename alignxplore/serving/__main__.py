"""Start a local `vllm serve` for a model folder or hub id, wait until it is healthy, and stop it with everything it
started.

    with serve("outputs/sft", log_path="outputs/eval/policy.log") as url:
        async with Endpoint(url) as endpoint: ...

The same call serves on GPUs and on a CPU; on a CPU (vLLM's CPU build) it adds the settings that make small models fast
there. By hand, until Ctrl-C or a TERM signal:

    python -m alignxplore.serving outputs/judge --port 8000 --log judge.log --max-model-len 4096
"""

from alignxplore.errors import one_sentence
from alignxplore.serving.server import main

if __name__ == "__main__":
    with one_sentence():
        main()
