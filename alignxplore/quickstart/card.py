"""A smoke run of the whole path on one GPU, in some minutes and 40 GB: what `./test.sh --gpu` runs.

    python -m alignxplore.quickstart.card --out runs/gpu               # on a machine with a GPU
    python -m alignxplore.quickstart.card --out runs/rehearsal --rehearse      # the same list on a CPU, tiny

Models are made on the spot. A policy and a judge of a million parameters learn. Speed is measured with a Qwen3 of 0.6B
with random weights (`large.py`). SFT in bf16 under ZeRO, packed and not; two steps of streaming GRPO with FSDP2, vLLM
rollouts and a judge behind vLLM; evaluation. A step that fails is named, and those that need nothing of it go on. The
last line is one JSON object (`card_report.py`), also after Ctrl-C. Run the same command again: what is done is kept.
Exit codes: 0 all done, 1 a step failed, 2 there is no GPU here. It was not yet run on a GPU.
"""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from alignxplore.command import Plain, option, run
from alignxplore.devices import refuse_unusable_gpu
from alignxplore.environment import ROOT
from alignxplore.quickstart.card_report import Card, Watch, report
from alignxplore.quickstart.plan import AT_ONCE, Pipeline, planned_steps
from alignxplore.quickstart.runner import StepError
from alignxplore.quickstart.settings import Settings, taken
from alignxplore.quickstart.stages import World, rl_parquet
from alignxplore.quickstart.start import carry_out
from alignxplore.quickstart.steps import CACHE, Command, Server, Step, command, model_server

NO_GPU = 2  # exit code
PACE = "by the times of a CPU; 8 to 15 minutes on a GPU, not measured"
JUDGE_GB, POLICY_GB = 5.0, 12.0  # of the card's memory, for the judge's vLLM and the one that is asked besides


@dataclass(frozen=True, kw_only=True)
class CardSettings(Settings):
    """On which card; without one the list is rehearsed."""

    card: Card | None = taken()
    flash: bool = taken()

    def share(self, gigabytes: float) -> float:
        """Of the card's memory, as vLLM is told it."""
        return round(gigabytes / self.card.memory_gb, 3) if self.card else 0.0

    def served(self, gigabytes: float) -> tuple[object, ...]:
        """Options of a tiny model's vLLM. Compiling it would take longer than all that it is asked."""
        return ("--gpu-memory-utilization", self.share(gigabytes), "--enforce-eager") if self.card else CACHE

    def here(self, one: Command) -> Command:
        """A command as it is run on this device: `runner.COMMON` says what a CPU needs."""
        if self.card is None:
            return one
        device: list[tuple[str, str | None]] = [("DEVICE", "cuda"), ("CUDA_VISIBLE_DEVICES", self.card.number)]
        device += [("DS_ACCELERATOR", None), ("OMP_NUM_THREADS", "4")]
        return replace(one, environment=(*one.environment, *device))


def flash_attention() -> bool:
    """Whether FlashAttention can be loaded; a build for another torch cannot."""
    try:
        importlib.import_module("flash_attn")
    except ImportError:
        return False
    return True


