"""Options of `vllm serve` in all spellings that vLLM takes, and what of them stands in the identity of a model."""

import pytest

from alignxplore.serving.models import as_served
from alignxplore.serving.serve_options import MOVING, has_option, last_value, moving
from alignxplore.serving.server import open_to_anybody

MOVED = """
--hf-overrides.rope_parameters.factor 4
--hf_overrides.rope_parameters={"factor":4}
--override-generation-config.temperature 0
--default-chat-template-kwargs {"enable_thinking":false}
--default_chat_template_kwargs.enable_thinking=false
--model-impl transformers
--reasoning-parser qwen3
--tokenizer-revision abc
--config serve.yaml
--logprobs-mode processed_logprobs
--disable-sliding-window
--dty half
-q fp8
-q=fp8
-qfp8
-sc.method ngram
"""


@pytest.mark.parametrize("line", MOVED.strip().splitlines())
def test_what_moves_a_number_stands_in_the_identity_however_it_is_written(line):
    assert as_served("0a1b", line.split()) != as_served("0a1b", [])
    assert as_served("http://host/v1@q", line.split()) == "http://host/v1@q"


@pytest.mark.parametrize(
    "line",
    [
        "--max-model-len 4096 --tensor-parallel-size=2 -tp 2",
        "--gpu-memory-utilization 0.4 --no-enable-prefix-caching --enforce-eager",
        "--max_num_seqs 4 --served-model-name quantization --port 8000",
    ],
)
def test_how_the_work_is_spread_leaves_the_identity_as_it_was(line):
    assert as_served("0a1b", line.split()) == "0a1b"


def test_identities_are_those_of_earlier_versions():
    """Folders that were begun with them go on."""
    line = "--kv_cache_dtype=fp8 --max-model-len 4096 --dtype half --chat-template 'a b.jinja' -q fp8"
    options = "--chat-template a b.jinja --dtype half --kv-cache-dtype fp8 --quantization fp8"
    assert as_served("0a1b", line.split()) == f"0a1b {options}"
    assert as_served("0a1b", ["--hf-overrides", '{"a":1}']) == "0a1b --hf-overrides {a:1}"


@pytest.mark.parametrize(
    ("first", "second", "are_same"),
    [
        ("-q fp8 --dtype half", "--dty=half --quantization=fp8", True),
        ("--hf-overrides.a 1 --hf-overrides.b 2", "--hf_overrides.b=2 --hf_overrides.a=1", True),
        ("--override-generation-config.top_k -1", "--override-generation-config.top_k 5", False),
        ("--override-generation-config.top_k -1", "--override-generation-config.top_k -2", False),
        ("--hf-overrides.a_b 1", "--hf-overrides.a-b 1", False),
        ("--dtype half --dtype float", "--dtype float --dtype half", False),
    ],
)
def test_spellings_of_one_serving_are_one_and_values_are_not(first, second, are_same):
    assert (moving(first.split()) == moving(second.split())) == are_same


def test_no_option_that_moves_numbers_is_asked_for_by_the_beginning_of_another():
    assert all(name.startswith("--") and "_" not in name for name in MOVING)
    assert not has_option(["--load"], "--tokenizer") and not has_option(["-tp", "2"], "--tokenizer")
    assert has_option(["--load_format=dummy"], "--load-format") and not has_option([], "--load-format")
    assert last_value("--max_model_len 7 --max-model-len=9 --x 1".split(), "--max-model-len") == "9"
    assert last_value(["--max-model-len"], "--max-model-len") is None


@pytest.mark.parametrize("word", ["--api-key=s", "--api_key", "--api-k"])
def test_a_key_that_all_users_could_read_is_refused_however_it_is_written(word):
    assert "VLLM_API_KEY" in str(open_to_anybody("127.0.0.1", [word, "s"]))
