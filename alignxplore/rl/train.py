"""Starts a streaming GRPO run, watches it, and leaves a plain model. Called by
verl/examples/grpo_trainer/run_streaming_8p.sh:

    python -m alignxplore.rl.train --config-path $PWD/verl/config --config-name streaming streaming.out=OUT key=value

Before Ray starts, the configuration is validated (by verl's own checks too), the data is looked at and the judges are
asked a few questions. While it runs the console shows one line a step; all that verl, Ray and vLLM print goes to
OUT/log/train.log. The same command continues after the last complete checkpoint, and does nothing once the run is
finished. Exit codes: 0 finished, 1 cannot start or crashed, 3 stopped with a reason (lost rollouts, broken weight
sync, ...).
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from alignxplore.command import check_encoding
from alignxplore.environment import say_problems
from alignxplore.errors import SAID, ended_by, in_a_sentence, naming, of_the_disk, one_sentence
from alignxplore.journal import RunLock
from alignxplore.prompts import PromptSet
from alignxplore.records import read_object, write_json
from alignxplore.rl.checkpoints import POINTER, mend_pointer, newest_step, publish_model, refuse_damaged
from alignxplore.rl.checks import (
    check_attention,
    check_data,
    check_judges,
    check_model,
    check_settings,
    check_what_is_there,
    missing_keys,
    not_there,
    planned_steps,
    prepare,
)
from alignxplore.rl.cluster import ray_of_its_own
from alignxplore.rl.memory import memory
from alignxplore.rl.reward import named_paths
from alignxplore.rl.same_run import fixed_settings, same_gpus, same_run, served_by_judges
from alignxplore.rl.settings import STOP, RunStopped, SettingsError, Streaming, register_defaults
from alignxplore.serving.endpoint import CONNECT_PATIENCE, TransportError

FINISHED_PATIENCE = 1.0  # seconds: a finished run needs its judges no more
# By the variables that set them; empty, each would be the current folder, or nothing at all.
PATHS = {
    " (OUT)": "streaming.out",
    " (MODEL)": "actor_rollout_ref.model.path",
    " (TRAIN)": "data.train_files",
    " (VAL)": "data.val_files",
    "": "streaming.prompts",
}
STOP_SECONDS = 600  # that a run may take to end in order: an update or a validation, and a checkpoint


class TrainingEnded(Exception):
    """Training had begun and did not reach its end; the cause says why."""


@contextlib.contextmanager
def quiet_console(log_path: Path, progress: Path) -> Iterator[None]:
    """Send everything this process and its children print to `log_path`, and show the lines of `progress` instead."""
    sys.stdout.flush(), sys.stderr.flush()
    console, errors = os.dup(1), os.dup(2)
    with log_path.open("ab") as out:
        os.dup2(out.fileno(), 1), os.dup2(out.fileno(), 2)
    progress.touch()
    end = threading.Event()

    def follow() -> None:
        with progress.open(encoding="utf-8") as lines:
            lines.seek(0, os.SEEK_END)
            while True:
                last_round = end.is_set()
                if text := lines.read():
                    os.write(console, text.encode())
                if last_round:
                    return
                end.wait(0.2)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        end.set()
        follower.join()
        _flush_or_drop()
        os.dup2(console, 1), os.dup2(errors, 2)


def into_the_log() -> None:
    """Write the present exception down whole, where the disk has room for it."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def _flush_or_drop() -> None:
    """What waits to be written to a full disk neither hides why the run ended nor comes out on the console."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            stream.flush()


def stop_in_order(out: Path, progress: Path) -> Callable[[int, object], None]:
    """What SIGTERM does. While the run trains, the first one asks it to save a checkpoint and end (by OUT/stop, as
    anybody may); a second one, or STOP_SECONDS, end it at once."""
    was_asked, size_before = False, progress.stat().st_size

    def handle(number: int, _: object) -> None:
        nonlocal was_asked
        try:
            trains = progress.stat().st_size > size_before  # the trainer's first words are that everything is up
            if trains and not was_asked and number == signal.SIGTERM:
                was_asked = True
                signal.alarm(STOP_SECONDS)
                (out / STOP).touch()
                return
        except OSError:  # a full disk, for one; Ray would swallow it, and no signal would ever end the run
            traceback.print_exc()
        raise SystemExit(128 + signal.SIGTERM)

    return handle


def environment_of_processes(out: Path) -> dict[str, str]:
    """What Ray's processes need, which take their environment from `ray start` and may stand in another folder."""
    return {
        "TENSORBOARD_DIR": os.path.abspath(os.environ.get("TENSORBOARD_DIR") or out / "tensorboard"),
        # vLLM imports model_hosting_container_standards, which silences the warnings of everybody, ours included.
        "SAGEMAKER_CONTAINER_LOG_LEVEL": os.environ.get("SAGEMAKER_CONTAINER_LOG_LEVEL") or "WARNING",
    }


