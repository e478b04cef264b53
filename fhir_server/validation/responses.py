"""QuestionnaireResponses against their Questionnaire.

https://hl7.org/fhir/R4/questionnaireresponse.html#notes
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fhir_server.outcome import nearest, shown
from fhir_server.r4.questions import Canonical
from fhir_server.validation.coded import membership
from fhir_server.validation.running import PENDING, Item, Run
from fhir_server.validation.values import has_pattern

Json = dict[str, Any]
_ANSWERS: Mapping[str, tuple[str, ...]] = {
    "boolean": ("valueBoolean",),
    "decimal": ("valueDecimal", "valueInteger"),
    "integer": ("valueInteger",),
    "date": ("valueDate",),
    "dateTime": ("valueDateTime",),
    "time": ("valueTime",),
    "string": ("valueString",),
    "text": ("valueString",),
    "url": ("valueUri",),
    "choice": ("valueCoding", "valueInteger", "valueDate", "valueTime", "valueString"),
    "open-choice": ("valueCoding", "valueInteger", "valueDate", "valueTime", "valueString"),
    "attachment": ("valueAttachment",),
    "reference": ("valueReference",),
    "quantity": ("valueQuantity",),
}
_COMPLETE = ("completed", "amended")
_DEPTH_MAX = 50


def response_check(run: Run, item: Item) -> None:
    """Judge a QuestionnaireResponse by the Questionnaire that it names, where that is known."""
    questionnaire = _questionnaire(run, item)
    if questionnaire is None or questionnaire is PENDING:
        return
    is_complete = item.value.get("status") in _COMPLETE
    _Judging(run, item, is_complete).items(
        _objects(item.value, "item"), _objects(questionnaire, "item"), "", 0
    )


def _questionnaire(run: Run, item: Item) -> Any:
    canonical = item.value.get("questionnaire")
    if not isinstance(canonical, str) or not canonical:
        return None
    if canonical.startswith("#"):
        contained = _objects(item.scope.container, "contained")
        return next((one for one in contained if one.get("id") == canonical[1:]), None)
    found = run.answer(Canonical("Questionnaire", canonical))
    if found is None:
        name = shown(canonical, most=300)
        text = f"The Questionnaire {name} is not known here, so the answers were not checked."
        run.add("not-found", text, item, "information", below="questionnaire")
    return found if found is PENDING or isinstance(found, dict) else None


def _objects(value: Any, name: str) -> list[Json]:
    found = value.get(name) if isinstance(value, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


class _Judging:
    """The answers of one response being held against their questions."""

    def __init__(self, run: Run, item: Item, is_complete: bool) -> None:
        self._run = run
        self._item = item
        self._is_complete = is_complete

    def items(self, given: Sequence[Json], asked: Sequence[Json], path: str, depth: int) -> None:
        """Judge the items ``given`` at ``path`` by the questions that may stand there."""
        if depth > _DEPTH_MAX:
            return
        questions = {str(one.get("linkId")): one for one in asked}
        seen: dict[str, int] = {}
        for index, one in enumerate(given):
            place = f"{path}item[{index}]"
            link = str(one.get("linkId"))
            question = questions.get(link)
            if question is None:
                hint = nearest(link, questions)
                self._add(f"The Questionnaire has no item {shown(link)} here.{hint}", place)
                continue
            seen[link] = seen.get(link, 0) + 1
            if seen[link] == 2 and not question.get("repeats"):
                self._add(f"The item {shown(link)} is here twice, and does not repeat.", place)
            self._one(one, question, place, depth)
        for link, question in questions.items():
            if self._is_missed(question) and link not in seen:
                self._add(f"The item {shown(link)} is required, and is not here.", path[:-1])

    def _is_missed(self, question: Json) -> bool:
        # Whether a question with conditions was to be asked depends on other answers.
        return (
            self._is_complete
            and question.get("required") is True
            and not question.get("enableWhen")
            and not question.get("initial")
        )

    def _one(self, given: Json, question: Json, place: str, depth: int) -> None:
        type = str(question.get("type"))
        answers = _objects(given, "answer")
        if type in ("group", "display"):
            if answers:
                self._add(f"A {type} has no answers.", f"{place}.answer[0]")
            self.items(_objects(given, "item"), _objects(question, "item"), f"{place}.", depth + 1)
            return
        if self._is_missed(question) and not answers:
            self._add(
                f"The item {shown(question['linkId'])} is required, and has no answer.", place
            )
        if len(answers) > 1 and not question.get("repeats"):
            self._add("There are several answers; the question has one.", f"{place}.answer[1]")
        for index, answer in enumerate(answers):
            where = f"{place}.answer[{index}]"
            self._answer(answer, question, type, where)
            inside = _objects(answer, "item")
            self.items(inside, _objects(question, "item"), f"{where}.", depth + 1)

    def _answer(self, answer: Json, question: Json, type: str, where: str) -> None:
        member = next((name for name in answer if name.startswith("value")), "")
        if not member:
            return
        where = f"{where}.value"
        wanted = _ANSWERS.get(type, ())
        if wanted and member not in wanted:
            names = " or ".join(wanted)
            self._add(f"The answer is a {member}; a question of type {type} has {names}.", where)
            return
        value = answer[member]
        most = question.get("maxLength")
        if isinstance(most, int) and isinstance(value, str) and len(value) > most:
            self._add(f"The answer has {len(value)} characters; allowed are {most}.", where)
        if type == "choice" or (type == "open-choice" and member != "valueString"):
            self._choice(member, value, question, where)

    def _choice(self, member: str, value: Any, question: Json, where: str) -> None:
        options = _objects(question, "answerOption")
        if options and not any(_is_option(one.get(member), value) for one in options):
            found = value.get("code") if isinstance(value, dict) else value
            codes = list(_codes(options))
            hint = nearest(str(found), codes)
            self._add(f"The answer {shown(found)} is none of the options.{hint}", where)
        value_set = question.get("answerValueSet")
        if isinstance(value_set, str) and not value_set.startswith("#") and member == "valueCoding":
            code, system = value.get("code"), value.get("system")
            if not isinstance(code, str) or not self._run.options.codes:
                return
            verdict = membership(self._run, value_set, str(system or ""), code)
            if verdict is not PENDING and verdict.result is False:
                self._add(f"The answer {shown(code)} is not in {value_set}.", where)

    def _add(self, text: str, below: str) -> None:
        self._run.add("business-rule", text, self._item, below=below)


def _is_option(option: Any, value: Any) -> bool:
    if not isinstance(option, dict) or not isinstance(value, dict):
        return option is not None and has_pattern(value, option)
    wanted = {name: option[name] for name in ("system", "code") if name in option}
    return bool(wanted) and has_pattern(value, wanted)


def _codes(options: Sequence[Json]) -> Iterator[str]:
    for option in options:
        for name, one in option.items():
            if name.startswith("value"):
                yield str(one.get("code") if isinstance(one, dict) else one)
