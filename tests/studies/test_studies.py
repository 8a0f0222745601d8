"""The studies' scripts: a folder made with other settings is refused, so that no table mixes two runs."""

import os
import subprocess

import pytest

from tests import ROOT

# What decides the numbers that each script leaves, BASE aside.
SETTINGS = {
    "signal_to_sft.sh": "SEED USERS LIMIT SIGNAL EPOCHS RL_STEPS RL_LR",
    "sft_errors.sh": "SEED RL_STEPS RL_LR",
    "credit.sh": "RL_STEPS RL_LR USERS",
}


@pytest.mark.parametrize("script", SETTINGS)
def test_a_folder_made_with_other_settings_is_refused(tmp_path, script):
    base, out, names = tmp_path / "base", tmp_path / "out", SETTINGS[script].split()
    (base / "models" / "sft").mkdir(parents=True)
    (base / "results.json").write_text("{}")
    (base / "settings").write_text(
        "SEED=7\nTEST_USERS=600\nRL_STEPS=7\nRL_LR=7\nSFT_OPTIONS=\n"
    )  # what a study may not choose itself
    (out / "steps").mkdir(parents=True)
    (out / "steps/data.json").write_text('{"commands": [], "seconds": 1}')
    (out / "settings").write_text("".join(f"{name}=other\n" for name in names))
    process = subprocess.run(
        ["bash", str(ROOT / "studies" / script), "--no-install"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"BASE": "base", "OUT": "out"} | dict.fromkeys(names, "7"),
    )
    assert process.returncode == 1 and f"{out} holds a run with other settings" in process.stderr
    assert all(f"{name} 'other' → '7'" in process.stderr for name in names), process.stderr
