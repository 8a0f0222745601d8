"""The output folder of one SFT run: what was asked for, which checkpoint is whole, the log, and whether the run is
finished.

    run.json          settings of the run; another command with other settings is refused
    checkpoint-N/     with COMPLETE, written last, after every process has saved: the only ones a run resumes from; it
                      names the ZeRO stage and the number of processes, as what DeepSpeed saved is cut up by both,
                      and the lengths of the files: a damaged one is named before anything is loaded
    log.jsonl         one line per log step; its seconds of training go on where an interrupted run stopped
    README.md         model card
    summary.json      written last of all: the run is finished; then the optimizer's part of checkpoints is deleted

Used by `sft.py`. Kill it at any moment and run the same command again.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from alignxplore.errors import UserError
from alignxplore.records import read_object, read_steps, write_json, write_text
from alignxplore.same_run import refuse_other, written
from alignxplore.saved_files import damage, sizes_of
from alignxplore.step_log import StepLog

COMPLETE = "COMPLETE"
# What a checkpoint holds for going on besides the model: transformers' and DeepSpeed's names.
OF_THE_OPTIMIZER = ("global_step*", "optimizer.*", "scheduler.*", "rng_state*", "latest", "zero_to_fp32.py")


# What run.json tells of the last command, and another one may change: attention is the same, however it is computed
# (FlashAttention is taken where it is installed).
WITHOUT_EFFECT = ("attn_implementation",)


class RunError(UserError):
    """The output folder holds something else than this run. The message says what and what to do."""


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in WITHOUT_EFFECT}


class RunFolder:
    """The files above. Reading is for every process, writing for the first one."""

    def __init__(self, folder: str | Path):
        self.path = Path(folder)
        self.steps = StepLog(self.path / "log.jsonl")

    def refuse_other(self, settings: dict[str, Any]) -> None:
        """`OtherRun` if the folder holds a run with other settings."""
        old_settings = written(self.path / "run.json")
        if old_settings.get("packing") is False:
            del old_settings["packing"]  # earlier versions, where it changed the rows of a step
        refuse_other(self.path, _deciding(old_settings), _deciding(settings))

    def claim(self, settings: dict[str, Any]) -> None:
        """Record the settings of a new run; refuse a folder whose run has other ones."""
        self.refuse_other(settings)
        write_json(self.path / "run.json", settings)

    def is_of_cpu(self) -> bool:
        """Does the folder hold a run that was begun in 32 bits, as all are on a CPU?"""
        settings = written(self.path / "run.json")
        return bool(settings) and not settings.get("bf16") and not settings.get("fp16")

    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, else None."""
        path = self.path / "summary.json"
        return read_object(path) if path.is_file() else None

    def _checkpoints(self) -> list[tuple[int, Path]]:
        checkpoints = [
            (int(match[1]), path)
            for path in self.path.glob("checkpoint-*")
            if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
        ]
        return sorted(checkpoints)

    def last_complete(self) -> Path | None:
        """The newest checkpoint whose save was finished."""
        return next((path for _, path in reversed(self._checkpoints()) if (path / COMPLETE).is_file()), None)

    def resumable(self, spread: dict[str, int | None]) -> Path | None:
        """The checkpoint that a run so spread (`configuration.spread`) goes on from; None: there is none yet.

        Without DeepSpeed every process saves the same, so that any number of them can go on. A ZeRO checkpoint holds a
        share of the optimizer a process: read in another way it would be left out without a word, or break in
        DeepSpeed.

        Raises:
            RunError: the newest whole checkpoint was saved with another ZeRO stage or number of processes, or is
                damaged.
        """
        checkpoint = self.last_complete()
        saved_spread = _undamaged(checkpoint) or spread if checkpoint else spread
        if saved_spread["zero_stage"] == spread["zero_stage"] and (
            spread["zero_stage"] is None or saved_spread == spread
        ):
            return checkpoint
        raise RunError(
            f"{checkpoint}: saved {in_words(saved_spread)}, and cannot be resumed {in_words(spread)}; give "
            "--deepspeed and the number of processes (NNODES times NPROC of sft.sh) as they were, or choose another "
            "--out"
        )

    def mark_complete(self, step: int, spread: dict[str, int | None]) -> None:
        """Say that checkpoint `step` is whole, how it was spread, and how long its files are. These reach the disk
        before the mark does."""
        folder = self.path / f"checkpoint-{step}"
        for file in folder.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        write_json(folder / COMPLETE, {**spread, "sizes": sizes_of(folder, COMPLETE)})

    def clean(self) -> list[str]:
        """Delete checkpoints torn by a kill and the log lines after the last whole one; returns the names deleted."""
        stumps = [path for _, path in self._checkpoints() if not (path / COMPLETE).is_file()]
        for path in stumps:
            shutil.rmtree(path)
        checkpoint = self.last_complete()
        self.steps.keep_until(int(checkpoint.name.split("-")[1]) if checkpoint else None)
        return [path.name for path in stumps]

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to log.jsonl."""
        self.steps.append(row)

    def seconds(self) -> float:
        """Seconds of training up to the last log line, over all the processes that worked on this run one after
        another."""
        log = self.steps.path
        return max((row["seconds"] for row in read_steps(log, "seconds")), default=0.0) if log.is_file() else 0.0

    def describe(self, summary: dict[str, Any]) -> None:
        """Write the model card."""
        write_text(self.path / "README.md", model_card(summary))

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary that marks the run as finished."""
        write_json(self.path / "summary.json", summary)

    def drop_optimizers(self) -> None:
        """Leave nothing but the model in the checkpoints of a finished run; one that lost its optimizer is no longer
        marked as whole."""
        for _, path in self._checkpoints():
            (path / COMPLETE).unlink(missing_ok=True)
            for name in OF_THE_OPTIMIZER:
                for part in path.glob(name):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()


