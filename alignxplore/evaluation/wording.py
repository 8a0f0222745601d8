"""The prompt set in which summaries go on (continuing.py): the one that wrote them, or a refusal. Who wrote them is
known by the hash of its template: in the run's meta, or, of a set that began as updates, in its first version.
"""

from alignxplore.errors import UserError
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.generation import Policy
from alignxplore.evaluation.updates import Updates
from alignxplore.prompts import SETS, PromptSet
from alignxplore.records import read_jsonl


def prompts_of(target: SummarySet, policy: Policy) -> PromptSet:
    """The prompt set that wrote a set of summaries; of one that begins here, the policy's.

    Raises:
        UserError: the options name another one, or the templates are not as they were, or not at hand.
    """
    meta = target.meta()
    old_hash = meta["prompt_hash"] if meta else _first_hash(target)
    if old_hash is None:
        return policy.prompts
    limit = meta.get("summary_tokens") if meta else policy.prompts.summary_tokens
    own_sets = sorted(path.parent.name for path in SETS.glob("*/infer.jinja"))
    candidates = [PromptSet(name, limit) for name in ([policy.prompt_set] if policy.prompt_set else own_sets)]
    for prompts in candidates:
        if prompts.hash("infer") == old_hash:
            return prompts
    name = (meta or {}).get("prompt_set")
    old_set = f"prompt set {name}, {old_hash}" if name else f"prompt set {old_hash}"
    if policy.prompt_set:
        raise UserError(
            f"--prompt_set {policy.prompt_set} ({candidates[0].hash('infer')}) is another wording than that of "
            f"{target.title} ({old_set}); name that one as it was, or leave the option out if it came with the "
            "project. New words need a new --out"
        )
    raise UserError(
        f"{target.title} was written with templates ({old_set}) that do not come with this version; name its folder, "
        "as it was, by --prompt_set"
    )


def _first_hash(target: SummarySet) -> str | None:
    path = Updates(target).versions_path
    return next((row["prompt"] for _, row in read_jsonl(path)), None) if path.exists() else None
