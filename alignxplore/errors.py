"""How the scripts of sft/ and eval/ end when what they were given is at fault: one sentence, no traceback.

    with one_sentence():
        run(arguments)
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from alignxplore.endpoint import RequestError, TransportError
from alignxplore.journal import RunLocked
from alignxplore.judge import JudgeError
from alignxplore.serving import ServerError
from alignxplore.work import TooManyErrors

# What these say is a sentence about what is wrong and what to do; a traceback would bury it. Wrong records, prompts, histories
# and options are ValueErrors; what cannot be read or written is an OSError.
SAID = (ValueError, OSError, JudgeError, ServerError, TransportError, RequestError, TooManyErrors, RunLocked)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Errors of the kinds in `SAID` end the script with their own sentence and exit code 1."""
    try:
        yield
    except SAID as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
