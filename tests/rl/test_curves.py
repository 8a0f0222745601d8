"""The picture of RL runs: numbers behind its panels, one and several runs, and files that it cannot draw."""

import json
import subprocess
import sys

import pytest

from alignxplore.rl import curves
from tests import ROOT


def rows(steps, stages=2):
    """A run's metrics; every second step was validated."""
    for step in range(steps + 1):
        row = {"step": step} | ({"val/reward": 0.5 + step / 100} if step % 2 == 0 else {})
        for stage in range(1, stages + 1) if step else ():
            row |= {f"stage{stage}/{name}": 0.1 * stage + step / 100 for name in ("reward", "bad_format", "tokens")}
            row |= {
                "timing_s/gen": 3.0,
                "timing_s/update_actor": 1.0,
                "timing_s/step": 4.5,
                "timing_s/testing": 2.0,
                "lost_share": 0.0,
            }
        yield row


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def draw(out, *runs):
    return subprocess.run(
        [sys.executable, str(ROOT / "figures/rl_curves.py"), "--run", *map(str, runs), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_parts_of_a_step_add_up_to_its_time_and_to_what_verl_times_beside_it():
    parts = curves.seconds_by_part(list(rows(2))[2])
    assert parts["other"] == 0.5 and parts["testing"] == 2.0 and sum(parts.values()) == 6.5


def test_a_series_skips_what_was_not_logged_and_the_running_mean_begins_with_the_first_value():
    assert curves.series(list(rows(3)), "val/reward", 100) == ([0, 2], [50.0, 52.0])
    assert curves.running_mean([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    assert 1.0 < curves.running_mean([1.0, 2.0])[1] < 2.0


def test_the_lines_of_one_run_are_stages_and_of_several_runs_both():
    import matplotlib

    matplotlib.use("Agg")
    one = curves.Picture({"a": list(rows(4))})
    one.draw()
    assert legend(one, "reward") == ["stage 1", "stage 2"] and legend(one, "held_out") == ["reward"]
    two = curves.Picture({"a": list(rows(4)), "b": list(rows(4, stages=1))})
    two.draw()
    assert legend(two, "reward") == ["a, stage 1", "a, stage 2", "b, stage 1"]
    assert legend(two, "held_out") == ["a, reward", "b, reward"]
    assert [bar.get_height() for bar in two.panels["seconds"].patches][:2] == [3.0, 1.0]


def validated(steps, *watching):
    """A run whose held-out users were asked about by `judge`, which gives the reward, and by others."""
    for row in rows(steps):
        row |= {"stage1/confidence/judge": 0.5} if row["step"] else {}
        if "val/reward" in row:
            for name in ("val/", "val/judge/", *(f"val/{other}/" for other in watching)):
                value = row["val/reward"] - (0.2 if name.split("/")[1] in watching else 0)
                row |= {f"{name}reward": value, f"{name}reward_low": value - 0.1, f"{name}reward_high": value + 0.2}
                row |= {f"{name}stage1/reward": 0.0, f"{name}accuracy": 1.0}
                if row["step"]:
                    row |= {f"{name}reward_change": 0.01, f"{name}reward_change_low": -0.3}
                    row |= {f"{name}reward_change_high": 0.4}
        yield row


def test_held_out_users_are_drawn_under_each_judge_from_step_0_with_their_interval():
    import matplotlib

    matplotlib.use("Agg")
    one = curves.Picture({"a": list(validated(4, "zoe", "ann"))})
    one.draw()
    names = ["judge, gives the reward", "ann, only validates", "zoe, only validates"]
    assert legend(one, "held_out") == legend(one, "change") == names
    held_out, change = one.panels["held_out"], one.panels["change"]
    assert held_out.lines[0].get_xydata().tolist() == [[0, 0.5], [2, 0.52], [4, 0.54]]
    assert held_out.lines[1].get_ydata().tolist() == pytest.approx([0.3, 0.32, 0.34])
    assert change.lines[1].get_xydata().tolist() == [[0, 0], [2, 0.01], [4, 0.01]]
    band = held_out.collections[1].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.2, 0.54))


def test_a_reward_of_several_judges_is_drawn_with_each():
    rows = [row | {"stage1/confidence/ann": 0.5} for row in validated(4, "ann", "bob")]
    assert list(curves.held_out_lines(rows).items()) == [
        ("val/reward", "reward"),
        ("val/ann/reward", "ann, in the reward"),
        ("val/judge/reward", "judge, in the reward"),
        ("val/bob/reward", "bob, only validates"),
    ]


def legend(picture, panel):
    return [text.get_text() for text in picture.panels[panel].get_legend().get_texts()]


def test_the_script_draws_and_names_what_it_cannot_draw(tmp_path):
    run = write(tmp_path / "metrics.jsonl", rows(3))
    process = draw(tmp_path / "sub" / "curves.png", run)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "sub" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "two runs are named 'metrics.jsonl'" in draw(tmp_path / "x.png", run, run).stderr
    empty = write(tmp_path / "empty.jsonl", [{"step": 0}])
    assert "no row in it is a step of a streaming run" in draw(tmp_path / "x.png", empty).stderr
