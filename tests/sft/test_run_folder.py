"""The folder of a run: which checkpoint is whole, what may go on, the model card."""

import json

import pytest

from alignxplore.environment import git_commit, recorded_versions
from alignxplore.records import RecordError
from alignxplore.same_run import OtherRun
from alignxplore.sft.run_folder import COMPLETE, RunError, RunFolder, model_card

PLAIN, ZERO3 = {"zero_stage": None, "processes": 1}, {"zero_stage": 3, "processes": 2}


def test_a_run_resumes_from_the_newest_whole_checkpoint_and_forgets_what_came_after_it(tmp_path):
    run = RunFolder(tmp_path)
    for step in (5, 10, 15):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_text("weights")
    assert run.last_complete() is None
    for step in range(1, 18):
        run.log({"step": step, "loss": 1.0 / step})
    for step in (5, 10):
        run.mark_complete(step, PLAIN)
    (tmp_path / "log.jsonl").open("a").write('{"step": 18, "lo')  # a line torn by the kill
    assert run.last_complete().name == "checkpoint-10"
    assert run.clean() == ["checkpoint-15"] and not (tmp_path / "checkpoint-15").exists()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 11))
    assert (tmp_path / "checkpoint-5" / COMPLETE).exists()


@pytest.mark.parametrize(
    ("saved", "now", "problem"),
    [
        (PLAIN, {"zero_stage": None, "processes": 8}, None),
        (ZERO3, ZERO3, None),
        (
            ZERO3,
            PLAIN,
            r"saved with ZeRO stage 3 on 2 process\(es\), and cannot be resumed without DeepSpeed on 1 process\(es\)",
        ),
        (
            ZERO3,
            ZERO3 | {"processes": 4},
            r"ZeRO stage 3 on 2 .* ZeRO stage 3 on 4 process\(es\); give --deepspeed and the number of processes",
        ),
        (
            ZERO3,
            ZERO3 | {"zero_stage": 2},
            "ZeRO stage 3 on 2 .* ZeRO stage 2 on 2 .* as they were, or choose another --out",
        ),
        (PLAIN, ZERO3, "saved without DeepSpeed on 1 .* ZeRO stage 3 on 2"),
    ],
)
def test_what_zero_has_saved_is_resumed_with_the_same_stage_and_processes_only(tmp_path, saved, now, problem):
    run = RunFolder(tmp_path)
    assert run.resumable(now) is None
    (tmp_path / "checkpoint-5").mkdir()
    assert run.resumable(now) is None, "it is not whole"
    run.mark_complete(5, saved)
    if problem is None:
        assert run.resumable(now) == tmp_path / "checkpoint-5"
    else:
        with pytest.raises(RunError, match=f"checkpoint-5: .*{problem}"):
            run.resumable(now)


@pytest.mark.parametrize("text", ["{", "[]", '{"processes": 1}'])
def test_a_checkpoint_that_was_damaged_is_named_and_one_of_an_earlier_version_resumes(tmp_path, text):
    run, folder = RunFolder(tmp_path), tmp_path / "checkpoint-5"
    (folder / "global_step5").mkdir(parents=True)
    file = folder / "global_step5" / "states.pt"
    file.write_text("states")
    for mark in ("", json.dumps(PLAIN)):  # of earlier versions, which noted no lengths
        (folder / COMPLETE).write_text(mark)
        assert run.resumable(PLAIN) == folder
    run.mark_complete(5, PLAIN)
    assert run.resumable(PLAIN) == folder
    remedy = "delete checkpoint-5: the run goes on from the one before, or from the start"
    file.write_text("stat")
    with pytest.raises(RunError, match=rf"{file}: damaged since it was saved \(4 bytes of 6\); {remedy}"):
        run.resumable(PLAIN)
    file.unlink()
    with pytest.raises(RunError, match=rf"{file}: damaged since it was saved \(gone\); {remedy}"):
        run.resumable(PLAIN)
    (folder / COMPLETE).write_text(text)
    with pytest.raises(RecordError, match=f"{folder}/COMPLETE: .*{remedy}"):
        run.resumable(PLAIN)


