"""Peak memory of scoring a stream of 8,192 tokens with 100 letters: two logits at each letter, against all logits.

    python benchmarks/letter_logits.py                  # Qwen's vocabulary (151,936), fp32; about 10 GB of memory
    python benchmarks/letter_logits.py --tokens 2048

"theirs" is what the published scorer does: logits of every token, then log_softmax of all of them, to read 100
numbers. Each way runs in a process of its own; its peak above the loaded model is read from the kernel. Both must give
the same probabilities. What is measured is the output layer's activations, so the model has one small layer. The last
line is JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import at_least_one

VOCABULARY = 151936


def child(way: str, tokens: int, letters: int) -> None:
    """Score once and print the growth of the peak resident memory (MB) and the sum of the probabilities."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from alignxplore.synthesis.signal_model import score_stream
    from alignxplore.synthesis.streams import Stream

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    model = Qwen3ForCausalLM(config).eval()
    places = [(i + 1) * tokens // (letters + 1) for i in range(letters)]
    ids = torch.randint(10, VOCABULARY, (tokens,)).tolist()
    for number, place in enumerate(places):
        ids[place] = 5 + number % 2
    with torch.inference_mode():  # the decoder's own peak, the same in both ways, is not what is compared
        model.model(input_ids=torch.tensor([ids]), use_cache=False)
    start_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if way == "ours":
        rows = score_stream(model, Stream(ids, places, list(range(letters)), 0), (5, 6))
        values = [row["p"] for row in rows]
    else:
        with torch.inference_mode():
            table = model(input_ids=torch.tensor([ids]), use_cache=False).logits.log_softmax(-1)[0]
        pairs = table[torch.tensor(places) - 1][:, [5, 6]].log_softmax(-1).exp()
        values = [pairs[i, ids[place] - 5].item() for i, place in enumerate(places)]
    end_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"mb": (end_kb - start_kb) / 1024, "sum": sum(values)}))


@dataclass(kw_only=True)
class LogitsOptions(Checkable):
    """How long a stream."""

    tokens: int = option("tokens of the stream", 8192)
    letters: int = option("letters in it", 100)
    child: Literal["ours", "theirs"] | None = option(argparse.SUPPRESS, None)  # the way that this process is for

    def __post_init__(self) -> None:
        at_least_one(self, "tokens", "letters")
        if self.letters >= self.tokens:
            raise ValueError(f"--letters {self.letters}: fewer than --tokens ({self.tokens})")


def compare(arguments: LogitsOptions) -> str | None:
    """Both ways, a process each."""
    if arguments.check:
        return planned(arguments)
    if arguments.child:
        child(arguments.child, arguments.tokens, arguments.letters)
        return None
    results = {}
    for way in ("ours", "theirs"):
        sizes = ["--tokens", str(arguments.tokens), "--letters", str(arguments.letters)]
        command = [sys.executable, __file__, "--child", way, *sizes]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        results[way] = json.loads(out.splitlines()[-1])
    if abs(results["ours"]["sum"] - results["theirs"]["sum"]) > 1e-3:
        raise AssertionError(f"the two ways give other probabilities: {results}")
    ours, theirs = max(1.0, results["ours"]["mb"]), results["theirs"]["mb"]
    print(
        f"{arguments.tokens} tokens, {arguments.letters} letters, {VOCABULARY} words: {ours:.0f} MB against "
        f"{theirs:,.0f} MB"
    )
    print(
        json.dumps(
            {
                "name": "letter_logits",
                "ratio": round(theirs / ours, 1),
                "goal": 50,
                "ours": round(ours, 1),
                "theirs": round(theirs, 1),
                "unit": "MB above the model",
                "n": 1,
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, LogitsOptions, __doc__)
