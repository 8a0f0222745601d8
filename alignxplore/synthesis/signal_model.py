"""The signal model: which of a user's choices can be foreseen from those before them. `sft/signal_model.py` runs it.

Streams are tokenised once, with labels on the letters only; scores are P(actual choice), and logits exist at the
letters only.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import MISSING, dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import disable_progress_bars
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from alignxplore import datasets
from alignxplore.command import Checkable, option
from alignxplore.devices import refuse_unusable_gpu
from alignxplore.errors import at_least_one, is_first_process
from alignxplore.journal import Journal, RunLock
from alignxplore.records import UserRecord, read_jsonl, write_json, write_jsonl
from alignxplore.same_run import refuse_other, written
from alignxplore.serving.beforehand import read_tokenizer
from alignxplore.serving.fingerprints import model_identity, tokenizer_fingerprint
from alignxplore.sft.stored_set import PrepareError, write_set
from alignxplore.sft.tokenised_set import FORMAT, report, source_hash
from alignxplore.synthesis.streams import (
    Stream,
    all_behaviours,
    letter_ids,
    read_behaviours,
    tokenise_stream,
)

PATIENCE = timedelta(
    days=2
)  # of a process that is through with its share, for the last one; NCCL's own is ten minutes


@dataclass(kw_only=True)
class StreamOptions(Checkable):
    """Whose streams, tokenised how."""

    data: str = option("users, one a line (benchmark contract)")
    model: str = option("Hub id or folder", "Qwen/Qwen3-1.7B")
    model_revision: str | None = option("revision of the Hub model", None)
    out: str = option("folder to write", MISSING, "--output")
    default_query: str | None = option(datasets.DEFAULT_QUERY, None)
    max_length: int = option("longest stream in tokens; the oldest behaviours go first", 8192)

    def __post_init__(self) -> None:
        at_least_one(self, "max_length")


@dataclass(kw_only=True)
class PrepareOptions(StreamOptions):
    """Streams for training."""


@dataclass(kw_only=True)
class ScoreOptions(StreamOptions):
    """Streams and who scores them."""

    model: str = option("Hub id or folder", "outputs/signal")


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
    has_rows = False
    for record in read_behaviours(data, default_query):
        stream = tokenise_stream(all_behaviours(record), record.user, tokenizer, max_length)
        counts["dropped_behaviours"] += stream.dropped
        if stream.letters:
            has_rows = True
            yield letter_row(stream)
    if not has_rows:
        raise PrepareError(f"{data}: no user has a choice between two items that fits into {max_length} tokens")


def prepare(
    data: str, tokenizer: PreTrainedTokenizerBase, output: Path, max_length: int, default_query: str | None = None
) -> dict:
    """Tokenise the streams of all users into a set that sft.py trains on; returns its manifest. A finished set is
    kept."""
    identity = {
        "format": FORMAT,
        "max_length": max_length,
        **tokenizer_fingerprint(tokenizer),
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
    places = torch.tensor(stream.letters, device=model.device) - 1  # the position that predicts the letter
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, places]
    pair = (states.float() @ model.get_output_embeddings().weight[list(letters)].float().T).log_softmax(-1)
    actual = (ids[0, stream.letters] == letters[1]).long()
    log_probabilities = pair.gather(1, actual[:, None])[:, 0].tolist()
    return [
        {"position": place, "p": math.exp(value), "logprob": value}
        for place, value in zip(stream.behaviours, log_probabilities)
    ]


def shared_out(
    records: Iterator[UserRecord], finished_ids: set[str], process: int, processes: int
) -> Iterator[UserRecord]:
    """The users that fall to one process, of those who are left."""
    return islice((record for record in records if record.id not in finished_ids), process, None, processes)


def join_processes(cpu: bool) -> PartialState:
    """This process among those that were launched together; PrepareError if they do not know of each other."""
    state = PartialState(cpu=cpu, timeout=PATIENCE)  # without a GPU it would else take each for one alone
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != ranks:
        raise PrepareError(
            f"accelerate sees {state.num_processes} process(es), the launcher started {ranks}; use accelerate "
            "launch or torchrun"
        )
    return state


def score_identity(options: ScoreOptions) -> dict:
    """What decides the scores; `OtherRun` if the folder holds other ones."""
    identity = {
        "model": model_identity(options.model, options.model_revision),
        "data": source_hash(options.data, None),
        "max_length": options.max_length,
        "default_query": datasets.default_query(options.data, options.default_query),
    }
    refuse_other(options.out, written(Path(options.out) / "run.json"), identity)
    return identity


def load_scorer(options: ScoreOptions, device: torch.device) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The signal model, ready to be asked."""
    tokenizer = read_tokenizer(options.model, options.model_revision)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(options.model, revision=options.model_revision, dtype=dtype)
    return tokenizer, model.to(device).eval()


