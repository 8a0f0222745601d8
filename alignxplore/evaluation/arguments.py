"""What the two halves of the evaluation can be told: `eval/gen_preference.py` and `eval/evaluate.py`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from alignxplore.command import Checkable, option
from alignxplore.errors import above_zero, at_least_one, not_negative, shares, temperatures
from alignxplore.evaluation.benchmarks import BENCHMARK_FILES, SETTINGS
from alignxplore.evaluation.conditions import CHANCE, CUES, NO_SUMMARY, OTHER_USERS
from alignxplore.evaluation.fits import FITS
from alignxplore.evaluation.history_baselines import (
    BM25,
    EMBEDDINGS,
    HELP,
    IDS_HELP,
    OTHER_IDS,
    ROWS,
    SAME_IDS,
    parse_baselines,
)
from alignxplore.evaluation.shards import WHOLE, Shard
from alignxplore.judging.ranking import ROTATIONS
from alignxplore.prompts import FORMATS
from alignxplore.serving.serve_options import SERVE_ARGUMENTS
from alignxplore.serving.server import beside
from alignxplore.summarize import check_window

PROTOCOLS = ("choice", "paper")
OFFICIAL_EVALUATOR = "12kimih/Llama-3.2-3B-HiCUPID"
BEST, BEST_READER = "best possible", "best from the history"  # rows of --bounds
NOBODY = "none"  # the judge of rows that no downstream model is asked for
YES_NO = "yes_no"  # the judge format of a TALLRec model
ANSWER_TOKENS = {False: 16, True: 2048}  # of a downstream model, also of published ones, by whether it reasons first
TEXTS = ("all", "none")
TEXTS_HELP = (
    "of users and models in report.html: all, or none; none is for a page that is shown to others: the terms of MIND, "
    "Amazon and P-Soups forbid to publish their texts"
)
OF_A_NEW_RUN = ("benchmarks", "limit", "stages", "fit", "gpus", "at_once")  # --continue does not use them
AT_ONCE = "models served here that are asked at the same time; on a GPU each takes its share of the memory"


class Serving(Protocol):
    """Options of a script that serves models."""

    max_model_len: int
    serve_arguments: str


def serving_arguments(options: Serving) -> list[str]:
    """What `vllm serve` is told of the models served here."""
    return ["--max-model-len", str(options.max_model_len), *options.serve_arguments.split()]


def serving_beside(options: "GenerationArguments | EvaluationArguments", count: int) -> list[str]:
    """The same for one of `count` models, of which `at_once` are up at the same time."""
    return beside(serving_arguments(options), min(options.at_once, count))


@dataclass(kw_only=True)
class GenerationArguments(Checkable):
    """What to write summaries for, with which policies."""

    model: list[str] = option(
        "policies as NAME=TARGET; TARGET is a folder, a hub id[@revision] or the URL of an OpenAI-compatible endpoint "
        "(URL#TOKENIZER where the server does not name its tokenizer)",
        [],
    )
    data: list[str] = option(BENCHMARK_FILES, [])
    out: str = option("output folder, shared with evaluate.py", "")
    continue_run: str = option(
        "go on with the summaries of this --out, for the persons of --data, whose histories hold new interactions",
        "",
        "--continue",
    )
    forget: str = option(
        "with --continue: JSONL file of what is to be forgotten, a line each: userid; userid and chosen; source", ""
    )
    shard: str = option(
        "I/N: only the persons of share I (from 0) of N, by hash; file:I/N: all persons of --data, which is file I of "
        "N; in OUT/shards/I-of-N; what reads --out reads all shards together",
        "",
    )
    diff: list[str] = option("with --continue: persons whose versions are shown, word by word", [])
    benchmarks: list[str] | None = option("names of those to take; default: all", None)
    settings: list[str] = option(" or ".join(SETTINGS), list(SETTINGS))
    stages: int = option("K, the number of slices that streaming cuts the history into", 2)
    fit: str = option(
        "what of a long history is shown: ours (each stage loses its oldest interactions), published (the whole is "
        "halved, streams of recommendation sets alone; answers in bad format are handed on)",
        "ours",
    )
    prompt_set: list[str] = option(
        "default (unless told), hardened, or a folder of templates of your own; NAME=SET gives one policy another "
        "set; with --continue the set of the run",
        [],
    )
    format: list[str] = option(
        "how the answers are written: think (ours, Qwen3 thinking), plain (no reasoning), r1 (DeepSeek-R1 and its "
        "distilled models), answer (AlignXplore), harmony (gpt-oss); NAME=FORMAT for one policy",
        ["think"],
    )
    limit: int | None = option("users per benchmark (a fixed sample by content hash); all by default", None)
    seeds: list[int] = option("generation seeds; several give a spread", [0])
    temperature: float = option("sampling temperature (paper: 0.6)", 0.6)
    top_p: float = option("nucleus sampling (paper: 0.95)", 0.95)
    top_k: int = option("top-k sampling (paper: 20)", 20)
    max_tokens: int = option("new tokens at most, reasoning included (paper: 4,096)", 4096)
    summary_tokens: int | None = option(
        "ask for summaries of at most so many tokens, under the name POLICY~N; evaluate.py then tells what it costs "
        "in points beside the same policy without",
        None,
    )
    gpus: int = option("GPUs that serve one policy, for GPU-seconds a summary in the table of costs; 0: not told", 0)
    max_model_len: int = option(
        "window of prompt and answer, also of an endpoint that takes more (paper: 16,384)", 16384
    )
    concurrency: int = option("users in flight at most, of each model", 256)
    at_once: int = option(AT_ONCE, 1)
    max_error_rate: float = option("share of users whose requests may fail; more of them fail the run", 0.05)
    serve_arguments: str = option(SERVE_ARGUMENTS, "")
    api_key_env: list[str] = option(
        "name of the environment variable with an endpoint's key: VARIABLE for all of them, NAME=VARIABLE for one "
        "model",
        [],
    )

    def __post_init__(self) -> None:
        at_least_one(
            self, "stages", "limit", "concurrency", "max_tokens", "at_once", "summary_tokens", "max_model_len"
        )
        not_negative(self, "gpus")
        temperatures(self, "temperature")
        above_zero(self, "top_p")
        shares(self, "top_p", "max_error_rate")
        if self.top_k < -1:
            raise ValueError(f"--top_k {self.top_k}: at least 1, or 0 for all tokens")
        self._check_what_is_given()
        self.part = Shard.parse(self.shard)
        one_of("settings", self.settings, SETTINGS)
        one_of("fit", [self.fit], FITS)
        one_of("format", (value.rpartition("=")[2] for value in self.format), FORMATS)

    @property
    def folder(self) -> Path:
        """What this process writes into: --out, or the shard's folder in it."""
        out = Path(self.out)
        is_read = self.data or self.part == WHOLE
        return (self.part if is_read else self.part.as_in(out)).folder(out)

    def _check_what_is_given(self) -> None:
        if not self.continue_run:
            if self.forget or self.diff:
                raise ValueError(f"--{'forget' if self.forget else 'diff'} needs --continue RUN")
            for name in ("model", "data", "out"):
                if not getattr(self, name):
                    raise ValueError(f"--{name} is needed")
            return
        if self.out and self.out != self.continue_run:
            raise ValueError("--continue goes on in the folder that it names; leave --out out")
        self.out = self.continue_run
        if self.data and not self.model:
            raise ValueError("--model is needed: it writes the new summaries of --data")
        if not (self.data or self.forget or self.diff):
            raise ValueError("--continue needs --data (new interactions), --forget or --diff")
        for name in OF_A_NEW_RUN:
            if getattr(self, name) != getattr(GenerationArguments, name):
                raise ValueError(f"--{name} is not for --continue, which goes on as the run was; leave it out")


