"""Instruction rows for the TALLRec baseline: will the user like this one item, Yes or No? From the same records as all
else.

    python tallrec.py --data train_users.jsonl --output tallrec.jsonl --per_user 2
    bash sft.sh --config configs/tallrec_qwen3_8b.yaml --train_data tallrec.jsonl
    python merge_adapter.py --adapter outputs/tallrec --output outputs/tallrec_merged
    python ../eval/evaluate.py --judge tallrec=outputs/tallrec_merged --judge_format tallrec=yes_no --data ... --out ...

The history is shown with likes and dislikes; each question has one row for the chosen and one for the passed-over
item, so that always saying Yes is right half of the time. A history that is too long for training loses its oldest
choices here, where the two rows are still together. Trained with LoRA by sft.py. TALLRec: arXiv 2305.00447.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from transformers import AutoTokenizer, HfArgumentParser, PreTrainedTokenizerBase

from alignxplore.errors import one_sentence
from alignxplore.history import HistoryError, fit
from alignxplore.judging.yes_no import ANSWERS, MOST_CHOICES, MOST_TOKENS
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, content_hash, write_jsonl
from alignxplore.sft.tokenised_set import encode
from alignxplore.synthesis.streams import all_behaviours, read_behaviours


@dataclass
class TallrecArguments:
    """Options of this script."""

    data: str = field(metadata={"help": "Users, one a line (benchmark contract)."})
    output: str = field(metadata={"help": "JSONL file to write."})
    model: str = field(
        default="Qwen/Qwen3-8B", metadata={"help": "Model to be trained (Hub id or folder); its tokenizer counts."}
    )
    max_length: int = field(
        default=MOST_TOKENS,
        metadata={
            "help": "Longest row in tokens, that of the training; the oldest choices are left out until a question's rows fit."
        },
    )
    per_user: int = field(
        default=1, metadata={"help": "Questions a user: the target, then earlier choices drawn by hash."}
    )
    least_history: int = field(default=3, metadata={"help": "Fewest choices that stand before a question."})
    last: int = field(
        default=MOST_CHOICES,
        metadata={
            "help": "Most choices shown before a question, the newest ones (evaluation shows the default number)."
        },
    )
    default_query: str | None = field(
        default=None,
        metadata={
            "help": "What stands in for null queries; default: that of the data set which the file is named after."
        },
    )
    prompt_set: str = field(default="default", metadata={"help": "Prompt set: a name or a folder."})


def questions(record: UserRecord, per_user: int, least_history: int) -> list[int]:
    """Places of the choices that are asked about: the last one, then others by content hash."""
    items = all_behaviours(record)
    able = [i for i in range(least_history, len(items)) if items[i].rejected is not None]
    drawn = sorted(able[:-1], key=lambda i: content_hash(["tallrec", record.user, i]))
    return sorted([*able[-1:], *drawn[: per_user - 1]])


def both_rows(asked: Interaction, user: str, prompts: PromptSet, read: Sequence[Interaction]) -> list[dict]:
    """The rows of a question after the choices `read`: the chosen item is to be liked, the passed-over one is not."""
    rows = []
    for item, answer in zip((asked.chosen, asked.rejected), ANSWERS):
        prompt = prompts.render("tallrec", interactions=read, query=asked.query, item=item)
        completion = [{"role": "assistant", "content": answer}]
        rows.append({"prompt": prompt, "completion": completion, "uid": user, "template": prompts.hash("tallrec")})
    return rows


def longer(
    ask: Callable[[Sequence[Interaction]], list[dict]], tokenizer: PreTrainedTokenizerBase, read: Sequence[Interaction]
) -> int:
    """Tokens of the longer of a question's rows after the choices `read`, as prepare_dataset.py will count them."""
    return max(len(ids) for ids, _ in encode([(row["uid"], row) for row in ask(read)], tokenizer))


def tallrec_rows(
    record: UserRecord,
    prompts: PromptSet,
    tokenizer: PreTrainedTokenizerBase,
    args: TallrecArguments,
    counts: Counter[str],
) -> Iterator[dict]:
    """Two rows a question, or none where it is too long with the newest choice alone; adds to `counts` what was left
    out."""
    items = all_behaviours(record)
    for place in questions(record, args.per_user, args.least_history):
        ask = partial(both_rows, items[place], record.user, prompts)
        try:
            fitted = fit(items[max(0, place - args.last) : place], partial(longer, ask, tokenizer), args.max_length)
        except HistoryError:
            counts["too long"] += 1
            continue
        counts["cut"] += fitted.dropped > 0
        counts["choices"] += fitted.dropped
        yield from ask(fitted.interactions)


def main() -> None:
    args = HfArgumentParser(TallrecArguments, description=__doc__.split("\n")[0]).parse_args_into_dataclasses()[0]
    with one_sentence():
        prompts, tokenizer, counts = PromptSet(args.prompt_set), AutoTokenizer.from_pretrained(args.model), Counter()
        users = read_behaviours(args.data, args.default_query)
        count = write_jsonl(
            args.output, (row for user in users for row in tallrec_rows(user, prompts, tokenizer, args, counts))
        )
    print(
        f"{args.output}: {count:,} rows, half of them {ANSWERS[0]}; to fit {args.max_length:,} tokens {counts['cut']:,} questions lost "
        f"{counts['choices']:,} of their oldest choices, and {counts['too long']:,} too long by themselves were left out"
    )
