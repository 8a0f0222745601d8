"""`eval/gen_preference.py --continue RUN`: the summaries of a finished run go on (updates.py), and forget
(forgetting.py)."""

import asyncio
import difflib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from alignxplore import datasets
from alignxplore.benchmark_files import parse_history, parse_user_id, read_users
from alignxplore.environment import say_problems
from alignxplore.errors import UserError
from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.benchmarks import SummarySet, find_sets
from alignxplore.evaluation.forgetting import Forgotten, cut, read_forgotten
from alignxplore.evaluation.generation import Policy, policies_of
from alignxplore.evaluation.shards import Shard
from alignxplore.evaluation.statements import same, statements_of
from alignxplore.evaluation.updates import Stream, Updates, Writer, begin
from alignxplore.journal import RunLock
from alignxplore.records import Interaction, read_jsonl
from alignxplore.serving.models import look_up, open_model
from alignxplore.summarize import Sampling, check_window
from alignxplore.work import run_units

log = logging.getLogger(__name__)
NEW_RUN = "streaming"  # the setting of summaries that begin in --continue


def new_files(arguments: GenerationArguments) -> dict[str, Path]:
    """Benchmark → the file with its persons' new interactions.

    Raises:
        UserError: a name that the run does not have.
    """
    files: dict[str, Path] = {}
    for spec in arguments.data:
        name, equals, file = spec.partition("=")
        files |= {name: Path(file)} if equals and not Path(spec).exists() else datasets.locate(spec)
    names = {found.benchmark for found in sets(arguments.folder)}
    if unknown := sorted(set(files) - names) if names else []:
        raise UserError(f"--data {unknown[0]}: {arguments.out} has summaries of {', '.join(sorted(names))} only")
    return files


def sets(folder: Path) -> list[SummarySet]:
    """Those of a run, and those that began as updates."""
    found = {(s.policy, s.benchmark, s.setting, s.seed): s for s in find_sets(folder)}
    for path in sorted((folder / "updates").glob("*/*.streams.jsonl")):
        benchmark, setting, seed = path.name.removesuffix(".streams.jsonl").rsplit(".", 2)
        one = SummarySet(folder, path.parent.name, benchmark, setting, int(seed.removeprefix("s")))
        found.setdefault((one.policy, one.benchmark, one.setting, one.seed), one)
    return list(found.values())


def targets(arguments: GenerationArguments, policy: str, benchmark: str) -> list[SummarySet]:
    """The sets that go on; a new one where the policy has none of this benchmark."""
    folder = arguments.folder
    there = [one for one in sets(folder) if one.benchmark == benchmark]
    mine = [one for one in there if one.policy == policy]
    if there and not mine:
        names = ", ".join(sorted({one.policy for one in there}))
        raise UserError(
            f"--model {policy}: it has no summaries of {benchmark} in {folder}; there are those of {names}"
        )
    wanted = [one for one in mine if one.setting in arguments.settings and one.seed in arguments.seeds]
    if mine and not wanted:
        kinds = ", ".join(f"{one.setting} seed {one.seed}" for one in mine)
        raise UserError(f"{policy} has no such summaries of {benchmark}; it has: {kinds} (--settings, --seeds)")
    return wanted or [SummarySet(folder, policy, benchmark, NEW_RUN, arguments.seeds[0])]


def new_interactions(path: Path, benchmark: str, shard: Shard) -> Iterator[tuple[str, tuple[Interaction, ...]]]:
    """(person, interactions) of each row of a shard; other fields than `userid` and `history` are not read."""
    known = datasets.DATASETS.get(benchmark.partition("~")[0])
    for line, row in read_jsonl(path):
        if shard.holds(benchmark, user := parse_user_id(row, path, line)):
            yield user, parse_history(row, path, line, known.default_query if known else None)


def begin_all(updates: Updates, users: set[str] | None) -> None:
    """Begin the streams that the run itself wrote, of these persons or of all, where that is not done yet.

    Raises:
        UserError: the file that the run was about is not where it was.
    """
    target, meta = updates.target, updates.target.meta()
    if meta is None or users == set():
        return
    path = target.meta_path.parent / meta.get("data", "")
    if "data" not in meta or not path.is_file():
        where = f"it was {path}" if "data" in meta else "an older version wrote it"
        raise UserError(f"{target.meta_path} does not lead to the file of {target.benchmark} ({where}); put it there")
    known = datasets.DATASETS.get(target.benchmark.partition("~")[0])
    written = {row["record"]: row for row in target.rows() if users is None or row["user"] in users}
    theirs = {row["user"] for row in written.values()}
    query = known.default_query if known else None
    for record in read_users(path, default_query=query, is_wanted=theirs.__contains__):
        if updates.stream(record.user) is None:
            row = written.get(record.id)
            if row is not None:
                begin(updates, record, meta, row, path.name)


