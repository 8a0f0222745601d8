"""`eval/gen_preference.py --continue RUN`: the summaries of a finished run go on (updates.py), and forget
(forgetting.py)."""

import asyncio
import difflib
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from alignxplore import datasets
from alignxplore.benchmark_files import parse_history, parse_user_id
from alignxplore.environment import say_problems
from alignxplore.errors import UserError, once
from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.beginnings import begin_all, check_windows
from alignxplore.evaluation.benchmarks import SummarySet, find_sets
from alignxplore.evaluation.forgetting import drop_exports, exports_of, forget, read_deletions, report_deletions
from alignxplore.evaluation.generation import Policy, policies_of
from alignxplore.evaluation.shards import Shard
from alignxplore.evaluation.updates import Stream, Updates, Writer
from alignxplore.evaluation.wording import prompts_of
from alignxplore.journal import RunLock
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, names_of, read_jsonl
from alignxplore.serving.models import look_up, open_model, whereabouts
from alignxplore.summarize import Sampling, check_window
from alignxplore.work import run_units

log = logging.getLogger(__name__)
NEW_RUN = "streaming"  # the setting of summaries that begin in --continue
SAMPLING = ("temperature", "top_p", "top_k", "max_tokens")


def new_files(arguments: GenerationArguments) -> dict[str, Path]:
    """Benchmark → the file with its persons' new interactions.

    Raises:
        UserError: a name that the run does not have.
        ValueError: two files of one name.
    """
    pairs: list[tuple[str, Path]] = []
    for spec in arguments.data:
        name, equals, file = spec.partition("=")
        is_named = equals and not Path(spec).exists()
        pairs += [(name, Path(file))] if is_named else list(datasets.locate(spec).items())
    once("data", (name for name, _ in pairs))
    files = dict(pairs)
    names = {target.benchmark for target in sets(arguments.folder)}
    if unknown_names := sorted(set(files) - names) if names else []:
        raise UserError(f"--data {unknown_names[0]}: {arguments.out} has summaries of {', '.join(sorted(names))} only")
    return files


def sets(folder: Path) -> list[SummarySet]:
    """Those of a run, and those that began as updates."""
    by_key = {(s.policy, s.benchmark, s.setting, s.seed): s for s in find_sets(folder)}
    for path in sorted((folder / "updates").glob("*/*.streams.jsonl")):
        benchmark, setting, seed = path.name.removesuffix(".streams.jsonl").rsplit(".", 2)
        target = SummarySet(folder, path.parent.name, benchmark, setting, int(seed.removeprefix("s")))
        by_key.setdefault((target.policy, target.benchmark, target.setting, target.seed), target)
    return list(by_key.values())


def targets(arguments: GenerationArguments, policy: str, benchmark: str) -> list[SummarySet]:
    """The sets that go on; a new one where nobody of this shard has summaries yet."""
    folder = arguments.folder
    candidates = [target for target in sets(folder) if target.benchmark == benchmark]
    own_sets = [target for target in candidates if target.policy == policy]
    if candidates and not own_sets:
        names = ", ".join(sorted({target.policy for target in candidates}))
        raise UserError(
            f"--model {policy}: it has no summaries of {benchmark} in {folder}; there are those of {names}"
        )
    selection = [
        target for target in own_sets if target.setting in arguments.settings and target.seed in arguments.seeds
    ]
    if own_sets and not selection:
        kinds = ", ".join(f"{target.setting} seed {target.seed}" for target in own_sets)
        raise UserError(f"{policy} has no such summaries of {benchmark}; it has: {kinds} (--settings, --seeds)")
    return selection or [SummarySet(folder, policy, benchmark, NEW_RUN, arguments.seeds[0])]