@dataclass(kw_only=True)
class EvaluationArguments(Checkable):
    """Which summaries to score, and with which downstream models."""

    judge: list[str] = option("downstream models as NAME=TARGET (folder, hub id[@revision] or endpoint URL)")
    data: list[str] = option(BENCHMARK_FILES)
    out: str = option("output folder, shared with gen_preference.py")
    report: str | None = option("folder of the results and tables; default: --out", None)
    benchmarks: list[str] | None = option("names of those to take; default: all", None)
    policies: list[str] | None = option("policies to score, in the order of the table; default: all", None)
    protocol: list[str] = option(
        "choice (both orders, probabilities of the letters), paper (one order, one sampled answer)", ["choice"]
    )
    direct: bool = option("also let each downstream model read the raw histories", True)
    other_user: list[str] | None = option(
        "policies whose summaries are also given to other users; default: the last one; none: nobody's", None
    )
    cues: list[str] = option(f"baselines without a model: {', '.join(CUES)}", [cue for cue in CUES if cue != CHANCE])
    baselines: list[str] = option(HELP, [BM25])
    training_ids: str = option(IDS_HELP, SAME_IDS)
    prompt_set: str = option("prompt set of the downstream models: default, hardened or a folder", "default")
    orders: str = option("both, or one drawn by hash (protocol choice)", "both")
    rotations: int = option("orders in which a choice among k items is asked and averaged", ROTATIONS)
    limit: int | None = option("users per benchmark; use the value given to gen_preference.py; default: all", None)
    judge_format: list[str] = option(
        "how the downstream models answer: plain (a letter, read from its probability); free form, for models that "
        "reason first: think, r1, answer or harmony (gpt-oss); yes_no for a TALLRec model, which reads histories "
        "only; NAME=FORMAT for one of them",
        ["plain"],
    )
    answer_tokens: int | None = option("new tokens of a free answer; default: 16, where the model reasons 2,048", None)
    published: list[str] = option(
        "rows of the published tables to put beside ours, as OURS=THEIRS: ours=AlignXplore+ q=qwen3-8b-thinking "
        "(hub ids are known)",
        [],
    )
    evaluator: str = option(
        "model that rates the answers written for HiCUPID in protocol paper, as NAME=TARGET; none: that score is "
        "missing",
        OFFICIAL_EVALUATOR,
    )
    evaluator_prompts: str | None = option(
        "prompt set of the evaluator, for instance a folder with the official wording (its slots: eval/README.md); "
        "default: --prompt_set",
        None,
    )
    bounds: str | None = option("world.json of a simulated world: adds chance and best possible", None)
    texts: str = option(TEXTS_HELP, "all")
    max_model_len: int = option("window of downstream models, also of an endpoint that takes more", 16384)
    seed: int = option("seed of drawn orders and sampled answers", 0)
    concurrency: int = option("judgements in flight at most, of each downstream model", 256)
    at_once: int = option(AT_ONCE, 1)
    max_error_rate: float = option("share of judgements that may fail; more of them fail the run", 0.05)
    serve_arguments: str = option(SERVE_ARGUMENTS, "")
    api_key_env: list[str] = option(
        "name of the environment variable with an endpoint's key: VARIABLE for all, NAME=VARIABLE for one --judge or "
        "the --evaluator",
        [],
    )

    def __post_init__(self) -> None:
        at_least_one(self, "limit", "concurrency", "answer_tokens", "at_once", "rotations", "max_model_len")
        shares(self, "max_error_rate")
        one_of("protocol", self.protocol, PROTOCOLS)
        one_of("cues", self.cues, CUES)
        one_of("texts", [self.texts], TEXTS)
        parse_baselines(self.baselines)
        one_of("training_ids", [self.training_ids], (SAME_IDS, OTHER_IDS))
        one_of("orders", [self.orders], ("both", "one"))
        one_of("judge_format", (value.rpartition("=")[2] for value in self.judge_format), (*FORMATS, YES_NO))
        check_window(self.max_model_len, self._most_tokens(), "--answer_tokens")

    def _most_tokens(self) -> int:
        """The longest answer of a downstream model; 32 are left for a letter, too."""
        forms = [value.rpartition("=")[2] for value in self.judge_format]
        reasons = any(FORMATS[form].reasons for form in forms if form != YES_NO)
        return max(32, self.answer_tokens or ANSWER_TOKENS[reasons])


def one_of(name: str, values: Iterable[str], choices: Iterable[str]) -> None:
    """Raise a ValueError for values of an option that there are not."""
    if unknown_values := set(values) - set(choices):
        listing = ", ".join(value or "''" for value in sorted(unknown_values))
        raise ValueError(f"--{name}: unknown {listing}; choose from {', '.join(choices)}")


def check_names(option: str, names: Iterable[str]) -> None:
    """Raise a ValueError for the name of a model that is another row's of the tables, or stands for no judge: the two
    would be taken for one."""
    rows = {name.casefold() for name in (*CUES, *ROWS, NO_SUMMARY, BEST, BEST_READER, NOBODY)}
    for name in names:
        if name.casefold() in rows or name.startswith((EMBEDDINGS, OTHER_USERS)):
            raise ValueError(f"--{option}: '{name}' is what the tables call a baseline; give the model another name")
