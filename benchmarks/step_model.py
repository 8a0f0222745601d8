"""Where the time of an RL step goes, by arithmetic, and what asynchronous training would gain: on 1, 8, 64, 512 GPUs.

    python benchmarks/step_model.py                                     # the preset `paper`, on H100s
    python benchmarks/step_model.py --card A100 --fsdp_size 8           # other cards; weights gathered inside a node
    python benchmarks/step_model.py --model Qwen3-1.7B --users 64 --gpus 1 8
    python benchmarks/step_model.py --measured ../runs/quickstart/rl/metrics.jsonl   # how well it foretells CPU steps

Nothing here is measured but what `--measured` reads. Every assumption is an option, printed with the table;
alignxplore/rl/step_model.py says how they are put together. Columns, in seconds: `write`, and of it the `tail` in
which an engine holds less than half of what it could; `judge`, what judging adds to writing; `train` (old
probabilities and updates), and of it waiting for `traffic` and for the `slowest` rank; `serial`, in which all GPUs
wait (weights to the engines, the driver's one thread).

Modes: `sync` as this repository trains; `partial` keeps unfinished summaries for the next step, so that no tail is
waited for; `separate` gives some GPUs to writing and the others to training, at the same time, by the best split. The
last line is JSON.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import UserError, above_zero, at_least_one, not_negative, shares, shares_above_zero
from alignxplore.rl.step_model import CARDS, MODELS, MODES, Assumptions, Step, step

GOAL = 1.3  # seconds of a synchronous step against the best asynchronous one, on 64 GPUs


@dataclass(kw_only=True)
class StepOptions(Assumptions, Checkable):
    """Machines, and all that is assumed."""

    gpus: list[int] = option("numbers of GPUs", [1, 8, 64, 512])
    measured: list[str] = option("metrics.jsonl of runs on a CPU: foretell their second half from the first", [])

    def __post_init__(self) -> None:
        if min(self.gpus, default=0) < 1:
            raise ValueError(f"--gpus {min(self.gpus, default='')}: numbers of at least 1")
        at_least_one(self, "users", "stages", "rollouts", "updates", "prompt", "answer", "question")
        at_least_one(self, "longest_prompt", "longest_answer", "tp", "sequences", "tokens_per_gpu", "driver_tensors")
        shares_above_zero(self, "gpu_memory", "training_share", "reading_share", "writing_share", "network_share")
        shares(self, "overlap")
        above_zero(self, "between_nodes", "driver")
        not_negative(self, "judge_gpus", "fsdp_size", "spread", "decode_overhead", "transfer")


HEADINGS = ("GPUs", "mode", "write", "tail", "judge", "train", "traffic", "slowest", "serial", "step s", "GPU-h")


def table(options: StepOptions, steps: Sequence[Step]) -> str:
    """Seconds; of `write` the tail, of `train` traffic and waiting for the slowest rank."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    for x in steps:
        if x.reason:
            lines.append((str(x.gpus), x.mode, x.reason, *[""] * 8))
            continue
        parts = (x.write, x.tail, x.judge, x.train, x.traffic, x.imbalance, x.serial, x.total)
        hours = f"{x.gpu_hours(options.users):.1f}"
        lines.append((str(x.gpus), x.mode, *(f"{seconds:.0f}" for seconds in parts), hours))
    return "\n".join(
        f"{line[0]:>5} {line[1]:<20} " + (line[2] if not line[3] else " ".join(f"{cell:>8}" for cell in line[2:]))
        for line in lines
    )


def assumptions(options: StepOptions) -> str:
    """Every figure that the table rests on."""
    card = CARDS[options.card]
    values = {**asdict(options), **{f"{options.card} {name}": value for name, value in asdict(card).items()}}
    exclusions = ("gpus", "measured", "check")
    return "\n".join(f"  {name:18} {value:g}" if isinstance(value, float) else f"  {name:18} {value}"
                     for name, value in values.items() if name not in exclusions)  # fmt: skip


# Parts of a measured step, and what the model says that each grows with.
PARTS = {
    "timing_s/gen": "longest answers of the stages, in tokens",
    "timing_s/old_log_prob": "tokens of all rows",
    "timing_s/update_actor": "tokens of all rows",
}


def foretell(path: Path) -> str:
    """One run on a CPU: seconds of each part's second half by a rate from the first half; the middle error in %."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        steps = [row for row in rows if "timing_s/gen" in row]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}; it must be the metrics.jsonl of an RL run") from None
    if len(steps) < 4:
        raise UserError(f"{path}: {len(steps)} steps with timings; at least 4 are needed")
    lines, half = [f"{path}: {len(steps)} steps"], len(steps) // 2
    for part, grows_with in PARTS.items():
        size = "response_length/max" if part == "timing_s/gen" else "perf/total_num_tokens"
        rate = statistics.median(row[part] / row[size] for row in steps[:half])
        errors = [abs(rate * row[size] / row[part] - 1) for row in steps[half:]]
        lines.append(f"  {part:22} {rate:.3g} s each of {grows_with}: {100 * statistics.median(errors):.0f} % off")
    ratio = statistics.median(row["timing_s/update_actor"] / row["timing_s/old_log_prob"] for row in steps)
    lines.append(
        f"  an update takes {ratio:.2f} times the old probabilities; by operations 3 (4 where layers are recomputed)"
    )
    return "\n".join(lines)


def checked(options: StepOptions) -> None:
    """Raise `UserError` at the first option that cannot be meant."""
    for name, choices in (("card", CARDS), ("model", MODELS), ("judge", MODELS)):
        if getattr(options, name) not in choices:
            raise UserError(f"--{name} {getattr(options, name)}: one of {', '.join(choices)}")
    if options.balance not in ("update", "step"):
        raise UserError(f"--balance {options.balance}: update or step")
    if options.longest_prompt + options.longest_answer > options.tokens_per_gpu:
        raise UserError(f"--tokens_per_gpu {options.tokens_per_gpu} does not hold one longest row")
    if min(options.gpus, default=0) < 1 or options.updates < 1 or options.users < options.updates:
        raise UserError("--gpus, --users and --updates: at least one GPU, one update, and as many users as updates")


def model_steps(options: StepOptions) -> str | None:
    """The table, or what `--measured` runs say."""
    checked(options)
    if options.check:
        return planned(options)
    if options.measured:
        return "\n".join(foretell(Path(path)) for path in options.measured)
    print(f"assumed or taken from data sheets, nothing of it measured:\n{assumptions(options)}\n")
    steps = [step(options, gpus, mode) for gpus in options.gpus for mode in MODES]
    print(table(options, steps))
    feasible = [x for x in steps if not x.reason]
    if not feasible:
        return "on none of these does it fit"
    gpus = 64 if any(x.gpus == 64 for x in feasible) else feasible[-1].gpus
    steps_of_gpus = [x for x in feasible if x.gpus == gpus]
    sync, fastest = steps_of_gpus[0], min(steps_of_gpus, key=lambda x: x.total)
    print(
        json.dumps(
            {
                "name": "step_model",
                "ratio": round(sync.total / fastest.total, 2),
                "goal": GOAL,
                "ours": round(sync.total, 1),
                "theirs": round(fastest.total, 1),
                "unit": f"seconds a step on {gpus} {options.card}, by arithmetic: synchronous, {fastest.mode}",
                "n": options.users,
            }
        )
    )
    return None


if __name__ == "__main__":
    run(model_steps, StepOptions, __doc__)