def new_interactions(path: Path, benchmark: str, shard: Shard) -> Iterator[tuple[str, tuple[Interaction, ...]]]:
    """(person, interactions) of each row of a shard; other fields than `userid` and `history` are not read."""
    dataset = datasets.DATASETS.get(benchmark.partition("~")[0])
    for line, row in read_jsonl(path):
        if shard.holds(benchmark, user := parse_user_id(row, path, line)):
            yield user, parse_history(row, path, line, dataset.default_query if dataset else None)


def take_in(updates: Updates, path: Path, shard: Shard) -> Counter[str]:
    """Write down what is new; user → number of new interactions, 0 of those with none."""
    benchmark, setting = updates.target.benchmark, updates.target.setting
    users = {user for user, _ in new_interactions(path, benchmark, shard)}
    if new_users := {user for user in users if updates.stream(user) is None}:
        check_windows(updates, new_users)
        begin_all(updates, new_users.__contains__)
    new_counts: Counter[str] = Counter(dict.fromkeys(users, 0))
    for user, interactions in new_interactions(path, benchmark, shard):
        stream = updates.stream(user) or Stream(user, (user, setting), ())
        if additions := stream.new(interactions):
            updates.keep(stream.grown(path.name, additions, updates.unread(stream)))
            new_counts[user] += len(additions)
    return new_counts


async def derive(
    updates: Updates, users: Iterable[str], writer: Writer, arguments: GenerationArguments
) -> tuple[int, Counter[str]]:
    """Write the versions of these persons that are missing; how many persons that concerned, and what kept some of
    them at their older summary."""
    versions = {}
    for user in users:
        stream = updates.stream(user)
        if stream and stream.slices and stream.versions[-1] not in updates.journal:
            versions[user] = stream.versions[-1]

    async def work(user: str) -> dict:
        stream = updates.stream(user)
        assert stream is not None
        return await writer.derive(updates, stream)

    target = updates.target
    await run_units(
        ((unit, user) for user, unit in versions.items()),
        work,
        updates.journal,
        label=f"{target.title} goes on",
        total=len(versions),
        concurrency=arguments.concurrency,
        max_error_rate=arguments.max_error_rate,
    )
    reasons: Counter[str] = Counter()
    for unit in versions.values():
        version = updates.version(unit)
        if version is None:
            reasons["no answer"] += 1
        elif not version.holds:
            reasons[(version.stage.problem or "empty summary") if version.stage else version.status] += 1
    return len(versions), reasons


def counted(updates: Updates, new_counts: Counter[str], version_count: int, reasons: Counter[str]) -> str:
    """What an update came to, in a line."""
    new_persons, old_persons = sum(1 for count in new_counts.values() if count), sum(reasons.values())
    detail = f" ({', '.join(f'{reason} {times}' for reason, times in reasons.most_common())})" if reasons else ""
    return (
        f"{updates.target.title}: {new_persons} persons with {sum(new_counts.values())} new interactions, "
        f"{len(new_counts) - new_persons} without; {version_count - old_persons} summaries written, "
        f"{old_persons} persons kept the older one{detail}"
    )


def check_sampling(target: SummarySet, policy: Policy, arguments: GenerationArguments) -> None:
    """Raise a ValueError for an option, other than its default, that is not what the run was written with."""
    meta = target.meta()
    if meta is None:
        return
    old = asdict(Sampling(**meta["sampling"])) | {"max_model_len": meta["window"]}
    defaults = {name: getattr(GenerationArguments, name) for name in ("max_model_len", *SAMPLING)}
    pairs = [(name, getattr(arguments, name), default, old[name]) for name, default in defaults.items()]
    for name, value, default, old_value in [*pairs, ("format", policy.form, Sampling().form, old["form"])]:
        if value not in (default, old_value):
            way = f"--continue writes {target.title} as the run did, with {old_value}"
            raise ValueError(f"--{name} {value}: {way}; leave the option out")


def writer_options(target: SummarySet, arguments: GenerationArguments, form: str) -> Sampling:
    """How the run itself sampled; of a set that begins here, as the options say."""
    if meta := target.meta():
        return Sampling(**meta["sampling"])
    options = arguments
    return Sampling(options.temperature, options.top_p, options.top_k, options.max_tokens, target.seed, form)