def train(config: DictConfig, steps: int, out: Path, lock: RunLock) -> None:
    """Run verl until the last step and put the final model at OUT/model."""
    from verl.trainer.main_ppo import run_ppo

    from alignxplore.rl.runner import Runner

    for name, value in environment_of_processes(out).items():
        OmegaConf.update(config, f"ray_kwargs.ray_init.runtime_env.env_vars.{name}", value, force_add=True)
    with ray_of_its_own(config, out / "log" / "ray", keep=[lock.fileno()]):
        run_ppo(config, Runner(stop_in_order(out, out / "log" / "progress.txt")))
    last_step = newest_step(out / "checkpoints")
    if last_step < steps:
        raise RunStopped(f"the last checkpoint is of step {last_step}, {steps} were planned")
    publish_model(
        out / "checkpoints" / f"global_step_{last_step}", out / "model", config.actor_rollout_ref.rollout.dtype
    )
    write_json(out / "finished.json", {"steps": steps})


def finished(out: Path, steps: int) -> bool:
    """True if this folder holds a run of at least `steps` steps with its model."""
    path = out / "finished.json"
    return path.exists() and (out / "model" / "config.json").exists() and read_object(path, "steps")["steps"] >= steps


def same_judges(settings: Streaming, fixed_values: dict[str, Any], out: Path) -> str:
    """Refuse to call a run finished whose judges were others; returns what there is to say if they cannot be asked."""
    try:
        same_run(fixed_values | asyncio.run(served_by_judges(settings, FINISHED_PATIENCE)), out)
    except TransportError:
        return "; not every judge answers, so that nobody was asked whether they are still the same"
    return ""


def absolute_paths(config: DictConfig) -> None:
    """Paths that exist, made absolute: Ray's processes may stand in another folder. "~/" is the home folder."""

    for variable, name in PATHS.items():
        if OmegaConf.select(config, name) in ("", None, []):
            raise SettingsError(f"{name}{variable} is empty; name a path, or leave it out")

    def found(value: str) -> str:
        path = os.path.expanduser(value)
        return os.path.realpath(path) if os.path.exists(path) else path

    for block, name in (
        (config.actor_rollout_ref.model, "path"),
        (config.data, "train_files"),
        (config.data, "val_files"),
    ):
        block[name] = found(block[name]) if isinstance(block[name], str) else [found(value) for value in block[name]]
    stream = config.streaming
    stream.out = os.path.expanduser(stream.out)
    stream.prompts = str(PromptSet(os.path.expanduser(stream.prompts)).folder.resolve())
    tokenizers = named_paths(stream.judge_tokenizer)
    stream.judge_tokenizer = "\n".join(f"{name}={found(path)}" for name, path in tokenizers.items()) or None


def run(config: DictConfig) -> int:
    """Everything from the checks to the model; returns the exit code."""
    check_encoding()
    absolute_paths(config)
    settings = check_settings(config)
    if settings.check_only:
        for path in not_there(config):
            print(f"{path} is not there yet", file=sys.stderr)
        for sentence in missing_keys(config):
            print(sentence, file=sys.stderr)
        sizes = prepare(config)
        steps = check_what_is_there(config)
        print(json.dumps({"steps": steps} | sizes | {"memory_gb": memory(config)}))
        return 0
    say_problems()
    if settings.credit == "paper" and settings.stages > 2:
        print(
            f"note: with CREDIT=paper and STAGES={settings.stages} a summary earns more for being drawn even under a "
            "judge that always says 0.5 (verl/README.md, Credits); CREDIT=centered pays nothing there",
            file=sys.stderr,
        )
    if settings.shuffle_rewards:
        print(
            "note: streaming.shuffle_rewards=true is a control: each group's returns are dealt out at random among "
            "its summaries, so that nothing can be learnt from the judges",
            file=sys.stderr,
        )
    out = Path(settings.out).absolute()
    with RunLock(out) as lock:
        (out / STOP).unlink(missing_ok=True)
        train_data, held_out = check_data(config, settings.stages)
        steps = planned_steps(config, len(train_data))
        check_model(config)
        fixed_values = fixed_settings(config, steps)
        same_run(fixed_values, out)
        if finished(out, steps):
            print(f"already finished: {out / 'model'} ({steps} steps){same_judges(settings, fixed_values, out)}")
            return 0
        mend_pointer(out / "checkpoints")
        refuse_damaged(out / "checkpoints")
        same_gpus(config, out)
        check_attention(config)
        for sentence in missing_keys(config):
            raise SettingsError(sentence)
        fixed_values |= asyncio.run(served_by_judges(settings, min(settings.judge_patience, CONNECT_PATIENCE)))
        same_run(fixed_values, out)
        for name, mass in asyncio.run(check_judges(settings, train_data)).items():
            print(f"judge {name}: {100 * mass:.1f}% of its probability is on the two letters", flush=True)
        sizes = prepare(config)
        print(
            f"{steps} steps of {sizes['users_per_step']} users x {sizes['rows_per_user']} summaries, "
            f"{sizes['updates_per_step']} updates each; {len(train_data)} training and {len(held_out)} validation "
            f"users; log: {out / 'log' / 'train.log'}"
        )
        print("starting Ray, the trainer and the rollout engine ...", flush=True)
        write_json(out / "run.json", fixed_values)
        with naming(out / "config.yaml"):
            OmegaConf.save(config, out / "config.yaml", resolve=True)
        (out / "log").mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        config.streaming.out, config.trainer.default_local_dir = str(out), str(out / "checkpoints")
        with quiet_console(out / "log" / "train.log", out / "log" / "progress.txt"):
            try:
                train(config, steps, out, lock)
            except BaseException as error:
                into_the_log()
                if isinstance(error, Exception):
                    raise TrainingEnded from error
                raise
        print(f"finished after {tqdm.format_interval(time.monotonic() - began)}: {out / 'model'}")
    return 0


