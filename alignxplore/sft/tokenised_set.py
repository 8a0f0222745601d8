"""SFT rows → a tokenised data set on disk, ready for `sft.py`; `sft/prepare_dataset.py` runs it.

A row is {"prompt": [messages], "completion": [messages]}. The folder (`datasets.save_to_disk`) has two columns,
`input_ids` and `labels` (-100 where nothing is learnt), and `manifest.json`, written last.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.compute as arrow
from datasets import Dataset, disable_progress_bars, load_from_disk
from transformers import PreTrainedTokenizerBase

from alignxplore.benchmark_files import user_of
from alignxplore.command import Checkable, option
from alignxplore.environment import portable
from alignxplore.errors import at_least_one, not_negative
from alignxplore.records import RecordError, content_hash, in_files, read_object, read_source
from alignxplore.serving.beforehand import read_tokenizer
from alignxplore.serving.fingerprints import tokenizer_fingerprint
from alignxplore.sft.reading import show
from alignxplore.sft.splits import Side
from alignxplore.sft.stored_set import MANIFEST, PrepareError, sizes, write_set

FORMAT = 1  # raise it when the meaning of the stored columns changes
Sources = list[tuple[str, dict]]  # (place for messages, row)


@dataclass(kw_only=True)
class PrepareOptions(Checkable):
    """Which rows, for which model."""

    data: list[str] = option(
        "rows: one or more JSONL files or Hub data sets with columns prompt and completion",
        ["VanillaH1/AlignXplorePlus-SFT"],
    )
    data_revision: str | None = option("revision of the Hub data set", None)
    model: str = option("model to be trained (Hub id or folder); its tokenizer is used", "Qwen/Qwen3-8B")
    model_revision: str | None = option("revision of the Hub model", None)
    out: str = option("folder to write", "tokenized_dataset", "--output")
    max_length: int = option("longest sequence in tokens; longer rows are dropped and counted", 16384)
    held_out: float = option(
        "share of persons whose rows go into OUT_held_out, for --eval_data; rows of no user are split by prompt",
        0.0,
    )
    show: int = option("print so many rows as the model reads them, what is trained between ⟦ and ⟧", 0)

    def __post_init__(self) -> None:
        at_least_one(self, "max_length")
        not_negative(self, "show")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"--held_out {self.held_out}: a share of persons, from 0 to below 1")


def check_messages(row: dict, place: str) -> None:
    """Raise RecordError unless the row has a prompt and a completion made of chat messages."""
    for name in ("prompt", "completion"):
        messages = row.get(name)
        if not isinstance(messages, list) or not messages:
            raise RecordError("expected a non-empty list of chat messages", place, field=name)
        for i, message in enumerate(messages):
            if not isinstance(message, dict) or not all(
                isinstance(message.get(key), str) for key in ("role", "content")
            ):
                raise RecordError(
                    "expected an object with the texts 'role' and 'content'", place, field=f"{name}[{i}]"
                )
            if message.get("tool_calls") or message.get("function_call"):
                problem = (
                    "a tool call, of which nothing but an empty turn would be left; write it as text or drop the row"
                )
                raise RecordError(problem, place, field=f"{name}[{i}]")
    if len(row["completion"]) > 1:
        problem = (
            f"{len(row['completion'])} messages, and one answer is trained on; put the earlier ones into the prompt"
        )
        raise RecordError(problem, place, field="completion")
    if row["completion"][-1]["role"] != "assistant" or not row["completion"][-1]["content"].strip():
        raise RecordError("the last message must be the assistant's and hold text", place, field="completion")


def read_rows(source: str, revision: str | None = None) -> Iterator[tuple[str, dict]]:
    """Yield (place, row) of a JSONL file, or of the train split of a Hub data set, one row in memory at a time."""
    yield from ((f"{source}:{number}", row) for number, row in read_source(source, revision))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _templated(row: tuple[str, dict], tokenizer: PreTrainedTokenizerBase, *parts: str, opens: bool) -> str:
    """The messages of some parts of a row as one text; `opens` the assistant's turn at its end."""
    messages = [message for part in parts for message in row[1][part]]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens)
    except Exception as error:  # a template is a program of somebody else's
        roles = ", ".join(message["role"] for message in messages)
        raise PrepareError(
            f"{row[0]}: the chat template refuses messages of {roles} ({error}); take another model, or rows without "
            "the role that it does not know"
        ) from None