def score(options: ScoreOptions, state: PartialState) -> None:
    """Score all users into scores.jsonl; each process journals its share, the first one puts them together."""
    out = Path(options.out)
    identity = score_identity(options) if state.is_main_process else None
    tokenizer, model = load_scorer(options, state.device)
    letters, start, count = letter_ids(tokenizer), time.monotonic(), 0
    if state.is_main_process:
        write_json(out / "run.json", identity)
    state.wait_for_everyone()
    finished_ids: set[str] = set()
    for part in sorted(out.glob("part-*.jsonl")):
        with Journal(part) as journal:
            finished_ids |= journal.finished()
    state.wait_for_everyone()  # all have read the parts of an earlier run before anyone appends to one
    users = read_behaviours(options.data, options.default_query)
    with Journal(out / f"part-{state.process_index}.jsonl") as journal:
        for record in shared_out(users, finished_ids, state.process_index, state.num_processes):
            stream = tokenise_stream(all_behaviours(record), record.user, tokenizer, options.max_length)
            scores = score_stream(model, stream, letters)
            journal.append(record.id, {"uid": record.user, "scores": scores, "dropped": stream.dropped})
            count += 1
            if count % 200 == 0:
                print(f"[score] {count} users, {(time.monotonic() - start) / count:.3f} s each", flush=True)
    state.wait_for_everyone()
    if state.is_main_process:
        merge_parts(options.data, out, options.default_query)


@dataclass
class Foresight:
    """How many choices a model foresaw, with a 95 % interval; a user's choices depend on each other, so users are what
    is drawn."""

    users: int = 0
    choices: int = 0
    hits: int = 0
    sure_hits: int = 0  # with p > 0.9
    _squares: int = 0  # sums over users of hits², choices², hits·choices
    _sizes: int = 0
    _products: int = 0

    def add(self, scores: list[dict]) -> None:
        """One more user."""
        size, hits = len(scores), sum(entry["p"] > 0.5 for entry in scores)
        self.users += 1
        self.choices += size
        self.hits += hits
        self.sure_hits += sum(entry["p"] > 0.9 for entry in scores)
        self._squares, self._sizes, self._products = (
            self._squares + hits**2,
            self._sizes + size**2,
            self._products + hits * size,
        )

    def row(self) -> dict:
        """Shares in [0, 1]; the interval is that of a ratio of sums over users."""
        share = self.hits / max(1, self.choices)
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
            "surely": self.sure_hits / max(1, self.choices),
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
    counts = foresight.row()
    write_json(output / "foresight.json", counts)
    low, high = (100 * bound for bound in counts["interval"])
    print(
        f"{output}/scores.jsonl: {counts['users']} users, {counts['choices']} choices, "
        f"{100 * counts['foreseen']:.1f} % foreseen [{low:.1f}, {high:.1f}], {100 * counts['surely']:.1f} % surely "
        "(p > 0.9)"
    )


@contextmanager
def processes(cpu: bool) -> Iterator[PartialState]:
    """Those that were launched together, until all are through."""
    disable_progress_bars()
    try:
        yield join_processes(cpu)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def prepare_streams(options: PrepareOptions) -> str | None:
    """Streams → tokenised set for sft.py. --check tokenises them and writes nothing."""
    with processes(cpu=True) as state:
        text = None
        if state.is_main_process:
            tokenizer = read_tokenizer(options.model, options.model_revision)
            query, out = options.default_query, Path(options.out)
            if options.check:
                text = measure(options.data, tokenizer, options.max_length, query)
            else:
                manifest = prepare(options.data, tokenizer, out, options.max_length, query)
                text = f"{report(manifest)}\n{manifest['dropped_behaviours']} of the oldest behaviours dropped"
        state.wait_for_everyone()
    return text


def measure(data: str, tokenizer: PreTrainedTokenizerBase, max_length: int, default_query: str | None) -> str:
    """What `prepare` would write, in words."""
    counts: dict[str, int] = {}
    lengths = [len(ids) for ids, _ in letter_rows(data, tokenizer, max_length, default_query, counts)]
    return (
        f"{len(lengths):,} streams, {sum(lengths):,} tokens; {counts['dropped_behaviours']} of the oldest behaviours "
        "dropped\ncheck: nothing was written"
    )


def score_users(options: ScoreOptions) -> str | None:
    """P(actual choice) of every interaction. --check counts users and those that are done."""
    if options.check:
        return check_scoring(options) if is_first_process() else None
    has_gpu = torch.accelerator.is_available()
    if not has_gpu:
        refuse_unusable_gpu("DEVICE=cpu", needs_cuda=False)
    with ExitStack() as stack:
        state = stack.enter_context(processes(cpu=not has_gpu))
        if state.is_main_process:
            stack.enter_context(RunLock(options.out))
        score(options, state)
    return None


def check_scoring(options: ScoreOptions) -> str:
    """The work that is left, in words; loads the tokenizer and no weights."""
    letter_ids(read_tokenizer(options.model, options.model_revision))
    identity = score_identity(options)
    users = sum(1 for _ in read_behaviours(options.data, options.default_query))
    finished_ids = {row["id"] for part in Path(options.out).glob("part-*.jsonl") for _, row in read_jsonl(part)}
    return f"{users:,} users, {len(finished_ids):,} of them scored, by {identity['model']}\ncheck: nothing was started"