def reason(error: BaseException, out: str) -> tuple[int, str]:
    """Exit code and the one sentence for the console; Ray wraps what happened in a worker."""
    import ray

    current: BaseException | None = error
    while current is not None:
        inner = getattr(current, "cause", None) or current.__cause__
        if isinstance(current, RunStopped) and not isinstance(inner, RunStopped):
            return 3, str(current)
        if isinstance(current, OSError) and current.filename and of_the_disk(current):
            return 1, in_a_sentence(current)
        full_memory = ray.exceptions.OutOfMemoryError
        if isinstance(current, full_memory) and not isinstance(inner, full_memory):
            usage = re.search(r"was (\S+) used / (\S+) limit", str(current))
            return 1, (
                f"the machine's memory is full{f' ({usage[1]} of {usage[2]})' if usage else ''}, and Ray ended "
                "processes of this run: leave it more, by fewer WORKERS or GPUS or by ending what else runs there"
            )
        current = inner
    message = str(error).strip().splitlines()[-1] if str(error).strip() else ""
    remedy = f"; look at the disks of {out} and of TMPDIR" if of_the_disk(error) else ""
    return 1, f"{type(error).__name__}: {message}{remedy}"


def goes_on(out: str) -> str:
    """What the same command will do."""
    if Path(out, "checkpoints", POINTER).exists():
        return "the same command continues after the last checkpoint"
    return "no checkpoint was saved: the same command starts from the beginning"


def of_hydra(error: Exception) -> str:
    """What Hydra says of settings, as one line, without where it looked and where to read on."""
    text = str(error).partition("\nConfig search path")[0].partition("\nSee https://")[0]
    return " ".join(text.split())


@hydra.main(version_base=None, config_path=None, config_name=None)
def main(config: DictConfig) -> None:
    """Hydra's entry point."""
    out = config.streaming.get("out", "?") if "streaming" in config else "?"
    try:
        code = run(config)
    except TrainingEnded as error:
        code, sentence = reason(error.__cause__ or error, out)
        print(
            f"stopped: {sentence}\nsee {out}/log/train.log; {goes_on(out)}",
            file=sys.stderr,
        )
    except (*SAID, AssertionError) as error:  # verl asserts what it expects of settings
        print(f"cannot start: {in_a_sentence(error)}", file=sys.stderr)
        code = 1
    except (HydraException, OmegaConfBaseException) as error:
        print(f"cannot start: {of_hydra(error)}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print(f"interrupted; {goes_on(out)}", file=sys.stderr)
        code = 128 + ended_by()
    except SystemExit as error:  # SIGTERM, or Ray's way of ending a process whose cluster has gone
        code = error.code if isinstance(error.code, int) else 1
        print(
            f"ended from outside, or Ray itself died (code {code}); see {out}/log/ray and {out}/log/train.log; "
            f"{goes_on(out)}",
            file=sys.stderr,
        )
    sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    with one_sentence():
        register_defaults()
        try:
            main()
        except (HydraException, OmegaConfBaseException) as error:  # the settings could not be put together
            sys.exit(f"cannot start: {of_hydra(error)}")
