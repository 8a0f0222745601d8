"""The signal model: which of a user's choices can be foreseen from those before them. First step of data synthesis.

    python signal_model.py prepare --data train_users.jsonl --model Qwen/Qwen3-1.7B --output signal_set
    bash sft.sh --config configs/signal_qwen3_1p7b.yaml --train_data signal_set --output_dir outputs/signal
    python signal_model.py score --model outputs/signal --data train_users.jsonl --output signal_scores
    accelerate launch signal_model.py score ...                                       # the users shared out over all GPUs
    torchrun --nproc_per_node 2 signal_model.py score ...                             # the same over two CPU processes

`prepare` tokenises each user's stream once, with labels on the letters only; `sft.py` trains on it like on any
prepared set. Of several processes launched together (one a node: synthesize.sh) the first one does it, and the others
wait. `score` writes scores.jsonl: {"id", "uid", "scores": [{"position", "p", "logprob"}, ...], "dropped"}, p being
P(actual choice) and id the record's content hash, by which synthesize.py and select_rl.py find it.
Resumable: run the same command again, with any number of processes. Memory: logits exist at the letters only.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from alignxplore import datasets
from alignxplore.journal import Journal, RunLock, RunLocked
from alignxplore.records import RecordError, UserRecord, write_json, write_jsonl
from alignxplore.serving.fingerprints import model_identity
from alignxplore.sft.tokenised_set import FORMAT, PrepareError, fingerprint, report, source_hash, write_set
from alignxplore.synthesis.streams import (
    Stream,
    StreamError,
    all_behaviours,
    letter_ids,
    read_behaviours,
    tokenise_stream,
)

PATIENCE = timedelta(
    days=2
)  # of a process that is through with its share, for the last one; NCCL's own is ten minutes


def letter_row(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    """Stream → (input_ids, labels); the label is the letter, everything else is masked."""
    labels = np.full(len(stream.ids), -100, np.int32)
    ids = np.array(stream.ids, np.int32)
    labels[stream.letters] = ids[stream.letters]
    return ids, labels


def letter_rows(
    data: str, tokenizer: PreTrainedTokenizerBase, max_length: int, default_query: str | None, counts: dict[str, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of all users who have a choice between two items; fills `counts` on the way."""
    counts |= {"dropped_too_long": 0, "dropped_control_token": 0, "dropped_behaviours": 0}
    found = False
    for record in read_behaviours(data, default_query):
        stream = tokenise_stream(all_behaviours(record), record.user, tokenizer, max_length)
        counts["dropped_behaviours"] += stream.dropped
        if stream.letters:
            found = True
            yield letter_row(stream)
    if not found:
        raise PrepareError(f"{data}: no user has a choice between two items that fits into {max_length} tokens")


def prepare(
    data: str, tokenizer: PreTrainedTokenizerBase, output: Path, max_length: int, default_query: str | None = None
) -> dict:
    """Tokenise the streams of all users into a set that sft.py trains on; returns its manifest. A finished set is
    kept."""
    identity = {
        "format": FORMAT,
        "max_length": max_length,
        **fingerprint(tokenizer),
        "sources": [source_hash(data, None)],
        "default_query": datasets.default_query(data, default_query),
        "letters": letter_ids(tokenizer),
    }
    counts: dict[str, int] = {}
    rows = letter_rows(data, tokenizer, max_length, default_query, counts)
    return write_set(output, identity, {"sources": [data], "tokenizer_name": tokenizer.name_or_path}, rows, counts)


@torch.inference_mode()
def score_stream(model: PreTrainedModel, stream: Stream, letters: tuple[int, int]) -> list[dict]:
    """P(actual choice) at each letter. Logits are two a letter, in float32: a table in bfloat16 would round p near 1
    to a few values.

    The model's logits must be its last hidden states times its head, as Qwen's are.
    """
    if not stream.letters:
        return []
    ids = torch.tensor([stream.ids], device=model.device)
    before = torch.tensor(stream.letters, device=model.device) - 1  # the position that predicts the letter
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, before]
    pair = (hidden.float() @ model.get_output_embeddings().weight[list(letters)].float().T).log_softmax(-1)
    actual = (ids[0, stream.letters] == letters[1]).long()
    chosen = pair.gather(1, actual[:, None])[:, 0].tolist()
    return [
        {"position": place, "p": math.exp(value), "logprob": value} for place, value in zip(stream.behaviours, chosen)
    ]


def shared_out(records: Iterator[UserRecord], done: set[str], process: int, processes: int) -> Iterator[UserRecord]:
    """The users that fall to one process, of those who are left."""
    return islice((record for record in records if record.id not in done), process, None, processes)


def join_processes(cpu: bool) -> PartialState:
    """This process among those that were launched together; PrepareError if they do not know of each other."""
    state = PartialState(cpu=cpu, timeout=PATIENCE)  # without a GPU it would else take each for one alone
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise PrepareError(
            f"accelerate sees {state.num_processes} process(es), the launcher started {launched}; use accelerate launch or torchrun"
        )
    return state


