"""What `sft.sh` launches one process with."""

import pytest

from tests.shell import Recorder


@pytest.mark.parametrize(
    ("words", "by_torchrun"),
    [
        (["--config", "plain.yaml"], False),
        (["--config", "zero.yaml"], True),  # DeepSpeed asks for what torchrun says
        (["--config=zero.yaml", "--seed", "2"], True),
        (["--config", "plain.yaml", "--deepspeed", "zero.json"], True),
        (["--config", "plain.yaml", "--deepspeed=zero.json"], True),
        (["--config", "absent.yaml"], False),
    ],
    ids=["plain", "in the file", "after =", "on the line", "there after =", "no file"],
)
def test_one_process_has_torchrun_where_deepspeed_is_asked_for(words, by_torchrun, tmp_path):
    (tmp_path / "plain.yaml").write_text("seed: 1\n# deepspeed: zero.json\n")
    (tmp_path / "zero.yaml").write_text("seed: 1\ndeepspeed: zero.json\n")
    words = [
        word.replace("plain", f"{tmp_path}/plain").replace("zero.yaml", f"{tmp_path}/zero.yaml") for word in words
    ]
    recorder = Recorder(tmp_path)
    recorder.run("sft/sft.sh", *words, NPROC="1")
    (command,) = recorder.commands
    assert ("alignxplore.torchrun" in command) == by_torchrun and command[-len(words) :] == words
