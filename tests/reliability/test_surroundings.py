"""Strange variables in the environment of a command or a script: they change nothing, or are named."""

import os
import re
import subprocess

from tests import ROOT


def test_a_cdpath_changes_nothing():
    """With one that is exported, `cd eval/..` may lead elsewhere, and prints where."""
    code, environment = 'source eval/../shell.bash; echo "$ROOT"', os.environ | {"CDPATH": "."}
    ran = subprocess.run(["bash", "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.stdout == f"{ROOT}\n"
    careless = re.compile(r'(?<!CDPATH="" )\bcd "\$')
    scripts = [path for kind in ("*.sh", "*.bash", "*.sbatch") for path in ROOT.rglob(kind)]
    ours = [path for path in scripts if not path.relative_to(ROOT).parts[0].startswith(".")]
    assert len(ours) > 20 and [path for path in ours if careless.search(path.read_text())] == []
