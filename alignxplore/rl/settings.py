"""Settings of the stream: the `streaming` block of a run's configuration as a typed object, checked at the start. The
defaults stand here and nowhere else; verl/config/ and the command line say what differs from them."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, get_args, get_type_hints

from hydra.core.config_store import ConfigStore

from alignxplore.errors import UserError
from alignxplore.rl.credit import Credit

JUDGE_ORDERS = ("both", "one", "per_rollout")
CREDITS = get_args(Credit)
STOP = "stop"  # a file in OUT: who makes it asks the run to save a checkpoint and end (alignxplore/rl/trainer.py)


class SettingsError(UserError, ValueError):
    """Settings that contradict each other or the data. The message names the setting and the remedy."""


class RunStopped(RuntimeError):
    """The run was stopped for a reason that the message gives; the same command continues it once that is mended."""


class Number(NamedTuple):
    """What a number may be: of which kind, and from where to where; `between`: neither end itself."""

    kind: type = float
    least: float = -math.inf
    most: float = math.inf
    between: bool = False

    def check(self, name: str, variable: str, value: Any) -> None:
        """Raise `SettingsError` if a value cannot be meant.

        Args:
            variable: by which it may be set as well; empty: none.
        """
        setting = f"{name}={value}{f' ({variable})' if variable else ''}"
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or self.kind is int and not isinstance(value, int):
            raise SettingsError(f"{setting} is no {'whole ' if self.kind is int else ''}number")
        if not self.least <= value <= self.most or self.between and value in (self.least, self.most):
            ends = f"{'more than' if self.between else 'at least'} {self.least:g}"
            if self.most < math.inf:
                ends += f" and {'less than' if self.between else 'at most'} {self.most:.10g}"
            raise SettingsError(f"{setting}: {ends}")


LARGEST_SEED = 2**31 - 1 - 1024  # verl adds the number of an engine to it


@dataclass
class Tolerance:
    """How far the rollout's token probabilities may lie from the trainer's; one that is None is not asked of. `max`
    and `mean` are over all tokens of a step, `group` is the mean over the tokens of one prompt's summaries
    (alignxplore/rl/agreement.py)."""

    max: float | None = None
    mean: float | None = None
    group: float | None = None


def tolerances() -> dict[str, Tolerance]:
    """The largest allowed differences by dtype of the rollout. bfloat16 rounds differently in the two engines, token
    by token: only its mean says something. A group has some thousand tokens instead of millions, whence its wider
    limit; an engine with other weights differs by a tenth and more in most of its groups."""
    return {"float32": Tolerance(max=1e-4), "bfloat16": Tolerance(mean=0.02, group=0.05)}


VARIABLES = ("stages", "rollouts", "targets", "discount", "seed", "poll_seconds")  # of run_streaming_8p.sh
# What the numbers of `Streaming` may be, where `validate` says no more of them.
NUMBERS = {
    "discount": Number(least=0, most=1),
    "seed": Number(int, 0, LARGEST_SEED),
    "judge_timeout": Number(least=0, between=True),
    "judge_patience": Number(least=0),
    "max_failures": Number(least=0, most=1),
    "step_limit": Number(least=0, between=True),
    "poll_seconds": Number(least=0, between=True),
    "samples": Number(int, 0),
    "val_targets": Number(int, 1),
}


@dataclass
class Streaming:
    """One stream of `stages` stages a user, `rollouts` summaries each. Defaults: those of the published run where it
    has one."""

    stages: int = 2
    rollouts: int = 4
    targets: int = 1  # choices that a summary is judged by in training: the target and those after it
    credit: Credit = "paper"
    discount: float = 0.9
    seed: int = 0
    prompts: str = "default"
    thinking: bool = True
    judges: str = ""  # "name=url name=url": the reward is their mean
    val_judges: str = ""  # the same of judges that are asked in validation only, and give no reward
    judge_tokenizer: str | None = None  # path or hub id; None: what each server names as its root
    judge_orders: str = "both"
    judge_api_key_env: str | None = None  # variable with the key of all judges; "a=KEY_A b=KEY_B": each its own
    judge_concurrency: int = 256  # requests that a judge has to answer at once, from all workers together
    judge_timeout: float = 120.0  # seconds for one judgement, which is one token, and its turn in the server's queue
    judge_patience: float = 600.0  # seconds after its first failure for which a judgement is asked for again
    max_failures: float = 0.05  # share of a step's rollouts that may be lost before the run stops
    step_limit: float = 3600.0  # seconds that a step's rollouts, or a validation, may take before the run stops
    poll_seconds: float = 1.0
    samples: int = 4  # validation users whose summaries are written out each time
    val_targets: int = 1  # choices that a held-out summary is judged by: the more, the less noise in val/reward
    val_temperature: float = 0.6  # of held-out users' summaries, with val_kwargs' top_p and top_k; 0: greedy
    least_spread: float = 0.0  # groups whose rewards (largest less smallest) differ by less are not trained on
    shuffle_rewards: bool = False  # a control: each group's returns are dealt out anew among its summaries
    tolerance: dict[str, Tolerance] = field(default_factory=tolerances)
    out: str = ""
    check_only: bool = False

    @property
    def rows_per_user(self) -> int:
        """Trajectories that one user adds to an update."""
        return self.rollouts * self.stages

    def validate(self) -> None:
        """Raise `SettingsError` at the first thing that cannot be meant."""
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if kind in (int, float):
                variable = name.upper() if name in VARIABLES else ""
                NUMBERS.get(name, Number(kind)).check(f"streaming.{name}", variable, value)
            elif kind is bool and not isinstance(value, bool):
                raise SettingsError(f"streaming.{name}={value}: true or false")
        if self.credit not in CREDITS:
            raise SettingsError(f"streaming.credit={self.credit}: choose one of {', '.join(CREDITS)}")
        if self.judge_orders not in JUDGE_ORDERS:
            raise SettingsError(f"streaming.judge_orders={self.judge_orders}: choose one of {', '.join(JUDGE_ORDERS)}")
        if self.stages < 1 or self.rollouts < 2:
            raise SettingsError(
                "streaming.stages must be at least 1 and streaming.rollouts at least 2: a group of one has no "
                "advantage"
            )
        if self.targets < 1:
            raise SettingsError(
                f"streaming.targets={self.targets} (TARGETS): a summary needs at least one to be judged by"
            )
        if self.judge_concurrency < 1:
            raise SettingsError(
                f"streaming.judge_concurrency={self.judge_concurrency}: no question would ever be asked; "
                "it must be at least 1"
            )
        if not 0 <= self.val_temperature <= 2:
            raise SettingsError(
                f"streaming.val_temperature={self.val_temperature} is no temperature from 0 to 2; 0 decodes greedily"
            )
        if not 0 <= self.least_spread < 1:
            raise SettingsError(
                f"streaming.least_spread={self.least_spread}: rewards lie between 0 and 1; 0 trains on every group"
            )
        if not self.judges:
            raise SettingsError(
                'streaming.judges is empty; give at least one, e.g. JUDGES="judge=http://host:8000/v1"'
            )

    @property
    def form(self) -> str:
        """The answer format (`prompts.FORMATS`) that summaries are asked for and read in."""
        return "think" if self.thinking else "plain"

    @classmethod
    def from_config(cls, block: Any) -> "Streaming":
        """From the `streaming` block of the composed configuration (OmegaConf or dict)."""
        values = {key: block[key] for key in block}
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise SettingsError(
                f"streaming.{unknown[0]} is no setting; known: {', '.join(f.name for f in fields(cls))}"
            )
        values["tolerance"] = {
            dtype: _tolerance(f"streaming.tolerance.{dtype}", {k: t[k] for k in t})
            for dtype, t in (values.get("tolerance") or {}).items()
        }
        settings = cls(**values)
        settings.validate()
        return settings


def _tolerance(name: str, limits: dict[str, Any]) -> Tolerance:
    for key, limit in limits.items():
        if key not in Tolerance.__dataclass_fields__:
            raise SettingsError(f"{name}.{key} is no limit; known: {', '.join(Tolerance.__dataclass_fields__)}")
        if limit is not None:
            Number(least=0).check(f"{name}.{key}", "", limit)
    return Tolerance(**limits)


def register_defaults() -> None:
    """Make the defaults of `Streaming` the block `streaming` of Hydra's configuration (verl/config/streaming.yaml). A
    limit of `tolerance` that is not asked is left out: it can be added by `+`."""
    block = asdict(Streaming())
    block["tolerance"] = {
        dtype: {name: limit for name, limit in limits.items() if limit is not None}
        for dtype, limits in block["tolerance"].items()
    }
    ConfigStore.instance().store("stream", {"streaming": block})