def encode(rows: Sources, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[list[int], list[int]]]:
    """Rows → (input_ids, labels), with the label mask proved for each row.

    The templated prompt must be a prefix of the templated whole, as text and as tokens; what follows it must hold the
    completion's text and the end-of-turn token. Otherwise training would start or stop at the wrong token:
    PrepareError.
    """
    prompts = [_templated(row, tokenizer, "prompt", opens=True) for row in rows]
    texts = [_templated(row, tokenizer, "prompt", "completion", opens=False) for row in rows]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    text_ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    for (place, row), prompt, text, start, ids in zip(rows, prompts, texts, prompt_ids, text_ids):
        is_prefix = text.startswith(prompt) and ids[: len(start)] == start
        is_whole = _squeezed(row["completion"][-1]["content"]) in _squeezed(text[len(prompt) :])
        if prompt.rstrip().endswith("<think>") and not (is_prefix and is_whole):
            raise PrepareError(
                f"{place}: the chat template opens the reasoning itself, and so does the completion; take a "
                "model whose template does not (Qwen3-8B)"
            )
        if not is_prefix:
            raise PrepareError(
                f"{place}: the templated prompt is not the beginning of prompt + completion, so the model would not "
                "be trained from where it will have to write; use a chat template that keeps earlier turns as they are"
            )
        completion_ids = ids[len(start) :]
        if not is_whole:
            raise PrepareError(
                f"{place}: the chat template changes the completion's text; check that reasoning stands in one "
                "<think>...</think> at its beginning"
            )
        if tokenizer.eos_token_id not in completion_ids[-2:]:
            raise PrepareError(
                f"{place}: the completion does not end with the end-of-turn token {tokenizer.eos_token!r} of the "
                "tokenizer, so the model would not learn to stop; set eos_token to what the chat template writes"
            )
        yield ids, [-100] * len(start) + completion_ids


