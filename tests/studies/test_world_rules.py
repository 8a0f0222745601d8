"""What the rules of the simulated world foresee, counted by hand."""

from alignxplore.world.files import benchmark
from alignxplore.world.text import ATTRIBUTES
from alignxplore.world.users import Choice

STUDY = "world_rules"


def choice(chosen, rejected):
    return Choice(None, chosen, rejected, 1.0, True, ([], []))


def test_rules_differ_in_how_much_of_a_lead_they_keep(study):
    (mood, (calm, wild)), (place, (sea, city)) = list(ATTRIBUTES.items())[:2]
    history = [choice({mood: calm}, {mood: wild})] * 2 + [choice({place: sea}, {place: city})]  # leads of 4 and 2
    target = choice({mood: calm, place: city}, {mood: wild, place: sea})
    right = {name: study.right(rule, [*history, target]) for name, rule in study.RULES.items()}
    assert right == {"signs": 0.5, "two levels": 1.0, "much from seven": 0.5, "counts": 1.0}
    twice = [choice({mood: calm}, {mood: wild})] * 3 + [choice({place: sea}, {place: city})] * 2  # 6 and 4: both much
    right = {name: study.right(rule, [*twice, target]) for name, rule in study.RULES.items()}
    assert right == {"signs": 0.5, "two levels": 0.5, "much from seven": 0.5, "counts": 1.0}
    seven = [choice({mood: calm}, {mood: wild})] * 4 + [choice({place: sea}, {place: city})] * 2  # 8 and 4
    assert study.right(study.RULES["much from seven"], [*seven, target]) == 1.0
    assert study.right(study.RULES["counts"], [*history, choice(target.rejected, target.chosen)]) == 0.0


def test_what_knows_more_foresees_more(study):
    users = [choices for _, choices in benchmark(1, "test", "films", 300)]
    signs, levels, later, counts = (sum(study.right(rule, user) for user in users) for rule in study.RULES.values())
    assert 200 < signs < levels < later < counts < 280
    assert "| ideal reader | 20 |" in study.foreseen(study.RulesOptions(users=20))
