"""What a run plans, and how it says so: passes, steps, saves, memory and time. Used by `training.py`."""

import math
import os
from collections.abc import Sequence

from trl import ModelConfig

from alignxplore.sft.batches import StepSampler, passes_needed
from alignxplore.sft.configuration import TrainArguments
from alignxplore.sft.memory import memory_of, most_tokens, skeleton
from alignxplore.sft.run_folder import RunError
from alignxplore.sft.speed import CARDS, flop_of_rows

SHARE = 0.4  # of a card's arithmetic that a well-filled run may use
FAR = 0.1  # share by which planned and published steps may differ before that is a warning


def say(*words: object) -> None:
    """Print from the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print("[sft]", *words, flush=True)


def plan_passes(args: TrainArguments, lengths: Sequence[int]) -> None:
    """With packing: settle in how many passes each step goes through its rows, whose lengths these are in tokens."""
    if not args.packing:
        return
    sampler = StepSampler(lengths, args.effective_batch_size, args.order_seed, longest_first=args.longest_first)
    total = steps_of(args, len(lengths))[1]
    args.accumulate(passes_needed(sampler, total, args.world_size, args.packed_tokens or args.max_length))


def batch_in_words(args: TrainArguments) -> str:
    """How the rows of an optimizer step are spread."""
    if args.packing:
        return (
            f"{args.effective_batch_size} rows a step, packed = {args.gradient_accumulation_steps} passes of at most "
            f"{args.packed_tokens or args.max_length:,} tokens x {args.world_size} process(es)"
        )
    return (
        f"{args.effective_batch_size} rows a step = {args.per_device_train_batch_size} rows x "
        f"{args.gradient_accumulation_steps} accumulated x {args.world_size} process(es)"
    )


def reckoned_in_words(args: TrainArguments) -> str:
    """For which machine --check reckons where there is no GPU."""
    return (
        f"there is no GPU here: reckoned for {args.world_size} process(es) of a GPU each, "
        f"{'with packed rows (FlashAttention)' if args.packing else 'without packing'}; NPROC (GPUs of a node) and "
        "NNODES of sft.sh change that"
    )


def evaluations_in_words(args: TrainArguments) -> str:
    """When held-out rows are evaluated."""
    return f"every {args.eval_steps:g} steps" if args.eval_strategy == "steps" else "after each epoch"


def saves_in_words(args: TrainArguments) -> str:
    """When checkpoints are written."""
    by_strategy = {"steps": f"every {args.save_steps:g} steps, ", "no": ""}
    by_time = f"every {args.save_minutes:g} minutes, " if args.save_minutes is not None else ""
    return f"{by_strategy.get(args.save_strategy.value, f'by {args.save_strategy.value}, ')}{by_time}on SIGTERM"


def steps_of(args: TrainArguments, rows: int) -> tuple[int, int]:
    """Optimizer steps (of an epoch, in all). RunError where the rows are fewer than one step."""
    if not (steps := rows // args.effective_batch_size):
        raise RunError(
            f"{rows} rows are fewer than one optimizer step ({args.effective_batch_size} rows); lower "
            "effective_batch_size"
        )
    return steps, args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps)


def steps_in_words(args: TrainArguments, manifest: dict) -> str:
    """Optimizer steps an epoch and in all."""
    steps, total = steps_of(args, manifest["rows"])
    return f"{steps:,} steps an epoch, {total:,} in all"


def compare_steps(args: TrainArguments, manifest: dict, published_steps: int | None) -> None:
    """Say the planned steps beside those of the published run, and warn where they differ by more than a tenth."""
    if not published_steps:
        return
    _, total = steps_of(args, manifest["rows"])
    sentence = f"{total:,} steps are planned; the published run's last checkpoint is {published_steps:,}"
    if abs(total - published_steps) > FAR * published_steps:
        sentence = (
            f"warning: {sentence}: another number of rows, of rows a step ({args.effective_batch_size}; the published "
            "number of GPUs is not known) or of epochs"
        )
    say(sentence)


def say_arithmetic(args: TrainArguments, model: ModelConfig, lengths: Sequence[int], trained_tokens: int) -> None:
    """Memory and time of a run over rows of these lengths."""
    network, tokens = skeleton(args, model), most_tokens(args, max(lengths))
    say(memory_of(network, args, model, tokens).words(tokens))
    steps, total = steps_of(args, len(lengths))
    flop = flop_of_rows(network, lengths, trained_tokens) * total / steps
    hours = flop / (SHARE * args.world_size * 1e12 * CARDS["H100"]) / 3600
    say(f"time, by arithmetic: {flop:.1e} FLOP, {hours:,.1f} hours at {SHARE:.0%} of {args.world_size} H100")
