"""Each setting of verl and of the stream that decides what a run learns: with another value it is another run.

Those of the composed configuration that may change are listed by name: what another verl brings has to be placed.
"""

import copy

import pytest
from omegaconf import OmegaConf

pytest.importorskip("verl")

from alignxplore.records import write_json  # noqa: E402
from alignxplore.rl.same_run import fixed_settings, same_run  # noqa: E402
from alignxplore.same_run import OtherRun  # noqa: E402
from tests.rl.conftest import make_model  # noqa: E402
from tests.rl.test_presets import compose  # noqa: E402, F401

ACTOR, VAL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout.val_kwargs"
# What decides, block by block; a name that stands for a block (an optimizer, say) counts with all that is in it.
DECIDES = {
    "data": "train_max_samples val_max_samples train_batch_size max_prompt_length max_response_length seed shuffle",
    ACTOR: "optim ppo_mini_batch_size ppo_epochs shuffle policy_loss clip_ratio clip_ratio_low clip_ratio_high "
    "clip_ratio_c loss_agg_mode loss_scale_factor entropy_coeff use_kl_loss kl_loss_coef kl_loss_type",
    "streaming": "stages rollouts targets credit discount seed thinking judge_orders least_spread shuffle_rewards "
    "val_targets",
}
NAMES = ["algorithm", VAL, *(f"{block}.{name}" for block, names in DECIDES.items() for name in names.split())]
# What does not, or has tests of its own: compared by what files and servers hold, or where a run wrote it down.
OTHERS = {
    "data": "train_files val_files gen_batch_size "
    "tokenizer use_shm prompt_key reward_fn_key val_batch_size tool_config_path function_tool_path "
    "return_raw_input_ids return_raw_chat return_full_prompt dataloader_num_workers image_patch_size "
    "validation_shuffle filter_overlong_prompts filter_overlong_prompts_workers truncation image_key video_key "
    "audio_key trust_remote_code custom_cls return_multi_modal_inputs apply_chat_template_kwargs "
    "mm_processor_kwargs",
    ACTOR: "tau_pos tau_neg data_loader_seed fsdp_config "
    "_target_ rollout_n strategy ppo_micro_batch_size ppo_micro_batch_size_per_gpu use_dynamic_bsz "
    "ppo_max_token_len_per_gpu freeze_vision_tower calculate_entropy calculate_sum_pi_squared use_prefix_grouper "
    "use_torch_compile checkpoint use_fused_kernels profiler qat grad_clip ulysses_sequence_parallel_size "
    "entropy_from_logits_with_chunking entropy_from_logits_chunk_size entropy_checkpointing pad_to_length "
    "use_remove_padding",
    "streaming": "prompts judges judge_tokenizer "
    "val_temperature "  # as VAL.temperature
    "val_judges judge_api_key_env judge_concurrency judge_timeout judge_patience max_failures step_limit "
    "poll_seconds samples tolerance out check_only",
}


@pytest.fixture(scope="module")
def composed(compose, tmp_path_factory):  # noqa: F811
    """PRESET=tiny with files that are there, and the folder of a run of it."""
    folder = tmp_path_factory.mktemp("files")
    make_model(folder / "sft")
    (folder / "rows").touch()
    files = {"MODEL": str(folder / "sft"), "TRAIN": str(folder / "rows"), "VAL": str(folder / "rows")}
    config = compose(PRESET="tiny", **files)
    write_json(folder / "run.json", fixed_settings(config, 40))
    return config, folder


def leaves(config, name):
    """The names of all values of a block, or of one."""
    value = OmegaConf.select(config, name)
    if not OmegaConf.is_dict(value):
        return [name]
    return [leaf for key in value for leaf in leaves(config, f"{name}.{key}")]


def another(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"other {value}"
    return [] if OmegaConf.is_list(value) else (value or 0) + 1


@pytest.mark.parametrize("name", NAMES)
def test_a_run_with_another_value_is_another_run(composed, name):
    config, out = composed
    for leaf in leaves(config, name):
        value = copy.deepcopy(OmegaConf.select(config, leaf))
        OmegaConf.update(config, leaf, another(value))
        try:
            with pytest.raises(OtherRun) as caught:
                same_run(fixed_settings(config, 40), out)
        finally:
            OmegaConf.update(config, leaf, value)
        assert f"{leaf} " in str(caught.value)


@pytest.mark.parametrize("block", DECIDES)
def test_every_setting_either_decides_or_may_change(composed, block):
    config, _ = composed
    assert sorted(OmegaConf.select(config, block)) == sorted(f"{DECIDES[block]} {OTHERS[block]}".split())


def test_the_same_settings_are_the_same_run(composed):
    config, out = composed
    same_run(fixed_settings(config, 40), out)