def find_card() -> Card | None:
    """The first GPU that may be used, or None."""
    number = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    if not number:  # none may be used
        return None
    query = ["nvidia-smi", "-i", number, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, memory = output.partition("\n")[0].rpartition(",")
    return Card(number, name.strip(), float(memory) * 2**20 / 1e9) if name else None


def steps(settings: CardSettings) -> list[Step]:
    """From nothing to the JSON object; seconds are those of the rehearsal."""
    out, data, models = settings.out, settings.out / "data", settings.out / "models"
    world = World(folder=out, seed=1, rl_steps=2, rl_lr="3e-4")
    judge = _judge(settings)
    policies = {"sft": models / "sft", "sft+rl": out / "rl/model"}
    rows, eager = data / "rl_train.parquet", "actor_rollout_ref.rollout.enforce_eager=true"
    served = (f"--serve_arguments={' '.join(map(str, settings.served(POLICY_GB)))}",) if settings.card else ()
    listed = [
        Step("data", 10, [_data(settings)]),
        Step("blank", 8, [_blank(settings)]),
        Step("judge", 45, [_lesson(settings)]),
        Step("sft", 20, [_sft(settings, world)], after=["blank"]),
        Step("rl_data", 5, rl_parquet(data / "rl_train.jsonl", data / "rl_val.jsonl"), after=["data"]),
        Step(
            "rl",
            80,
            [_rl(settings, world, judge, models / "sft", rows, "rl", eager)],
            [judge],
            ["judge", "sft", "rl_data"],
        ),
        Step("summaries", 40, [world.write_summaries(out / "eval", policies, *served)], after=["rl"]),
        Step("scores", 30, [_scores(settings, world, judge, list(policies))], [judge], after=["summaries"]),
        Step("large", 8, [_large(settings)], after=["blank"]),
        Step("large_sft", 20, [_speed(settings, "large_sft", "zero2", packed=False)], after=["large"]),
        Step("large_packed", 20, [_speed(settings, "large_packed", "zero3", packed=True)], after=["large"]),
        Step("large_rl", 80, [_large_rl(settings, world, judge)], [judge], ["judge", "large", "rl_data"]),
    ]
    return [replace(step, commands=[[settings.here(one) for one in row] for row in step.rows]) for step in listed]


def _data(settings: CardSettings) -> Command:
    users = ("--train-users", 64, "--val-users", 8, "--test-users", 24, "--sft-users", 300)
    words = ("python", "-m", "alignxplore.world", "--out", settings.out / "data", "--seed", 1)
    return command(*words, *users, "--judge-rows", 2400, "--reader-rows", 8)


def _blank(settings: CardSettings) -> Command:
    words = ("python", "-m", "alignxplore.world.tiny", "--out", settings.out / "models/blank")
    return command(*words, "--seed", 1)


def _lesson(settings: CardSettings) -> Command:
    out = settings.out
    words = ("python", "-m", "alignxplore.world.lessons", "--base", out / "models/blank")
    return command(*words, "--data", out / "data/judge.jsonl", "--out", out / "models/judge", "--seed", 11)


def _sft(settings: CardSettings, world: World) -> Command:
    """Long enough to write in the right form, which is what RL needs to have something to judge."""
    rows, models = settings.out / "data/sft.jsonl", settings.out / "models"
    bf16 = ("--bf16", "true") if settings.card else ()
    one = world.train_sft(models / "blank", rows, models / "sft", "--max_steps", 60, *bf16)
    return replace(one, environment=())  # the judge learns beside it: a core for each


def _judge(settings: CardSettings) -> Server:
    """vLLM's server of the judge, with its part of the card."""
    server = model_server(settings.out, "judge", settings.out / "models/judge", settings.served(JUDGE_GB))
    return replace(server, command=settings.here(server.command))


def _rl(
    settings: CardSettings, world: World, judge: Server, model: Path, rows: Path, out: str, *more: str, **sizes: object
) -> Command:
    """Two steps: on a GPU with the settings of PRESET=solo, and limits that stop nothing, since they are measured."""
    chosen: dict[str, object] = {"BATCH": 4, "MINI_BATCH": 4, "TEST_EVERY": 2, "SAVE_EVERY": 2, "LOGGER": "[console]"}
    options: list[str] = ["trainer.val_before_train=false", *more]
    if settings.card:
        chosen |= {"PRESET": "solo", "GPU_MEMORY": settings.share(POLICY_GB), "WORKERS": 1}
        chosen |= {"PROMPT_LENGTH": 768, "RESPONSE_LENGTH": 128}
        options += ["streaming.tolerance.bfloat16.mean=2", "streaming.tolerance.bfloat16.group=2"]
        if not settings.flash:
            options += ["+actor_rollout_ref.model.override_config.attn_implementation=sdpa"]
            options += ["actor_rollout_ref.model.use_remove_padding=false"]
    return world.train_rl(judge, model, rows, settings.out / out, *options, **chosen | sizes)


def _large_rl(settings: CardSettings, world: World, judge: Server) -> Command:
    """Random weights write to the last token and earn nothing: steps of a known size, for the speed alone."""
    sizes = {"BATCH": 16, "MINI_BATCH": 16, "PROMPT_LENGTH": 3072, "RESPONSE_LENGTH": 1024} if settings.card else {}
    rows = settings.out / "data/rl_train.parquet"
    # Their weights are no policy to go on from; all of it would be 10 GB.
    return _rl(settings, world, judge, settings.out / "models/large", rows, "large_rl", **sizes, LR="1e-6")


def _scores(settings: CardSettings, world: World, judge: Server, policies: list[str]) -> Command:
    """Their judgements by the judge that gave the rewards: this looks whether it runs, not whether it is true."""
    sizes = ("--concurrency", 64, "--max_error_rate", 0)
    words = ("python", "eval/evaluate.py", "--out", settings.out / "eval", "--data", world.benchmark)
    target = f"{judge.name}={judge.url}#{settings.out / 'models/judge'}"
    return command(*words, *world.scoring, *sizes, "--judge", target, "--policies", *policies)


def _large(settings: CardSettings) -> Command:
    words = ("python", "-m", "alignxplore.quickstart.large", "--tokenizer", settings.out / "models/blank")
    where = ("--out", settings.out / "models/large", "--rows", settings.out / "data/long.jsonl")
    return command(*words, *where, *(() if settings.card else ("--tiny", "--count", 8, "--length", 256)))


def _speed(settings: CardSettings, name: str, zero: str, *, packed: bool) -> Command:
    """SFT of the large model under ZeRO. Its weights are of no use and are written once."""
    words = ("bash", "sft/sft.sh", "--config", "sft/configs/tiny.yaml", "--deepspeed", f"sft/configs/{zero}.json")
    models = settings.out / "models"
    where = ("--model_name_or_path", models / "large", "--train_data", settings.out / "data/long.jsonl")
    much = ("--effective_batch_size", 16, "--per_device_train_batch_size", 4, "--gradient_checkpointing", "true")
    size: tuple[object, ...] = (
        (*much, "--packed_tokens", 8192, "--max_steps", 12) if settings.card else ("--max_steps", 2)
    )
    more: tuple[object, ...] = (
        "--packing",
        str(packed).lower(),
        "--logging_steps",
        1,
        "--save_strategy",
        "no",
        "--seed",
        1,
    )
    if settings.card:
        more += ("--bf16", "true")
        more += () if settings.flash else ("--attn_implementation", "sdpa")
    return command(*words, *where, "--output_dir", models / name, *size, *more, NPROC=1)


@dataclass(kw_only=True)
class CardOptions(Plain):
    """Where, and on what."""

    out: str = option("where everything goes; default: runs/gpu, or runs/rehearsal", "")
    rehearse: bool = option("the same list on a CPU, with tiny models: all but the card is tried", False)
    check: bool = option("print the steps, which are done and how long the others take; start nothing", False)


def smoke(options: CardOptions) -> str | None:
    """Run the list, then print the JSON object; says so where there is no GPU."""
    card = None if options.rehearse else find_card()
    if card is None and not options.rehearse:
        print(
            "there is no GPU here (nvidia-smi names none), so nothing was run; --rehearse runs the same steps on a "
            "CPU",
            file=sys.stderr,
        )
        sys.exit(NO_GPU)
    if card:
        refuse_unusable_gpu("--rehearse: the same steps on a CPU")
    out = Path(options.out or ROOT / "runs" / ("rehearsal" if options.rehearse else "gpu")).resolve()
    settings = CardSettings(out=out, card=card, flash=card is not None and flash_attention())
    pipeline = replace(Pipeline.of(settings, steps(settings)), keep_going=True)
    if card:
        pipeline = replace(pipeline, pace=PACE)
    at_once = 1 if card else AT_ONCE  # two on one card would not fit, and each would slow the other
    if options.check:
        return planned_steps(pipeline, at_once)
    if card and not settings.flash:
        print("FlashAttention cannot be loaded: training is tried with SDPA, RL with padding; both are slower")
    failed: dict[str, str] = {}
    exit_code: str | int | None = 0
    with Watch(card) as watch:
        try:
            print(carry_out(pipeline, at_once=at_once))
        except StepError as error:
            failed, exit_code = error.steps, 1
            print(error, file=sys.stderr, flush=True)
        except SystemExit as end:  # interrupted
            exit_code = end.code
    print(json.dumps(report(settings.out, card, settings.flash, pipeline.steps, failed, watch.peak_gb)), flush=True)
    if exit_code:
        sys.exit(exit_code)
    return None


if __name__ == "__main__":
    run(smoke, CardOptions, __doc__)