def test_of_a_finished_run_the_optimizer_is_deleted_and_cannot_be_missed(tmp_path):
    run = RunFolder(tmp_path)
    model = {"model.safetensors", "config.json", "trainer_state.json"}
    for step, files in ((5, {"optimizer.pt", "scheduler.pt", "rng_state.pth"}), (10, {"latest", "rng_state_0.pth"})):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / f"global_step{step}").mkdir(parents=True)
        for name in files | model | {f"global_step{step}/zero_pp_rank_0_mp_rank_00_optim_states.pt"}:
            (folder / name).write_text("x")
        run.mark_complete(step, PLAIN)
    run.drop_optimizers()
    run.drop_optimizers()  # once more, after a kill in its middle
    for folder in tmp_path.iterdir():
        assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == model
    assert run.last_complete() is None, "nothing starts the optimizer anew from it"


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path):
    run = RunFolder(tmp_path)
    run.claim({"seed": 1, "learning_rate": 1e-3, "peft": None})
    run.claim({"seed": 1, "learning_rate": 1e-3, "peft": None})
    with pytest.raises(OtherRun, match=r"learning_rate 0.001 → 0.002\); choose another --out"):
        run.claim({"seed": 1, "learning_rate": 2e-3, "peft": None})


def test_the_model_card_says_what_was_trained_on_what_and_how():
    data = {
        **{"rows": 1234, "tokens": 56789, "trained_tokens": 4321, "dropped_too_long": 17, "dropped_control_token": 3},
        "prompt_templates": {"f3c5f355cd63": 1234},
        "identity": {"chat_template": "c" * 16, "tokenizer": "t" * 16},
    }
    settings = {
        "model": "Qwen/Qwen3-8B@main",
        "learning_rate": 2e-5,
        "effective_batch_size": 1024,
        "max_length": 16384,
        "peft": None,
    }
    result = {"steps": 264, "last_loss": 0.4321, "seconds": 100.0}
    card = model_card(
        {
            "settings": settings,
            "data": data,
            "processes": 64,
            "result": result,
            "versions": recorded_versions(),
            "commit": git_commit(),
        }
    )
    expected = [
        *("base_model: Qwen/Qwen3-8B\n", "1,234 rows", "56,789 tokens", "4,321 of them trained"),
        *(
            "17 rows longer than 16384",
            "3 with control",
            "| learning_rate | 2e-05 |",
            "| effective_batch_size | 1024 |",
        ),
        *("264 steps", "loss 0.4321", "64 process", "f3c5f355cd63", "cccc", "tttt", f"commit {git_commit()}"),
        f"trl {recorded_versions()['trl']}",
    ]
    for text in expected:
        assert text in card, text
    assert "end of turn" in card
    data["identity"]["letters"] = [5, 6]
    card = model_card(
        {
            "settings": settings,
            "data": data,
            "processes": 64,
            "result": result,
            "versions": recorded_versions(),
            "commit": None,
        }
    )
    assert "4,321 of them trained: the letters." in card and "end of turn" not in card


def test_a_run_goes_on_with_another_way_to_compute_attention(tmp_path):
    """As once FlashAttention is installed, which is then taken without being asked for."""
    run = RunFolder(tmp_path)
    run.claim({"seed": 1, "attn_implementation": None})
    for attention in ("flash_attention_2", "sdpa"):
        run.claim({"seed": 1, "attn_implementation": attention})
        assert json.loads((tmp_path / "run.json").read_text())["attn_implementation"] == attention
    with pytest.raises(OtherRun, match=r"settings \(seed 1 → 2\)"):
        run.claim({"seed": 2, "attn_implementation": None})