def score(
    data: str,
    model_name: str,
    revision: str | None,
    output: Path,
    max_length: int,
    default_query: str | None,
    state: PartialState,
) -> None:
    """Score all users into output/scores.jsonl; each process journals its share, the first one puts them together."""
    identity = {
        "model": model_identity(model_name, revision),
        "data": source_hash(data, None),
        "max_length": max_length,
        "default_query": datasets.default_query(data, default_query),
    }
    told = output / "run.json"
    if state.is_main_process:
        if told.is_file() and json.loads(told.read_text()) != identity:
            raise PrepareError(
                f"{output}: holds scores of another model or data set ({told}); choose another --output"
            )
        write_json(told, identity)
    state.wait_for_everyone()
    done: set[str] = set()
    for part in sorted(output.glob("part-*.jsonl")):
        with Journal(part) as journal:
            done |= journal.finished()
    tokenizer = AutoTokenizer.from_pretrained(model_name, revision=revision)
    on_gpu = state.device.type != "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        model_name, revision=revision, dtype=torch.bfloat16 if on_gpu else torch.float32
    )
    model.to(state.device).eval()
    letters, started, count = letter_ids(tokenizer), time.monotonic(), 0
    state.wait_for_everyone()  # all have read the parts of an earlier run before anyone appends to one
    with Journal(output / f"part-{state.process_index}.jsonl") as journal:
        for record in shared_out(read_behaviours(data, default_query), done, state.process_index, state.num_processes):
            stream = tokenise_stream(all_behaviours(record), record.user, tokenizer, max_length)
            scores = score_stream(model, stream, letters)
            journal.append(record.id, {"uid": record.user, "scores": scores, "dropped": stream.dropped})
            count += 1
            if count % 200 == 0:
                print(f"[score] {count} users, {(time.monotonic() - started) / count:.3f} s each", flush=True)
    state.wait_for_everyone()
    if state.is_main_process:
        merge_parts(data, output, default_query)


@dataclass
class Foresight:
    """How many choices a model foresaw, with a 95 % interval; a user's choices depend on each other, so users are what
    is drawn."""

    users: int = 0
    choices: int = 0
    right: int = 0
    sure: int = 0  # with p > 0.9
    _squares: int = 0  # sums over users of right², choices², right·choices
    _sizes: int = 0
    _products: int = 0

    def add(self, scores: list[dict]) -> None:
        """One more user."""
        size, right = len(scores), sum(entry["p"] > 0.5 for entry in scores)
        self.users += 1
        self.choices += size
        self.right += right
        self.sure += sum(entry["p"] > 0.9 for entry in scores)
        self._squares, self._sizes, self._products = (
            self._squares + right**2,
            self._sizes + size**2,
            self._products + right * size,
        )

    def row(self) -> dict:
        """Shares in [0, 1]; the interval is that of a ratio of sums over users."""
        share = self.right / max(1, self.choices)
        half = (
            1.96
            * math.sqrt(max(0.0, self._squares - 2 * share * self._products + share**2 * self._sizes))
            / max(1, self.choices)
        )
        return {
            "users": self.users,
            "choices": self.choices,
            "foreseen": share,
            "interval": [share - half, share + half],
            "surely": self.sure / max(1, self.choices),
        }


def merge_parts(data: str, output: Path, default_query: str | None) -> None:
    """Put the parts together in the order of the data file; print how many choices were foreseen, and write it beside
    them."""
    foresight = Foresight()

    def rows(parts: list[Journal]) -> Iterator[dict]:
        for record in read_behaviours(data, default_query):
            row = next(part[record.id] for part in parts if record.id in part)
            foresight.add(row["scores"])
            yield row

    with ExitStack() as stack:
        write_jsonl(
            output / "scores.jsonl",
            rows([stack.enter_context(Journal(part)) for part in sorted(output.glob("part-*.jsonl"))]),
        )
    found = foresight.row()
    write_json(output / "foresight.json", found)
    low, high = (100 * bound for bound in found["interval"])
    print(
        f"{output}/scores.jsonl: {found['users']} users, {found['choices']} choices, {100 * found['foreseen']:.1f} % foreseen "
        f"[{low:.1f}, {high:.1f}], {100 * found['surely']:.1f} % surely (p > 0.9)"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text, model in (
        ("prepare", "streams → tokenised set for sft.py", "Qwen/Qwen3-1.7B"),
        ("score", "P(actual choice) of every interaction", "outputs/signal"),
    ):
        command = commands.add_parser(name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        command.add_argument("--data", required=True, help="users, one a line (benchmark contract)")
        command.add_argument("--model", default=model, help="Hub id or folder")
        command.add_argument("--model_revision", help="revision of the Hub model")
        command.add_argument("--output", type=Path, required=True, help="folder to write")
        command.add_argument(
            "--default_query",
            help="what stands in for null queries (default: that of the data set the file is named after)",
        )
        command.add_argument(
            "--max_length", type=int, default=8192, help="longest stream; the oldest behaviours go first"
        )
    arguments = parser.parse_args(argv)
    disable_progress_bars()
    try:
        if arguments.command == "prepare":
            state = join_processes(cpu=True)
            if state.is_main_process:
                tokenizer = AutoTokenizer.from_pretrained(arguments.model, revision=arguments.model_revision)
                manifest = prepare(
                    arguments.data, tokenizer, arguments.output, arguments.max_length, arguments.default_query
                )
                print(f"{report(manifest)}\n{manifest['dropped_behaviours']} of the oldest behaviours dropped")
            state.wait_for_everyone()
            return
        with ExitStack() as stack:
            state = join_processes(cpu=not torch.accelerator.is_available())
            if state.is_main_process:
                stack.enter_context(RunLock(arguments.output))
            score(
                arguments.data,
                arguments.model,
                arguments.model_revision,
                arguments.output,
                arguments.max_length,
                arguments.default_query,
                state,
            )
    except (PrepareError, RecordError, StreamError, RunLocked, OSError) as error:
        sys.exit(f"signal_model.py: {error}")
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
