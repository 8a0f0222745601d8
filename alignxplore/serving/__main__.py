"""A local `vllm serve` for a model folder or hub id, until Ctrl-C or a TERM signal, with everything it started.

    python -m alignxplore.serving outputs/judge --port 8000 --log judge.log --max-model-len 4096

Options that are none of those below go to `vllm serve`. On a CPU (vLLM's CPU build) it adds the settings that make
small models fast there. It prints "ready: MODEL at URL" once the server answers.
"""

import sys

from alignxplore.command import first_word, parse_known, say_what_matters
from alignxplore.errors import one_sentence
from alignxplore.serving.server import ServeOptions, serve_until_stopped

if __name__ == "__main__":
    with one_sentence():
        say_what_matters()
        serve_until_stopped(*parse_known(ServeOptions, __doc__, first_word(ServeOptions, sys.argv[1:])))
