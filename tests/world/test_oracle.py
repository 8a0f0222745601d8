"""The teacher of studies/signal_to_sft.sh: what it says is in the prompt."""

import random

from alignxplore.prompts import PromptSet, parse_answer, parse_merge
from alignxplore.world.oracle import answer
from alignxplore.world.text import DOMAINS, item_values, summary_statements, summary_text
from alignxplore.world.users import draw_stream, draw_user


def stream(index: int, length: int = 10):
    return draw_stream(draw_user(1, "oracle", index), DOMAINS[index % 2], length, length, 1)


def test_items_and_summaries_are_read_as_they_were_written():
    rng = random.Random(0)
    for index in range(200):
        for choice in stream(index):
            for text, values in (
                (choice.interaction.chosen, choice.chosen),
                (choice.interaction.rejected, choice.rejected),
            ):
                assert sorted(item_values(text)) == sorted(values.values())
        statements = [tuple(taste) for taste in draw_user(1, "oracle", index).late.values()]
        assert sorted(summary_statements(summary_text(statements, rng))) == sorted(statements)


def test_without_faults_it_says_what_the_choices_show_and_hints_only_keep_what_bears_on_them():
    prompts = PromptSet()
    for index in range(50):
        items = [choice.interaction for choice in stream(index)]
        plain = prompts.infer(items)[1]["content"]
        reply = parse_answer(answer(plain, 0, 0, 0))
        leads: dict[str, int] = {}
        for choice in stream(index):
            for values, sign in ((choice.chosen, 1), (choice.rejected, -1)):
                for value in values.values():
                    leads[value] = leads.get(value, 0) + sign
        assert all(
            leads.get(liked, 0) > leads.get(disliked, 0) for liked, disliked, _ in summary_statements(reply.summary)
        )
        hinted = prompts.render(
            "infer_hint",
            interactions=items,
            past_summary=None,
            query=None,
            item_a="comedy by the sea",
            item_b="drones",
        )
        everything_left_out = parse_answer(answer(hinted[1]["content"], 0, 0, 1)).summary
        tastes = {
            value for liked, disliked, _ in summary_statements(everything_left_out) for value in (liked, disliked)
        }
        assert tastes <= {"humour", "suspense", "sea", "city", "animals", "machines"}
    assert answer("What is the weather?", 0, 0, 0) is None


def test_merging_takes_what_most_annotators_say():
    texts = (
        "Loves humour. Hates suspense. Likes sea. Dislikes city.",
        "Loves humour. Hates suspense.",
        "Likes suspense. Avoids humour. Likes animals. Dislikes machines.",
    )
    annotators = [("seen", text) for text in texts]
    merged = parse_merge(answer(PromptSet().render("merge", summaries=annotators)[1]["content"], 0, 0, 0))
    assert sorted(summary_statements(merged.summary)) == [
        ("animals", "machines", 1),
        ("humour", "suspense", 2),
        ("sea", "city", 1),
    ]
