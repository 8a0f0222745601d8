"""sft.py with a kill -9 at a chosen moment; stands in for the machine that fails. Used by tests of runs.

KILL_AT=7 python killed_sft.py --config ...          before optimizer step 8 is done
KILL_IN_SAVE=10 python killed_sft.py --config ...    with half of checkpoint-10's files torn
KILL_IN_FINAL_SAVE=1 python killed_sft.py ...        after the last checkpoint, with the finished model torn
KILL_IN_CLEANUP=1 python killed_sft.py ...           with the optimizer of the first checkpoint gone, others not
TERM_AT=7 TERM=group python killed_sft.py ...        no kill, but a SIGTERM in step 8: to its process group with the
                                                     workers of the data loader, or to its launcher (TERM=launcher)
TERM_IN_EVALUATION=6 python killed_sft.py ...        a SIGTERM to its process group in the evaluation after step 6
"""

import os
import shutil
import signal
import subprocess
import time
import types
from pathlib import Path

from transformers.trainer import Trainer as Base
from trl import ModelConfig

from alignxplore.command import run
from alignxplore.sft import run_folder, training
from alignxplore.sft.configuration import DataArguments, TrainArguments
from alignxplore.sft.run_folder import RunFolder
from alignxplore.sft.trainer import Trainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def term_group() -> None:
    """As Slurm does it, from without: what comes from its own process is no fault to a worker of a data loader."""
    subprocess.run(["bash", "-c", f"kill -TERM -- -{os.getpgrp()}"], check=True, start_new_session=True)


if "TERM_AT" in os.environ:
    quiet_step = Trainer.training_step

    def training_step_told(self, *arguments, **keywords):
        if self.state.global_step == int(os.environ["TERM_AT"]) and self.args.process_index == 0:
            if not self.saves.is_asked_to_end:
                term_group() if os.environ["TERM"] == "group" else os.kill(os.getppid(), signal.SIGTERM)
                while not self.saves.is_asked_to_end:  # the launcher passes it on
                    time.sleep(0.05)
        return quiet_step(self, *arguments, **keywords)

    Trainer.training_step = training_step_told

if "TERM_IN_EVALUATION" in os.environ:
    quiet_prediction = Trainer.prediction_step

    def prediction_step_told(self, *arguments, **keywords):
        if self.state.global_step == int(os.environ["TERM_IN_EVALUATION"]) and not self.saves.is_asked_to_end:
            term_group()
            time.sleep(0.5)  # workers that end at a SIGTERM have ended
        return quiet_prediction(self, *arguments, **keywords)

    Trainer.prediction_step = prediction_step_told

if "KILL_AT" in os.environ:
    step_forward = Trainer.training_step

    def training_step(self, *arguments, **keywords):
        if self.state.global_step == int(os.environ["KILL_AT"]):
            die()
        return step_forward(self, *arguments, **keywords)

    Trainer.training_step = training_step


def tear(weights: Path) -> None:
    if weights.is_file():
        os.truncate(weights, weights.stat().st_size // 2)


if "KILL_IN_SAVE" in os.environ:
    save_states = Base._save_rng_state

    def save_rng_state(self, folder):
        save_states(self, folder)
        if self.state.global_step == int(os.environ["KILL_IN_SAVE"]) and self.args.process_index == 0:
            tear(Path(folder) / "model.safetensors")
            die()

    Base._save_rng_state = save_rng_state

if "KILL_IN_FINAL_SAVE" in os.environ:
    save = Trainer.save_model

    def save_model(self, output_dir=None, _internal_call=False):
        save(self, output_dir, _internal_call)
        if not Path(output_dir).name.startswith("checkpoint-"):
            tear(Path(output_dir) / "model.safetensors")
            die()

    Trainer.save_model = save_model

if "KILL_IN_CLEANUP" in os.environ:

    def rmtree_and_die(folder):
        shutil.rmtree(folder)
        die()

    run_folder.shutil = types.SimpleNamespace(rmtree=rmtree_and_die)

assert RunFolder is training.RunFolder
run(training.sft, (DataArguments, TrainArguments, ModelConfig), __doc__)
