"""Write preference summaries for benchmarks, from the full history and as a stream. First half of the evaluation.

    python eval/gen_preference.py --model ours=outputs/rl/model --data mind=mind_upi.jsonl --out outputs/eval
    python eval/gen_preference.py --model ours=outputs/rl/model --data mind=mind_upi.jsonl --out outputs/eval --check

Each policy is loaded once for everything asked. Every user's answer is journalled as it comes: kill the run and repeat
the command, and only what is missing is written. Then run evaluate.py on the same --out.

    python eval/gen_preference.py --continue outputs/eval --model ours=outputs/rl/model --data mind=new.jsonl
    python eval/gen_preference.py --continue outputs/eval --model ours=outputs/rl/model --forget forget.jsonl

`--continue` goes on where a finished run ended, for the persons of `--data`: past summary and new interactions → new
summary. Versions are kept in OUT/updates; an update in bad format replaces nothing. `--forget` takes persons,
interactions or what came in one file out of it, and derives anew what rested on them.

`--check` says how many summaries of each policy and benchmark are to be written and how many are there. An endpoint is
not asked anything by it: what is there is counted as if it served the model that it served last.
"""

from alignxplore.command import run
from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.continuing import continue_summaries
from alignxplore.evaluation.generation import write_summaries


def generate(arguments: GenerationArguments) -> str | None:
    """Begin, or go on."""
    return continue_summaries(arguments) if arguments.continue_run else write_summaries(arguments)


if __name__ == "__main__":
    run(generate, GenerationArguments, __doc__)
