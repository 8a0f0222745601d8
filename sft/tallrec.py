"""Instruction rows for the TALLRec baseline: will the user like this one item, Yes or No? From the same records as all else.

    python tallrec.py --data train_users.jsonl --output tallrec.jsonl --per_user 2
    bash sft.sh --config configs/tallrec_qwen3_8b.yaml --train_data tallrec.jsonl
    python merge_adapter.py --adapter outputs/tallrec --output outputs/tallrec_merged
    python ../eval/evaluate.py --judge tallrec=outputs/tallrec_merged --judge_format tallrec=yes_no --data ... --out ...

The history is shown with likes and dislikes; each question has one row for the chosen and one for the passed-over item, so
that always saying Yes is right half of the time. Trained with LoRA by sft.py. TALLRec: arXiv 2305.00447.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from streams import all_behaviours, read_behaviours
from transformers import HfArgumentParser

from alignxplore.errors import one_sentence
from alignxplore.prompts import PromptSet
from alignxplore.records import UserRecord, content_hash, write_jsonl
from alignxplore.yes_no import ANSWERS


@dataclass
class TallrecArguments:
    """Options of this script."""

    data: str = field(metadata={"help": "Users, one a line (benchmark contract)."})
    output: str = field(metadata={"help": "JSONL file to write."})
    per_user: int = field(default=1, metadata={"help": "Questions a user: the target, then earlier choices drawn by hash."})
    least_history: int = field(default=3, metadata={"help": "Fewest choices that stand before a question."})
    last: int = field(default=50, metadata={"help": "Choices shown before a question, the newest ones."})
    default_query: str | None = field(
        default=None, metadata={"help": "What stands in for null queries; default: that of the data set which the file is named after."}
    )
    prompt_set: str = field(default="default", metadata={"help": "Prompt set: a name or a folder."})


def questions(record: UserRecord, per_user: int, least_history: int) -> list[int]:
    """Places of the choices that are asked about: the last one, then others by content hash."""
    items = all_behaviours(record)
    able = [i for i in range(least_history, len(items)) if items[i].rejected is not None]
    drawn = sorted(able[:-1], key=lambda i: content_hash(["tallrec", record.user, i]))
    return sorted([*able[-1:], *drawn[: per_user - 1]])


def tallrec_rows(record: UserRecord, prompts: PromptSet, per_user: int, least_history: int, last: int) -> Iterator[dict]:
    """Two rows a question: the chosen item is to be liked, the passed-over one is not."""
    items = all_behaviours(record)
    for place in questions(record, per_user, least_history):
        read, asked = items[max(0, place - last) : place], items[place]
        for item, answer in zip((asked.chosen, asked.rejected), ANSWERS):
            prompt = prompts.render("tallrec", interactions=read, query=asked.query, item=item)
            completion = [{"role": "assistant", "content": answer}]
            yield {"prompt": prompt, "completion": completion, "uid": record.user, "template": prompts.hash("tallrec")}


def main() -> None:
    args = HfArgumentParser(TallrecArguments, description=__doc__.split("\n")[0]).parse_args_into_dataclasses()[0]
    with one_sentence():
        prompts = PromptSet(args.prompt_set)
        users = read_behaviours(args.data, args.default_query)
        rows = (row for user in users for row in tallrec_rows(user, prompts, args.per_user, args.least_history, args.last))
        count = write_jsonl(args.output, rows)
    print(f"{args.output}: {count} rows, half of them {ANSWERS[0]}")


if __name__ == "__main__":
    main()
