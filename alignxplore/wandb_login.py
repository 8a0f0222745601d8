"""Whether wandb could be written to: without a login it says so minutes later, when models are loaded."""

import os
import subprocess
import sys

# In a process of its own: wandb starts a service, which those that ours starts would take for theirs.
_IS_MISSING = (
    "import sys, wandb; online = wandb.setup().settings.mode == 'online'; "
    "sys.exit(3 if online and not wandb.login(prompt=False, verify=False) else 0)"
)


def missing_login() -> str:
    """A sentence if wandb is to send what it is given and nobody is logged in; empty otherwise. No network is
    asked."""
    process = subprocess.run(
        [sys.executable, "-c", _IS_MISSING], env=os.environ | {"WANDB_SILENT": "true"}, capture_output=True
    )
    if process.returncode != 3:
        return ""
    return "nobody is logged in to wandb: run wandb login, or set WANDB_API_KEY or WANDB_MODE=offline"
