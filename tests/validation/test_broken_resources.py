"""Resources and profiles that are broken at random places: issues come of them, nothing else."""

import copy
import random
from typing import Any

from fhir_server.validation.profiles import ProfileValidator
from tests.validation.asking import judged
from tests.validation.test_content import FAULTS, QUESTIONS, STRICT
from tests.validation.test_profiles import DEMANDS, PLACES, profile

ROUNDS = 12
WRONG: tuple[Any, ...] = (
    *(None, [], {}, "", 0, True, 1.5, [None], [[]], [{}], {"a": 1}, -1, "#", "Patient/1"),
    *([{"url": "http://a.org"}], {"coding": [None, 3, {"code": 3}]}, [{"resourceType": 3}]),
    *({"resourceType": "Patient"}, {"url": 5}, "http://a.org/Patient/1", [1, 2, 3]),
)


def spoil(value: Any, chance: random.Random, depth: int = 0) -> None:
    """Put something wrong somewhere into ``value``."""
    if not value or not isinstance(value, dict | list):
        return
    key: Any = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if isinstance(value, dict) and chance.random() < 0.1:
        value[f"_{key}"] = copy.deepcopy(chance.choice(WRONG))
    if chance.random() < 0.4 or depth > 5:
        value[key] = copy.deepcopy(chance.choice(WRONG))
    else:
        spoil(value[key], chance, depth + 1)


def test_broken_resources(profiles: ProfileValidator) -> None:
    """Each is judged, by profiles that are whole."""
    chance = random.Random(7)
    known = {**PLACES, QUESTIONS["url"]: QUESTIONS}
    demanded = {
        name: profile(name.replace(" ", "-"), type, *elements)
        for name, (type, elements, *_) in DEMANDS.items()
    }
    corpus = [(one[2], demanded[name]) for name, one in DEMANDS.items()]
    corpus += [(right, demanded["min"]) for right, _, _ in FAULTS.values()]
    for resource, by in corpus:
        for _ in range(ROUNDS):
            broken = copy.deepcopy(resource)
            for _ in range(chance.randrange(1, 4)):
                spoil(broken, chance)
            judged(profiles, broken, {**known, by["url"]: by}, [by["url"]], STRICT)


def test_broken_profiles(profiles: ProfileValidator) -> None:
    """Each resource is judged, by a profile that is broken, and the profile itself is."""
    chance = random.Random(11)
    for name, (type, elements, right, wrong, _) in DEMANDS.items():
        whole = profile(name.replace(" ", "-"), type, *elements)
        for _ in range(ROUNDS):
            broken = copy.deepcopy(whole)
            for _ in range(chance.randrange(1, 4)):
                spoil(broken["differential"]["element"], chance)
            known = {**PLACES, whole["url"]: broken}
            for resource in (right, wrong, broken):
                judged(profiles, resource, known, [whole["url"]])
