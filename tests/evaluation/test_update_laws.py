"""Laws of summaries that go on, over drawn histories; and one of them with a real policy behind vLLM."""

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignxplore.evaluation.continuing import take_in
from alignxplore.evaluation.shards import WHOLE
from alignxplore.evaluation.updates import Part, Slice, Stream, Updates, Writer
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, content_hash
from alignxplore.serving.models import Model, ModelSpec, open_model
from alignxplore.summarize import Plan, Sampling, StageSummary, summarize
from tests.evaluation.test_updates import films, new, set_of

PROMPTS = PromptSet()
names = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4)
law = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Echo:
    """Stands in for a policy's server: an answer that tells what it was made of."""

    model, not_sent = "echo", ()

    async def chat(self, messages, **options) -> dict:
        text = f"<think>\nread\n</think>\n\n{content_hash([messages, options['seed']])}"
        return {"choices": [{"message": {"content": text}}]}


@dataclass
class Person:
    """The updates of one person, in a folder of their own."""

    folder: Path
    updates: Updates
    writer: Writer

    def sees(self, batch: list[str]) -> None:
        """New interactions, as `--data` brings them; and what the policy makes of them."""
        (spec,) = new(self.folder, u=films(*batch))
        take_in(self.updates, Path(spec.partition("=")[2]), WHOLE)
        self.derive()

    def derive(self) -> None:
        stream = self.updates.stream("u")
        if stream and stream.slices and stream.versions[-1] not in self.updates.journal:
            self.updates.journal.append(stream.versions[-1], asyncio.run(self.writer.derive(self.updates, stream)))

    def versions(self) -> dict[str, dict]:
        """Id → all that was written, without when and how fast."""
        rows = {row["id"]: json.loads(json.dumps(row)) | {"when": None} for row in self.updates.journal.rows()}
        for row in rows.values():
            row["stage"]["seconds"] = None
        return rows


@pytest.fixture
def person(tokenizer) -> Callable:
    """`with person() as p:` somebody of whom nothing is known."""

    @contextmanager
    def begin() -> Iterator[Person]:
        writer = Writer(Model("m", Echo(), tokenizer, "m"), PROMPTS, Sampling(max_tokens=64), 4096)
        with tempfile.TemporaryDirectory() as folder, Updates(set_of(Path(folder))) as updates:
            yield Person(Path(folder), updates, writer)

    return begin


@law
@given(batches=st.lists(names, min_size=1, max_size=4), deletions=st.sets(st.sampled_from("abcdef"), max_size=3))
def test_law_forget_then_derive_anew_is_never_seen(person, batches, deletions):
    with person() as forgetful, person() as blind:
        for batch in batches:
            forgetful.sees(batch)
            if rest := [name for name in batch if name not in deletions]:
                blind.sees(rest)
        stream = forgetful.updates.stream("u")
        forgetful.updates.replace({"u": stream.without(lambda source, x: x.chosen in deletions)})
        forgetful.derive()
        assert forgetful.updates.stream("u") == blind.updates.stream("u")
        assert forgetful.versions() == blind.versions()


@law
@given(batches=st.lists(st.tuples(st.sampled_from("xyz"), names, st.booleans()), min_size=1))
def test_law_what_came_in_a_file_goes_with_it_whatever_it_was_read_with(batches):
    stream, rest = Stream("u", ("u",), ()), []
    for source, batch, unread in batches:
        stream = stream.grown(source, tuple(map(Interaction, batch)), unread and bool(stream.slices))
        rest += batch if source != "x" else []
    stream = Stream.of(json.loads(json.dumps(stream.row()))).without(lambda source, _: source == "x")
    assert [x.chosen for one in stream.slices for x in one.interactions] == rest
    assert all(one.interactions and "x" not in one.sources for one in stream.slices)


@law
@given(batches=st.lists(names, min_size=1, max_size=4), data=st.data())
def test_law_the_same_data_twice_are_once(person, batches, data):
    """Right away, and again later in any order."""
    repeats = data.draw(st.lists(st.sampled_from(batches), max_size=4))
    with person() as told_once, person() as told_twice:
        for batch in batches:
            told_once.sees(batch)
            told_twice.sees(batch)
            told_twice.sees(batch)
        for batch in repeats:
            told_twice.sees(batch)
        assert told_twice.updates.stream("u") == told_once.updates.stream("u")
        assert told_twice.versions() == told_once.versions()


def stages_of(policy: Model, sampling: Sampling, window: int, slices: list[tuple[Interaction, ...]], folder: Path):
    """(stages of one run over all slices, stages of a run over all but the last that then goes on)."""
    key = (content_hash([[asdict(x) for part in slices for x in part]]), "streaming")

    async def both() -> tuple[list[StageSummary], list[StageSummary]]:
        plan = Plan(slices, window - sampling.max_tokens)
        run = await summarize(policy.endpoint, policy.tokenizer, PROMPTS, plan, sampling, list(key), window)
        writer, user = Writer(policy, PROMPTS, sampling, window), key[0]
        with Updates(set_of(folder / user)) as updates:
            stream = updates.keep(Stream(user, key, tuple(Slice((Part("run", part),)) for part in slices[:-1])))
            updates.journal.append(stream.versions[-1], await writer.derive(updates, stream))
            stream = updates.keep(stream.grown("new", slices[-1], updates.unread(stream)))
            updates.journal.append(stream.versions[-1], await writer.derive(updates, stream))
            versions = [updates.version(unit) for unit in stream.versions]
        return list(run.stages), [version.stage for version in versions if version and version.stage]

    return both()


@law
@given(slices=st.lists(names, min_size=2, max_size=5))
def test_law_going_on_after_k_stages_is_a_run_of_k_plus_one(tokenizer, slices):
    histories = [tuple(Interaction(name, f"not {name}") for name in part) for part in slices]
    with tempfile.TemporaryDirectory() as folder:
        policy = Model("m", Echo(), tokenizer, "m")
        run, updates = asyncio.run(stages_of(policy, Sampling(max_tokens=64), 4096, histories, Path(folder)))
    assert run == updates and len(run) == len(slices)


@pytest.mark.slow
async def test_a_real_policy_goes_on_as_if_it_had_never_stopped(model_folder, tmp_path):
    """In float32, whatever else is in the batch: all streams at once, each word drawn from the whole vocabulary.
    The policy is untrained, so in the format that takes any text for a summary."""
    sampling, window = Sampling(1.0, 1.0, -1, 24, form="plain"), 1024
    people = [[(Interaction(f"film {i} {k}", f"other {i}"),) * (1 + i % 3) for k in range(3)] for i in range(16)]
    options = ["--max-model-len", str(window)]
    async with open_model(ModelSpec.parse(f"p={model_folder}"), log_folder=tmp_path, arguments=options) as policy:
        pairs = [stages_of(policy, sampling, window, slices, tmp_path) for slices in people]
        stages = await asyncio.gather(*pairs)
    # After an answer in bad format a run hands on nothing, an update the summary that stands: those are no such pair.
    pairs_compared = [pair for pair in stages if not any(stage.problem for stage in pair[0])]
    assert len(pairs_compared) > 5 and all(run == updates for run, updates in pairs_compared)
    assert len({stage.text for run, _ in pairs_compared for stage in run}) == 3 * len(pairs_compared), "each its own"
