"""What the evaluation can be told: which summaries to score, with which downstream models, by which protocol. Read by
evaluate.py."""

from dataclasses import dataclass, field

from alignxplore.errors import at_least_one
from alignxplore.evaluation.conditions import CUES

PROTOCOLS = ("choice", "paper")
OFFICIAL_EVALUATOR = "12kimih/Llama-3.2-3B-HiCUPID"
YES_NO = "yes_no"  # the judge format of a TALLRec model


@dataclass
class EvaluationArguments:
    """Which summaries to score, and with which downstream models."""

    judge: list[str] = field(
        metadata={"help": "downstream models as NAME=TARGET (folder, hub id[@revision] or endpoint URL)"}
    )
    data: list[str] = field(
        metadata={"help": "benchmarks: NAME=FILE, a folder of NAME_upi.jsonl files, or a hub data set (ID[@REVISION])"}
    )
    out: str = field(metadata={"help": "output folder, shared with gen_preference.py"})
    check: bool = field(
        default=False,
        metadata={"help": "only see whether these arguments can be meant, which needs no summaries and no model"},
    )
    report: str | None = field(default=None, metadata={"help": "folder of the results and tables; default: --out"})
    benchmarks: list[str] | None = field(default=None, metadata={"help": "names of those to take; default: all"})
    policies: list[str] | None = field(
        default=None, metadata={"help": "policies to score, in the order of the table; default: all"}
    )
    protocol: list[str] = field(
        default_factory=lambda: ["choice"],
        metadata={"help": "choice (both orders, probabilities of the letters), paper (one order, one sampled answer)"},
    )
    direct: bool = field(default=True, metadata={"help": "also let each downstream model read the raw histories"})
    other_user: list[str] | None = field(
        default=None,
        metadata={
            "help": "policies whose summaries are also given to other users; default: the last one; none: nobody's"
        },
    )
    cues: list[str] = field(
        default_factory=lambda: list(CUES),
        metadata={"help": f"baselines that read nothing of the user: {', '.join(CUES)}"},
    )
    prompt_set: str = field(
        default="default", metadata={"help": "prompt set of the downstream models: default, hardened or a folder"}
    )
    orders: str = field(default="both", metadata={"help": "both, or one drawn by hash (protocol choice)"})
    limit: int | None = field(
        default=None, metadata={"help": "users per benchmark; use the value given to gen_preference.py"}
    )
    judge_format: list[str] = field(
        default_factory=lambda: ["plain"],
        metadata={
            "help": "how the downstream models answer: plain (a letter, read from its probability), or, for models that reason first, think, r1, "
            "answer or harmony (gpt-oss): free form; yes_no for a TALLRec model, which reads histories only; NAME=FORMAT for one of them"
        },
    )
    answer_tokens: int | None = field(
        default=None, metadata={"help": "new tokens of a free answer; default: 16, where the model reasons 2,048"}
    )
    published: list[str] = field(
        default_factory=list,
        metadata={
            "help": "rows of the published tables to put beside ours, as OURS=THEIRS: ours=AlignXplore+ q=qwen3-8b-thinking (hub ids are known)"
        },
    )
    evaluator: str = field(
        default=OFFICIAL_EVALUATOR,
        metadata={
            "help": "model that rates the answers written for HiCUPID in protocol paper, as NAME=TARGET; none: that score is missing"
        },
    )
    evaluator_prompts: str | None = field(
        default=None,
        metadata={
            "help": "prompt set of the evaluator, for instance a folder with the official wording (its slots: eval/README.md); default: --prompt_set"
        },
    )
    bounds: str | None = field(
        default=None, metadata={"help": "world.json of a simulated world: adds chance and best possible"}
    )
    max_model_len: int = field(
        default=16384, metadata={"help": "window of downstream models, also of an endpoint that takes more"}
    )
    seed: int = field(default=0, metadata={"help": "seed of drawn orders and sampled answers"})
    concurrency: int = field(default=256, metadata={"help": "judgements in flight at most"})
    max_error_rate: float = field(
        default=0.05, metadata={"help": "share of judgements that may fail; more of them fail the run"}
    )
    serve_arguments: str = field(
        default="",
        metadata={
            "help": "more arguments for `vllm serve`, after an =: --serve_arguments=--enforce-eager or '--serve_arguments=--tensor-parallel-size 2'"
        },
    )
    api_key_env: list[str] = field(
        default_factory=list,
        metadata={
            "help": "name of the environment variable with an endpoint's key: VARIABLE for all, NAME=VARIABLE for one --judge or the --evaluator"
        },
    )

    def __post_init__(self) -> None:
        at_least_one(self, "limit", "concurrency", "answer_tokens")