def source_hash(source: str, revision: str | None) -> str:
    """Content hash of a file; name and revision of a Hub data set."""
    if not Path(source).is_file():
        return content_hash([source, revision])
    with open(source, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def tokenised_rows(
    sources: list[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    revision: str | None,
    counts: dict[str, Any],
    side: Side | None = None,
) -> Iterator[tuple[list[int], list[int]]]:
    """(input_ids, labels) of the rows of all sources that fit; fills `counts` on the way. Memory is flat in the rows
    but for a hash of each, by which repeated ones are counted."""
    control = set(tokenizer.all_special_tokens) - {"<think>", "</think>"}
    templates: Counter[str] = Counter()
    row_hashes: set[int] = set()  # eight bytes a row
    counts |= {"dropped_too_long": 0, "dropped_control_token": 0, "longest": 0, "prompt_templates": templates}
    counts |= {"without_reasoning": 0, "repeated": 0, "without_user": 0}
    rows_of_others = 0

    def usable() -> Iterator[tuple[str, dict]]:
        nonlocal rows_of_others
        for source in sources:
            for place, row in read_rows(source, revision):
                check_messages(row, place)
                if side and not side.holds(row):
                    rows_of_others += 1
                    continue
                if any(
                    token in message["content"] for message in row["prompt"] + row["completion"] for token in control
                ):
                    counts["dropped_control_token"] += 1  # text that would turn into an end of turn inside a turn
                    continue
                yield place, row

    source_rows = usable()
    while rows := list(islice(source_rows, 256)):
        for (_, row), (ids, labels) in zip(rows, encode(rows, tokenizer)):
            counts["longest"] = max(counts["longest"], len(ids))
            if len(ids) > max_length:
                counts["dropped_too_long"] += 1
                continue
            templates[str(row.get("template", "not recorded"))] += 1
            counts["without_reasoning"] += "</think>" not in row["completion"][-1]["content"]
            counts["without_user"] += user_of(row) is None
            counts["repeated"] += (content := int(content_hash([row["prompt"], row["completion"]]), 16)) in row_hashes
            row_hashes.add(content)
            yield ids, labels
    if side and rows_of_others and not templates and not counts["dropped_too_long"] + counts["dropped_control_token"]:
        raise PrepareError(f"{', '.join(sources)}: {side.nobody(rows_of_others)}")
    if not templates and not counts["dropped_too_long"] + counts["dropped_control_token"]:
        raise PrepareError(f"{', '.join(sources)}: no row in it; a row is an object with 'prompt' and 'completion'")
    if not templates:
        raise PrepareError(
            f"{', '.join(sources)}: no row is left ({counts['dropped_too_long']} too long, "
            f"{counts['dropped_control_token']} with control tokens); raise --max_length (longest row: "
            f"{counts['longest']} tokens)"
        )


def set_identity(
    sources: list[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    revision: str | None,
    side: Side | None = None,
) -> dict[str, Any]:
    """What decides the content of a set; PrepareError for a tokenizer that cannot write chat messages."""
    if tokenizer.chat_template is None:
        raise PrepareError(
            "the tokenizer has no chat template; rows are chat messages, so use an instruction-tuned model's tokenizer"
        )
    return {
        "format": FORMAT,
        "max_length": max_length,
        **tokenizer_fingerprint(tokenizer),
        "sources": [source_hash(source, revision) for source in sources],
        **({"side": side.identity} if side else {}),
    }


def prepare(
    sources: list[str],
    tokenizer: PreTrainedTokenizerBase,
    output: str | Path,
    max_length: int,
    revision: str | None = None,
    side: Side | None = None,
) -> dict[str, Any]:
    """Tokenise `sources`, or one side of them, into the folder `output` and return its manifest; a finished set of the
    same content is kept."""
    identity, counts = set_identity(sources, tokenizer, max_length, revision, side), dict[str, Any]()
    rows = tokenised_rows(sources, tokenizer, max_length, revision, counts, side)
    about = {"sources": portable(sources), "tokenizer_name": portable(tokenizer.name_or_path)}
    return write_set(output, identity, about, rows, counts)


def measure(
    sources: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int, revision: str | None = None
) -> tuple[dict[str, Any], list[int]]:
    """The manifest that `prepare` would write and the rows' lengths in tokens, with every row proved and nothing
    written."""
    identity, counts = set_identity(sources, tokenizer, max_length, revision), dict[str, Any]()
    lengths, trained_tokens = list[int](), 0
    for ids, labels in tokenised_rows(sources, tokenizer, max_length, revision, counts):
        lengths.append(len(ids))
        trained_tokens += sum(label != -100 for label in labels)
    return {"identity": identity, **sizes(lengths, trained_tokens), **counts}, lengths


def on_hub(source: str) -> bool:
    """Is it read from the Hub (`records.read_source`), and not from a file here?"""
    return not in_files(source)


def load_prepared(folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, dict[str, Any]]:
    """A prepared set and its manifest; PrepareError when it is unfinished or made with another tokenizer or
    template."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise PrepareError(
            f"{folder}: no {MANIFEST}, so this is no finished tokenised set; run prepare_dataset.py again"
        )
    manifest = read_object(path, "identity", "tokenizer_name", remedy="run prepare_dataset.py again")
    for part, value in tokenizer_fingerprint(tokenizer).items():
        if manifest["identity"][part] != value:
            raise PrepareError(
                f"{folder}: prepared with another {part.replace('_', ' ')} ({manifest['identity'][part]}, that of "
                f"'{manifest['tokenizer_name']}') than that of '{tokenizer.name_or_path}' ({value}); run "
                f"prepare_dataset.py --model {tokenizer.name_or_path} again"
            )
    return load_from_disk(str(folder)), manifest


def row_lengths(rows: Dataset) -> list[int]:
    """Tokens of each row. None of them is read, also where `rows` are chosen ones: the table knows where rows end."""
    lengths_N = arrow.list_value_length(rows.data["input_ids"]).to_numpy()
    return (lengths_N if rows._indices is None else lengths_N[rows._indices.column(0).to_numpy()]).tolist()


def report(manifest: dict[str, Any]) -> str:
    """The counts and the histogram of lengths as text."""
    total, side = manifest["rows"], manifest["identity"].get("side")
    text = (
        f"{total:,} rows, {manifest['tokens']:,} tokens, {manifest['trained_tokens']:,} of them trained; dropped "
        f"{manifest['dropped_too_long']:,} longer than {manifest['identity']['max_length']:,} tokens (longest row: "
        f"{manifest['longest']:,}), {manifest['dropped_control_token']:,} with control tokens in a text"
    )
    notes = [
        f"of these {count:,} {remark}"
        for remark, count in (
            ("have no </think>: the model learns to answer without reasoning", manifest.get("without_reasoning", 0)),
            ("repeat an earlier row word for word", manifest.get("repeated", 0)),
            ("name no user (userid or uid) and were split by prompt", manifest["without_user"] if side else 0),
        )
        if count
    ]
    bars = [
        f"  {name:>13} tokens {count:>9,}  {'#' * round(50 * count / total)}"
        for name, count in manifest["lengths"].items()
    ]
    return "\n".join([text, *notes, *bars])


def prepare_dataset(options: PrepareOptions) -> str:
    """Prepare, or with --check only measure what is here; returns the report."""
    disable_progress_bars()
    tokenizer = read_tokenizer(options.model, options.model_revision)
    if not options.check:
        arguments = (options.data, tokenizer, options.out, options.max_length, options.data_revision)
        manifest = prepare(*arguments, Side(options.held_out, False) if options.held_out else None)
        dataset = load_from_disk(options.out)
        rows = [(row["input_ids"], row["labels"]) for row in islice(dataset, options.show)]
        notes = [f"{options.out}: ready for sft.py --train_data {options.out}"]
        if options.held_out:
            side_folder = f"{options.out.rstrip('/')}_held_out"
            side_manifest = prepare(*arguments[:2], side_folder, *arguments[3:], Side(options.held_out, True))
            notes.append(
                f"{side_folder}: {side_manifest['rows']:,} rows of other persons, for --eval_data {side_folder}"
            )
        return "\n".join([*show(rows, tokenizer), report(manifest), *notes])
    lines = [f"{source}: on the Hub, read when it is prepared" for source in options.data if on_hub(source)]
    if local_sources := [source for source in options.data if not on_hub(source)]:
        head = islice(tokenised_rows(local_sources, tokenizer, options.max_length, None, {}), options.show)
        lines += show(head, tokenizer)
        lines.append(report(measure(local_sources, tokenizer, options.max_length)[0]))
    return "\n".join([*lines, f"check: {options.out} would be written; nothing was"])
