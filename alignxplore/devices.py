"""The GPUs of this machine, and whether the installed torch can use them.

`nvidia-smi` names a GPU that a torch for a newer CUDA cannot use. torch itself then has no device, without an error,
and whoever asks it alone works on the CPU.
"""

import json
import os
import subprocess
import sys

from alignxplore.errors import UserError

DRIVER = 580  # the oldest that a torch for CUDA 13 can use
_PATIENCE = 300.0  # seconds: torch may come from a slow disk
# Asked of an interpreter of its own: a process that has looked for a device cannot be forked any more.
_QUESTION = """
import json, torch
facts = {"version": str(torch.__version__), "cuda": torch.version.cuda, "reason": ""}
if not torch.cuda.is_available():
    facts["reason"] = "it finds no device"
    try:
        torch.cuda.init()
    except Exception as error:
        facts["reason"] = str(error)
print(json.dumps(facts))
"""


def installed_gpus() -> list[str]:
    """Numbers of the GPUs that nvidia-smi names."""
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    except (OSError, subprocess.SubprocessError):  # no GPU, or none that it can reach
        return []


def visible_gpus() -> list[str]:
    """Those that may be used: of CUDA_VISIBLE_DEVICES, else of nvidia-smi."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return installed_gpus()
    return [name for name in visible.split(",") if name]  # empty: there are some, and none may be used


def unusable_gpu(remedy: str, python: str = sys.executable, *, needs_cuda: bool = True) -> str | None:
    """Why torch cannot use a GPU that is here and may be used, in a sentence; None where it can, or there is none.

    Args:
        remedy: what to do instead.
        python: the interpreter whose torch is asked.
        needs_cuda: False where a build of torch for CPUs alone is meant to be one.
    """
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or os.environ.get("DEVICE") == "cpu"
    if is_hidden or not installed_gpus():
        return None
    try:
        answer = subprocess.run([python, "-W", "ignore", "-c", _QUESTION], capture_output=True, timeout=_PATIENCE)
        facts = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):  # no torch, which others say
        return None
    if not facts["reason"] or (facts["cuda"] is None and not needs_cuda):
        return None
    if facts["cuda"] is None:
        reason = "it is built for CPUs alone; install requirements.txt (./setup.sh)"
        return f"torch {facts['version']} cannot use the GPU of this machine: {reason}, or {remedy}"
    reason = facts["reason"].splitlines()[0].partition(". ")[0].rstrip(".")
    return (
        f"torch {facts['version']} (CUDA {facts['cuda']}) cannot use the GPU of this machine: {reason}; install its "
        f"driver {DRIVER} or newer, or {remedy}"
    )


def refuse_unusable_gpu(remedy: str, python: str = sys.executable, *, needs_cuda: bool = True) -> None:
    """Raise a UserError that says so."""
    if sentence := unusable_gpu(remedy, python, needs_cuda=needs_cuda):
        raise UserError(sentence)