def window_of(target: SummarySet, arguments: GenerationArguments) -> int:
    """Tokens of prompt and answer: as the run itself had it; of a set that begins here, as the options say."""
    meta = target.meta()
    return meta["window"] if meta else arguments.max_model_len


def longest_window(targets: Collection[SummarySet], arguments: GenerationArguments) -> int:
    """What a policy is to take in all of its sets."""
    return max((window_of(target, arguments) for target in targets), default=arguments.max_model_len)


def serving_options(window: int, arguments: GenerationArguments) -> list[str]:
    """What `vllm serve` is told of a policy that is served here."""
    return ["--max-model-len", str(window), *arguments.serve_arguments.split()]


@dataclass(frozen=True)
class Job:
    """A policy with the sets that go on, each in its own prompt set."""

    policy: Policy
    prompts: dict[SummarySet, PromptSet]


def jobs_of(arguments: GenerationArguments, files: dict[str, Path]) -> list[Job]:
    """What the policies are to do; what cannot be meant is an error here, before anything is written or forgotten."""
    jobs = []
    for policy in policies_of(arguments) if arguments.model else []:
        name = policy.spec.name
        if arguments.forget:
            summary_sets = [target for target in sets(arguments.folder) if target.policy == name]
        else:
            summary_sets = [target for benchmark in files for target in targets(arguments, name, benchmark)]
        for target in summary_sets:
            check_sampling(target, policy, arguments)
        jobs.append(Job(policy, {target: prompts_of(target, policy) for target in summary_sets}))
    return jobs


async def go_on(arguments: GenerationArguments, job: Job, files: dict[str, Path]) -> None:
    """All sets of one policy; it is loaded once, and not at all if nothing is missing."""
    policy = job.policy
    new_counts_of: dict[SummarySet, Counter[str]] = {}
    for target in job.prompts:
        with Updates(target) as updates:
            if path := files.get(target.benchmark):
                new_counts = take_in(updates, path, arguments.part)
            else:
                new_counts = Counter({stream.user: 0 for stream in updates.streams()})
            streams = (updates.stream(user) for user in new_counts)
            if any(stream and stream.slices and stream.versions[-1] not in updates.journal for stream in streams):
                new_counts_of[target] = new_counts
            else:
                print(counted(updates, new_counts, 0, Counter()))
                updates.write_current()
    if not new_counts_of:
        return
    first = next(iter(new_counts_of))
    form = writer_options(first, arguments, policy.form).form
    limit = longest_window(new_counts_of, arguments)
    _, served_window = await look_up(policy.spec, limit, policy.api_key_env)
    async with open_model(
        policy.spec,
        log_folder=arguments.folder / "logs",
        arguments=serving_options(limit, arguments),
        sample=job.prompts[first].infer([Interaction("?")], None, form),
        api_key_env=policy.api_key_env,
        concurrency=arguments.concurrency,
    ) as model:
        for target, new_counts in new_counts_of.items():
            sampling = writer_options(target, arguments, policy.form)
            window = min(served_window, window_of(target, arguments))
            check_window(window, sampling.max_tokens)
            with Updates(target) as updates:
                writer = Writer(model, job.prompts[target], sampling, window)
                try:
                    print(counted(updates, new_counts, *await derive(updates, new_counts, writer, arguments)))
                finally:  # of those who were answered, where too many were not
                    updates.write_current()