def _undamaged(checkpoint: Path) -> dict[str, int | None] | None:
    """How a whole checkpoint was spread; None: an earlier version left the mark empty.

    Raises:
        RunError: a file of it is not as long as it was saved; RecordError: the mark is damaged.
    """
    remedy = f"delete {checkpoint.name}: the run goes on from the one before, or from the start"
    path = checkpoint / COMPLETE
    if not path.stat().st_size:
        return None
    mark = read_object(path, "zero_stage", "processes", remedy=remedy)
    if sentence := damage(path, mark.pop("sizes", {}), remedy):
        raise RunError(sentence)
    return mark


def in_words(spread: dict[str, int | None]) -> str:
    """How a run is spread, e.g. "with ZeRO stage 3 on 2 process(es)"."""
    stage = spread["zero_stage"]
    return (
        f"{'without DeepSpeed' if stage is None else f'with ZeRO stage {stage}'} on {spread['processes']} process(es)"
    )


def model_card(summary: dict[str, Any]) -> str:
    """The README.md of the trained model: base, data counts, hyper-parameters, result, versions, commit."""
    settings, data, result = summary["settings"], summary["data"], summary["result"]
    table = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
    packages = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
    adapter = "library_name: peft\n" if settings["peft"] else ""
    exclusions = (
        f"{data['dropped_too_long']:,} rows longer than {settings['max_length']} tokens, "
        f"{data['dropped_control_token']:,} with control tokens in a text"
    )
    targets = "the letters" if data["identity"].get("letters") else "the completions with their end of turn"
    prompts = ", ".join(f"{name} ({rows:,})" for name, rows in data.get("prompt_templates", {}).items()) or "none"
    identity = data["identity"]
    return f"""---
base_model: {settings["model"].split(":")[0].split("@")[0]}
{adapter}tags: [sft, trl, alignxplore]
---
Trained by `sft/sft.py` of AlignXplore+ (commit {summary["commit"] or "unknown"}) from `{settings["model"]}`.

**Data**: {data["rows"]:,} rows, {data["tokens"]:,} tokens, {data["trained_tokens"]:,} of them trained: {targets}.
Dropped: {exclusions}.
Chat template {identity["chat_template"]}, tokenizer {identity["tokenizer"]};
prompt templates (rows of the prepared set): {prompts}.

**Result**: {result["steps"]} steps, last logged loss {result["last_loss"]:.4f},
{result["seconds"]:.0f} s of training on {summary["processes"]} process(es).

| setting | value |
|---|---|
{table}

{packages}
"""
