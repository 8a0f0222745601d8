"""Instruction rows for the TALLRec baseline (arXiv 2305.00447): will the user like this one item, Yes or No?

Each question has one row for the chosen and one for the passed-over item. `sft/tallrec.py` runs it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass
from functools import partial

from transformers import PreTrainedTokenizerBase

from alignxplore import datasets
from alignxplore.command import option
from alignxplore.errors import at_least_one
from alignxplore.history import HistoryError, fit
from alignxplore.judging.yes_no import ANSWERS, MOST_CHOICES, MOST_TOKENS
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, content_hash, refuse_same_files, write_jsonl
from alignxplore.serving.beforehand import read_tokenizer
from alignxplore.sft.tokenised_set import encode
from alignxplore.synthesis.streams import all_behaviours, read_behaviours


@dataclass(kw_only=True)
class TallrecOptions:
    """Which questions about which users."""

    data: str = option("users, one a line (benchmark contract)")
    out: str = option("JSONL file to write", MISSING, "--output")
    model: str = option("model to be trained (Hub id or folder); its tokenizer counts", "Qwen/Qwen3-8B")
    max_length: int = option(
        "longest row in tokens, that of the training; the oldest choices are left out until a question's rows fit",
        MOST_TOKENS,
    )
    per_user: int = option("questions a user: the target, then earlier choices drawn by hash", 1)
    least_history: int = option("fewest choices that stand before a question", 3)
    last: int = option(
        "most choices shown before a question, the newest ones (evaluation shows the default number)", MOST_CHOICES
    )
    default_query: str | None = option(datasets.DEFAULT_QUERY, None)
    prompt_set: str = option("prompt set: a name or a folder", "default")

    def __post_init__(self) -> None:
        at_least_one(self, "max_length", "per_user", "least_history", "last")


def questions(record: UserRecord, per_user: int, least_history: int) -> list[int]:
    """Places of the choices that are asked about: the last one, then others by content hash."""
    items = all_behaviours(record)
    places = [i for i in range(least_history, len(items)) if items[i].rejected is not None]
    earlier_places = sorted(places[:-1], key=lambda i: content_hash(["tallrec", record.user, i]))
    return sorted([*places[-1:], *earlier_places[: per_user - 1]])


def both_rows(question: Interaction, user: str, prompts: PromptSet, history: Sequence[Interaction]) -> list[dict]:
    """The rows of a question after a history: the chosen item is to be liked, the passed-over one is not."""
    rows = []
    for item, answer in zip((question.chosen, question.rejected), ANSWERS):
        prompt = prompts.render("tallrec", interactions=history, query=question.query, item=item)
        completion = [{"role": "assistant", "content": answer}]
        rows.append({"prompt": prompt, "completion": completion, "uid": user, "template": prompts.hash("tallrec")})
    return rows


def longer(
    ask: Callable[[Sequence[Interaction]], list[dict]],
    tokenizer: PreTrainedTokenizerBase,
    history: Sequence[Interaction],
) -> int:
    """Tokens of the longer of a question's rows after a history, as prepare_dataset.py will count them."""
    return max(len(ids) for ids, _ in encode([(row["uid"], row) for row in ask(history)], tokenizer))


def tallrec_rows(
    record: UserRecord,
    prompts: PromptSet,
    tokenizer: PreTrainedTokenizerBase,
    args: TallrecOptions,
    counts: Counter[str],
) -> Iterator[dict]:
    """Two rows a question, or none where it is too long with the newest choice alone; counts what was left out."""
    items = all_behaviours(record)
    for place in questions(record, args.per_user, args.least_history):
        ask = partial(both_rows, items[place], record.user, prompts)
        try:
            excerpt = fit(items[max(0, place - args.last) : place], partial(longer, ask, tokenizer), args.max_length)
        except HistoryError:
            counts["too long"] += 1
            continue
        counts["cut"] += excerpt.dropped > 0
        counts["choices"] += excerpt.dropped
        yield from ask(excerpt.interactions)


def write_rows(options: TallrecOptions) -> str:
    """Write the rows; says how many, and what was left out."""
    refuse_same_files({"--out": options.out}, {"--data": options.data})
    prompts, tokenizer = PromptSet(options.prompt_set), read_tokenizer(options.model)
    users, counts = read_behaviours(options.data, options.default_query), Counter[str]()
    count = write_jsonl(
        options.out, (row for user in users for row in tallrec_rows(user, prompts, tokenizer, options, counts))
    )
    return (
        f"{options.out}: {count:,} rows, half of them {ANSWERS[0]}; to fit {options.max_length:,} tokens "
        f"{counts['cut']:,} questions lost {counts['choices']:,} of their oldest choices, and "
        f"{counts['too long']:,} too long by themselves were left out"
    )
