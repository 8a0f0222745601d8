"""A stand-in for Python that only writes down what a shell script asks of it: each argument as it arrived."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import ROOT

STAND_IN = f"""#!{sys.executable} -IS
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    print(json.dumps([sys.argv[1:], dict(os.environ)]), file=file)
"""
# What decides what the scripts do, and may be set where the tests run.
OURS = set(
    "JUDGE EVALUATE GENERATE TABLE OUT PROTOCOL MODEL DATA BENCHMARKS SETTINGS KINDS MIX LIMIT MODELS JUDGES TRAIN "
    "VAL JUDGE_TOKENIZER PRESET CHECK DEVICE NNODES NODE_RANK NPROC GPUS STEPS RAY_ADDRESS DEFAULT_QUERY".split()
)


class Recorder:
    """`run(script, *arguments, **variables)` runs a script; `commands` are what it asked of Python, in order."""

    def __init__(self, folder: Path):
        self.folder, self.record, self.python = folder, folder / "record.jsonl", folder / "python"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)

    def run(self, script: str, *arguments: str, expect: int = 0, **variables: str) -> subprocess.CompletedProcess:
        self.record.write_text("")
        clean = {name: value for name, value in os.environ.items() if name not in OURS}
        own = {"PYTHON": str(self.python), "RECORD": str(self.record)}
        command = ["bash", str(ROOT / script), *arguments]
        process = subprocess.run(
            command, env=clean | own | variables, cwd=self.folder, capture_output=True, text=True, timeout=100
        )
        assert process.returncode == expect, process.stdout + process.stderr
        return process

    @property
    def entries(self) -> list[tuple[list[str], dict[str, str]]]:
        """(arguments, environment) of each command."""
        return [tuple(json.loads(line)) for line in self.record.read_text().splitlines()]

    @property
    def commands(self) -> list[list[str]]:
        """Arguments of each; scripts of the repository by their name."""
        return [[word.removeprefix(f"{ROOT}/") for word in words] for words, _ in self.entries]


def values(command: list[str], option: str) -> list[str]:
    """What stands behind an option, up to the next one."""
    rest = command[command.index(option) + 1 :]
    return rest[: next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))]
