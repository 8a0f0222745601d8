"""Write preference summaries for benchmarks, from the full history and as a stream. First half of the evaluation.

    python eval/gen_preference.py --model ours=outputs/rl/model --data mind=mind_upi.jsonl --settings full streaming --out outputs/eval

Each policy is loaded once for everything asked. Every user's answer is journalled as it comes: kill the run and repeat
the command, and only what is missing is written. Then run evaluate.py on the same --out.
"""

from alignxplore.errors import one_sentence
from alignxplore.evaluation.generation import main

if __name__ == "__main__":
    with one_sentence():
        main()