def word_diff(before: str, after: str) -> str:
    """What changed from one text to another, word by word: [-gone-] and {+new+}."""
    old_words, new_words = re.findall(r"\s+|\S+", before), re.findall(r"\s+|\S+", after)
    parts = []
    for kind, a, b, c, d in difflib.SequenceMatcher(a=old_words, b=new_words, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append("".join(old_words[a:b]))
            continue
        parts += [f"[-{''.join(old_words[a:b])}-]"] * (a < b) + [f"{{+{''.join(new_words[c:d])}+}}"] * (c < d)
    return "".join(parts)


def history_of(updates: Updates, user: str) -> str:
    """All versions of one person's summary, each as what it changed."""
    stream = updates.stream(user)
    assert stream is not None
    lines, text = [updates.target.title], ""
    for number, (unit, one) in enumerate(zip(stream.versions, stream.slices), 1):
        version = updates.version(unit)
        head = f"{user}, version {number}: {len(one.interactions)} interactions of {', '.join(one.sources)}"
        if version is None:
            lines.append(f"{head}; not written yet")
            continue
        head += f"; policy {version.model}, {version.when or 'when is not known'}"
        if not version.holds or version.stage is None:
            problem = (version.stage.problem or "empty") if version.stage else version.error
            lines.append(f"{head}; {'kept the older summary' if text else 'no summary'}: {problem}")
            continue
        lines.append(f"{head}\n{word_diff(text, version.stage.summary)}")
        text = version.stage.summary
    return "\n".join(lines)


def told_versions(targets: list[SummarySet], names: list[str]) -> str:
    """`history_of` these persons, or single rows of persons, in all sets that have updates of them."""
    texts_of: dict[str, list[str]] = {name: [] for name in names}
    for target in targets:
        with Updates(target) as updates:
            for user in [stream.user for stream in updates.streams()]:
                for name in texts_of.keys() & names_of(user):
                    texts_of[name].append(history_of(updates, user))
    return "\n\n".join(text for name in names for text in texts_of[name] or [f"{name}: no updates"])


def preview(arguments: GenerationArguments) -> str:
    """Who would write, and what `--continue` would take in or forget; nothing is asked or written."""
    files, lines = new_files(arguments), []
    if arguments.forget:
        deletions = read_deletions(arguments.forget)
        parts = sum(map(len, deletions.parts.values()))
        counts = f"{len(deletions.persons)} persons, {parts} parts of persons, {len(deletions.sources)} files"
        lines.append(f"{arguments.forget}: would forget {counts}")
        lines += [f"{hub}: would be removed" for hub in exports_of(Path(arguments.out), deletions)]
    for job in jobs_of(arguments, files):
        spec, key = job.policy.spec, job.policy.api_key_env
        serving = serving_options(longest_window(job.prompts, arguments), arguments)
        lines.append(f"{spec.name}: {whereabouts(spec, key, serving)}")
        for target, prompts in job.prompts.items():
            lines.append(f"{target.title}: prompt set {prompts.name} ({prompts.hash('infer')})")
    for benchmark, path in files.items():
        rows = list(new_interactions(path, benchmark, arguments.part))
        lines.append(f"{path}: {len({user for user, _ in rows})} persons, {sum(len(x) for _, x in rows)} interactions")
    return "\n".join([*lines, "check: nothing was asked or written"])


def continue_summaries(arguments: GenerationArguments) -> str | None:
    """What `eval/gen_preference.py --continue` does."""
    folder = arguments.folder
    if not (sets(folder) or sets(Path(arguments.out))):  # a shard may have nobody yet
        raise UserError(f"--continue {arguments.out}: there are no summaries; gen_preference.py --out writes them")
    if arguments.check:
        return preview(arguments)
    say_problems()
    deletions = read_deletions(arguments.forget) if arguments.forget else None
    with RunLock(folder):
        files = new_files(arguments)
        jobs = jobs_of(arguments, files)
        if deletions:
            drop_exports(Path(arguments.out), deletions)
        cuts = forget(folder, sets(folder), deletions) if deletions else {}
        for job in jobs:
            asyncio.run(go_on(arguments, job, files))
        if deletions:
            report_deletions(cuts)
        if arguments.diff:
            print(told_versions(sets(folder), arguments.diff))
    return None