def take_in(updates: Updates, path: Path, shard: Shard) -> Counter[str]:
    """Write down what is new; user → number of new interactions, 0 of those with none."""
    benchmark, setting = updates.target.benchmark, updates.target.setting
    users = {user for user, _ in new_interactions(path, benchmark, shard)}
    begin_all(updates, {user for user in users if updates.stream(user) is None})
    fresh: Counter[str] = Counter(dict.fromkeys(users, 0))
    for user, interactions in new_interactions(path, benchmark, shard):
        stream = updates.stream(user) or Stream(user, (user, setting), ())
        if new := stream.new(interactions):
            updates.keep(stream.grown(path.name, new, updates.unread(stream)))
            fresh[user] += len(new)
    return fresh


async def derive(
    updates: Updates, users: Iterable[str], writer: Writer, arguments: GenerationArguments
) -> tuple[int, Counter[str]]:
    """Write the versions of these persons that are missing; how many persons that concerned, and what kept some of
    them at their older summary."""
    missing = {}
    for user in users:
        stream = updates.stream(user)
        if stream and stream.slices and stream.versions[-1] not in updates.journal:
            missing[user] = stream.versions[-1]

    async def work(user: str) -> dict:
        stream = updates.stream(user)
        assert stream is not None
        return await writer.derive(updates, stream)

    target = updates.target
    await run_units(
        ((unit, user) for user, unit in missing.items()),
        work,
        updates.journal,
        label=f"{target.title} goes on",
        total=len(missing),
        concurrency=arguments.concurrency,
        max_error_rate=arguments.max_error_rate,
    )
    kept: Counter[str] = Counter()
    for unit in missing.values():
        version = updates.version(unit)
        if version is None:
            kept["no answer"] += 1
        elif not version.holds:
            kept[(version.stage.problem or "empty summary") if version.stage else version.status] += 1
    return len(missing), kept


def counted(updates: Updates, fresh: Counter[str], written: int, kept: Counter[str]) -> str:
    """What an update came to, in a line."""
    new, old = sum(1 for count in fresh.values() if count), sum(kept.values())
    why = f" ({', '.join(f'{reason} {times}' for reason, times in kept.most_common())})" if kept else ""
    return (
        f"{updates.target.title}: {new} persons with {sum(fresh.values())} new interactions, {len(fresh) - new} "
        f"without; {written - old} summaries written, {old} persons kept the older one{why}"
    )


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


async def go_on(arguments: GenerationArguments, forgotten: Forgotten | None) -> None:
    """All policies, one after the other; each is loaded once, and not at all if nothing is missing."""
    files = new_files(arguments)
    for policy in policies_of(arguments):
        name = policy.spec.name
        if forgotten is not None:
            found = [one for one in sets(arguments.folder) if one.policy == name]
        else:
            found = [one for benchmark in files for one in targets(arguments, name, benchmark)]
        await _go_on(arguments, policy, found, files)


async def _go_on(
    arguments: GenerationArguments, policy: Policy, found: list[SummarySet], files: dict[str, Path]
) -> None:
    waiting: dict[SummarySet, Counter[str]] = {}
    for target in found:
        with Updates(target) as updates:
            if path := files.get(target.benchmark):
                fresh = take_in(updates, path, arguments.part)
            else:
                fresh = Counter({stream.user: 0 for stream in updates.streams()})
            streams = (updates.stream(user) for user in fresh)
            if any(one and one.slices and one.versions[-1] not in updates.journal for one in streams):
                waiting[target] = fresh
            else:
                print(counted(updates, fresh, 0, Counter()))
                updates.write_current()
    if not waiting:
        return
    most = max(window_of(target, arguments) for target in waiting)
    _, served = await look_up(policy.spec, most, policy.api_key_env)
    async with open_model(
        policy.spec,
        log_folder=arguments.folder / "logs",
        arguments=["--max-model-len", str(most), *arguments.serve_arguments.split()],
        sample=policy.prompts.infer([Interaction("?")], None, policy.form),
        api_key_env=policy.api_key_env,
        concurrency=arguments.concurrency,
    ) as model:
        for target, fresh in waiting.items():
            sampling = writer_options(target, arguments, policy.form)
            window = min(served, window_of(target, arguments))
            check_window(window, sampling.max_tokens)
            with Updates(target) as updates:
                writer = Writer(model, policy.prompts, sampling, window)
                try:
                    print(counted(updates, fresh, *await derive(updates, fresh, writer, arguments)))
                finally:  # of those who were answered, where too many were not
                    updates.write_current()


def forget(arguments: GenerationArguments, forgotten: Forgotten) -> dict[SummarySet, dict[str, str]]:
    """Take it out of every set of the run, whoever wrote it; for each, user → the summary that stood."""
    stood = {}
    for target in sets(arguments.folder):
        with Updates(target) as updates:
            begin_all(updates, None if forgotten.sources else forgotten.persons | set(forgotten.parts))
            users = [stream.user for stream in updates.streams() if forgotten.concerns(stream.user)]
            stood[target] = cut(updates, users, forgotten)
            updates.write_current()
    return stood


def say_forgotten(stood: dict[SummarySet, dict[str, str]]) -> None:
    """Of the statements that stood, how many are gone: the check of what was to be forgotten."""
    if not any(stood.values()):
        print("Nothing of it stands in these summaries.")
    for target, before in ((target, before) for target, before in stood.items() if before):
        gone = stay = waiting = 0
        with Updates(target) as updates:
            for user, summary in before.items():
                stream = updates.stream(user)
                if stream is None:
                    gone += len(statements_of(summary))
                    continue
                found = updates.standing(stream)
                waiting += found is None or stream.versions[-1] not in updates.journal
                now = statements_of(found[1].stage.summary) if found and found[1].stage else []
                again = [any(same(one.text, new.text) for new in now) for one in statements_of(summary)]
                stay, gone = stay + sum(again), gone + again.count(False)
        line = (
            f"{target.title}: forgotten of {len(before)} persons; of "
            f"{gone + stay} statements of their summaries {gone} are gone, {stay} are there again"
        )
        if waiting:
            line += f"; {waiting} wait for --model {target.policy}=..., which derives their summaries anew"
        print(line)
    print("Files of --data, reports and judgements still hold what they held.")


def word_diff(before: str, after: str) -> str:
    """What changed from one text to another, word by word: [-gone-] and {+new+}."""
    old, new = re.findall(r"\s+|\S+", before), re.findall(r"\s+|\S+", after)
    parts = []
    for kind, a, b, c, d in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append("".join(old[a:b]))
            continue
        parts += [f"[-{''.join(old[a:b])}-]"] * (a < b) + [f"{{+{''.join(new[c:d])}+}}"] * (c < d)
    return "".join(parts)


def history_of(updates: Updates, user: str) -> str:
    """All versions of one person's summary, each as what it changed; nothing of one without updates."""
    stream = updates.stream(user)
    if stream is None:
        return ""
    lines, text = [updates.target.title], ""
    for number, (unit, one) in enumerate(zip(stream.versions, stream.slices), 1):
        version = updates.version(unit)
        head = f"{user}, version {number}: {len(one.interactions)} interactions of {one.source}"
        if version is None:
            lines.append(f"{head}; not written yet")
            continue
        head += f"; {version.model}, {version.when or 'when is not known'}"
        if not version.holds or version.stage is None:
            problem = (version.stage.problem or "empty") if version.stage else version.error
            lines.append(f"{head}; kept the older summary: {problem}")
            continue
        lines.append(f"{head}\n{word_diff(text, version.stage.summary)}")
        text = version.stage.summary
    return "\n".join(lines)


def told_versions(targets: list[SummarySet], users: list[str]) -> str:
    """`history_of` these persons in all sets that have updates of them."""
    found: dict[str, list[str]] = {user: [] for user in users}
    for target in targets:
        with Updates(target) as updates:
            for user in users:
                found[user] += filter(None, [history_of(updates, user)])
    return "\n\n".join(text for user in users for text in found[user] or [f"{user}: no updates"])


def preview(arguments: GenerationArguments) -> str:
    """What `--continue --data` would take in; nothing is asked or written."""
    lines = []
    for benchmark, path in new_files(arguments).items():
        rows = list(new_interactions(path, benchmark, arguments.part))
        lines.append(f"{path}: {len({user for user, _ in rows})} persons, {sum(len(x) for _, x in rows)} interactions")
    return "\n".join([*lines, "check: nothing was asked or written"])


def continue_summaries(arguments: GenerationArguments) -> str | None:
    """What `eval/gen_preference.py --continue` does."""
    folder = arguments.folder
    if arguments.check:
        return preview(arguments)
    if not arguments.data and not sets(folder):
        raise UserError(f"--continue {folder}: there are no summaries; gen_preference.py --out writes them")
    say_problems()
    forgotten = read_forgotten(arguments.forget) if arguments.forget else None
    with RunLock(folder):
        stood = forget(arguments, forgotten) if forgotten else {}
        if arguments.model:
            asyncio.run(go_on(arguments, forgotten))
        if forgotten:
            say_forgotten(stood)
        if arguments.diff:
            print(told_versions(sets(folder), arguments.diff))
    return None
