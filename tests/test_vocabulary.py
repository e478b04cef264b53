"""Code systems as their publishers hand them out, into the database and asked about there."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fhir_server import vocabulary
from fhir_server.app import Server
from fhir_server.interactions.coding import answered
from fhir_server.messages import Request
from fhir_server.r4.questions import CodeInSystem
from fhir_server.store.concepts import Loading
from fhir_server.terminology.sources.source import Concept, Unreadable
from tests.conftest import Fhir
from tests.terminology.releases import LOINC, SNOMED, TABLE, written

PLANTS = vocabulary.Described("http://x/plants", "1", "Plants")
LOINC_2 = vocabulary.Described(version="2.99")
SCT = "http://snomed.info/sct"
SCT_VERSION = f"{SCT}/900000000000207008/version/20260101"


def concepts(path: Path, described: vocabulary.Described) -> dict[str, Concept]:
    """Return the concepts at ``path`` by their codes."""
    with vocabulary.files_at(path) as files, vocabulary.source(files, described) as found:
        return {one["code"]: one for one in found.concepts}


def properties(concept: Concept) -> list[tuple[str, Any]]:
    """Return the properties of ``concept``: name and value, of a Coding the code."""
    found = []
    for one in concept.get("property", ()):
        [value] = (value for name, value in one.items() if name != "code")
        found.append((one["code"], value["code"] if isinstance(value, dict) else value))
    return found


async def load(path: Path, described: vocabulary.Described, server: Server) -> int:
    """Load what is at ``path``."""
    with vocabulary.files_at(path) as files, vocabulary.source(files, described) as found:
        return await vocabulary.load_system(found, vocabulary.fingerprint(files), server.context)


async def has(server: Server, system: str, *codes: str, version: str = "") -> list[bool | None]:
    """Return whether ``system`` has each of ``codes``."""
    questions = [CodeInSystem(system, code, version=version) for code in codes]
    answers = await answered(questions, server.context)
    return [answers[one].result for one in questions]


class TestTable:
    """A table of a spreadsheet."""

    def test_its_columns(self, tmp_path: Path) -> None:
        """Parents, properties, languages and status; a comma in quotes parts nothing."""
        found = concepts(written({"plants.csv": TABLE}, tmp_path), PLANTS)

        assert list(found) == ["plant", "tree", "rose", "weed"]
        assert found["rose"]["display"] == "Rose, red"
        assert found["rose"]["designation"] == [{"language": "bn", "value": "গোলাপ"}]
        assert properties(found["rose"]) == [
            *(("parent", "plant"), ("parent", "tree"), ("status", "active")),
            *(("colour", "red"), ("colour", "pink")),
        ]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("name\nx\n", "has no column code"),
            ("code,code\nx,y\n", "column code twice"),
            ("code,display\nx\n", "line 2: 1 columns; the header has 2"),
            ("code,parent\na,b\n", "names parents that it does not have: b"),
            ("code\na\na\n", "codes twice: a"),
            ("code\n", "has no concept"),
            ("code,$where\na,b\n", "no name of a property"),
            ("code\na\tb\n", "line 2"),
            ('code,display\na,"b\n', "no table that can be read"),
            ("code\n" + "x" * 1_000_001, "over 1,000,000 characters"),
            ("", "has no column code"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, text: str, words: str) -> None:
        """With the line or the column."""
        with pytest.raises(Unreadable, match=words.replace("$", r"\$")):
            concepts(written({"plants.csv": text}, tmp_path), PLANTS)

    def test_another_encoding_is_refused(self, tmp_path: Path) -> None:
        """Nothing is guessed: a display with wrong letters would be found by nobody."""
        (tmp_path / "a.csv").write_bytes("code,display\na,é\n".encode("latin-1"))
        with pytest.raises(Unreadable, match="not in UTF-8"):
            concepts(tmp_path, PLANTS)

    def test_the_url_is_needed(self, tmp_path: Path) -> None:
        """A table does not say what it is."""
        with pytest.raises(Unreadable, match="--url"):
            concepts(written({"a.csv": TABLE}, tmp_path), vocabulary.Described())


class TestLoinc:
    """LOINC's files."""

    def test_terms_parts_and_answers(self, tmp_path: Path) -> None:
        """Everything that can be a code is one."""
        found = concepts(written(LOINC, tmp_path), LOINC_2)

        assert set(found) == {
            *("1-0", "2-0", "LP1-0", "LP9-0", "LL1-0", "LL2-0", "LA1-0", "LA2-0"),
        }
        assert found["1-0"]["display"] == "Sugar in Serum"
        assert properties(found["1-0"]) == [
            *(("parent", "LP1-0"), ("COMPONENT", "LP1-0"), ("PROPERTY", "MCnc")),
            *(("SYSTEM", "Ser"), ("CLASS", "CHEM"), ("STATUS", "ACTIVE")),
        ]
        languages = [(one["language"], one["value"]) for one in found["1-0"]["designation"]]
        assert languages == [("en", "Sugar Ser"), ("fr-FR", "Sucre dans le sérum")]
        assert ("inactive", True) in properties(found["2-0"])
        assert ("answer-list", "LL1-0") in properties(found["2-0"])
        assert properties(found["LA2-0"]) == [("LIST", "LL1-0"), ("LIST", "LL2-0")]
        assert properties(found["LP1-0"]) == [("parent", "LP9-0")]

    def test_the_table_alone_will_do(self, tmp_path: Path) -> None:
        """The other files may be missing."""
        alone = {name: text for name, text in LOINC.items() if name.endswith("Loinc.csv")}

        assert set(concepts(written(alone, tmp_path), LOINC_2)) == {"1-0", "2-0"}

    def test_the_version_is_needed(self, tmp_path: Path) -> None:
        """No file says it."""
        with pytest.raises(Unreadable, match="--version"):
            concepts(written(LOINC, tmp_path), vocabulary.Described())


class TestSnomed:
    """RF2."""

    def test_concepts(self, tmp_path: Path) -> None:
        """In the order of ids; what is no longer active is not said; quotes are letters."""
        found = concepts(written(SNOMED, tmp_path), vocabulary.Described())

        assert list(found) == ["1000001", "1000002", "1000003"]
        assert found["1000001"]["display"] == "Finding"
        assert found["1000003"]["display"] == 'A "quoted" cough (finding)'
        values = [one["value"] for one in found["1000001"]["designation"]]
        assert values == ["Finding (finding)", "Clinical finding", "Finding"]
        assert len(found["1000003"]["designation"]) == 1
        assert properties(found["1000003"]) == [
            *(("inactive", False), ("sufficientlyDefined", True), ("moduleId", "9")),
            *(("parent", "1000001"), ("363698007", "1000002"), ("refset", "1000009")),
        ]
        assert dict(properties(found["1000002"]))["inactive"] is True

    def test_a_short_line_is_said(self, tmp_path: Path) -> None:
        """With file and line."""
        name = "Snapshot/Terminology/sct2_Relationship_Snapshot_INT_20260101.txt"
        files = {**SNOMED, name: SNOMED[name] + "4\t1\r\n"}
        with pytest.raises(Unreadable, match="line 5: 2 columns; the header has 6"):
            concepts(written(files, tmp_path), vocabulary.Described())


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.txt": "x"}, "neither a SNOMED CT release"),
        ({"a.csv": TABLE, "b.csv": TABLE}, "neither a SNOMED CT release"),
        ({}, "neither a SNOMED CT release"),
        ({"a.json": '{"resourceType": "Patient"}'}, "no CodeSystem"),
        ({"a.json": '{"resourceType": "CodeSystem", "content": "complete"}'}, "needs a url"),
    ],
)
def test_what_is_none_of_these_is_refused(
    tmp_path: Path, files: Mapping[str, str], words: str
) -> None:
    """With what it should have been."""
    with pytest.raises(Unreadable, match=words):
        concepts(written(files, tmp_path), PLANTS)


def test_a_zip_is_read_where_it_is(tmp_path: Path) -> None:
    """Nothing is unpacked, whatever the names in it say; what is no zip is refused."""
    folder = written(LOINC, tmp_path / "loinc")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in LOINC:
            archive.write(folder / name, f"../../{name}")
    (tmp_path / "b.zip").write_text("no zip")

    assert concepts(tmp_path / "a.zip", LOINC_2) == concepts(folder, LOINC_2)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.zip", "b.zip", "loinc"]
    with pytest.raises(Unreadable, match="no zip"):
        concepts(tmp_path / "b.zip", LOINC_2)
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        concepts(tmp_path / "nowhere", LOINC_2)


async def test_what_was_loaded_is_answered(server: Server, fhir: Fhir, tmp_path: Path) -> None:
    """Three publishers; the CodeSystem of each says how many concepts there are."""
    table = await load(written({"plants.csv": TABLE}, tmp_path / "a"), PLANTS, server)
    loinc = await load(written(LOINC, tmp_path / "b"), LOINC_2, server)
    snomed = await load(written(SNOMED, tmp_path / "c"), vocabulary.Described(), server)
    answer = await fhir(Request("search-type", "CodeSystem", parameters=(("_sort", "url"),)))
    heads = [one["resource"] for one in json.loads(answer.body)["entry"]]

    assert (table, loinc, snomed) == (4, 8, 3)
    assert await has(server, "http://x/plants", "rose", "lily") == [True, False]
    assert await has(server, "http://loinc.org", "1-0", "LA2-0", "9-9") == [True, True, False]
    assert await has(server, SCT, "1000003", "9999999") == [True, False]
    assert await has(server, SCT, "1000003", version=SCT_VERSION) == [True]
    assert [(one["url"], one["count"]) for one in heads] == [
        *(("http://loinc.org", 8), (SCT, 3), ("http://x/plants", 4)),
    ]


async def test_versions_are_side_by_side_and_one_is_replaced(
    server: Server, tmp_path: Path
) -> None:
    """The same version again takes the place of the older one; another stands beside it."""
    folder = written({"plants.csv": TABLE}, tmp_path)
    await load(folder, PLANTS, server)
    written({"plants.csv": "code\nlily\n"}, folder)
    await load(folder, vocabulary.Described(PLANTS.url, "2"), server)
    both = [await has(server, PLANTS.url, "rose", "lily", version=one) for one in "12"]
    await load(folder, PLANTS, server)

    assert both == [[True, False], [False, True]]
    assert await has(server, PLANTS.url, "rose", "lily", version="1") == [False, True]
    assert await server.database["CodeSystem"].count_documents({}) == 2
    assert await vocabulary.remove_system(PLANTS.url, "1", server.context)
    assert not await vocabulary.remove_system(PLANTS.url, "1", server.context)
    assert await has(server, PLANTS.url, "lily", version="1") == [None]
    assert await has(server, PLANTS.url, "lily", version="2") == [True]


async def test_a_faulty_version_leaves_the_old_one(server: Server, tmp_path: Path) -> None:
    """Files that do not fit together change nothing, and leave nothing."""
    folder = written({"plants.csv": TABLE}, tmp_path)
    await load(folder, PLANTS, server)
    written({"plants.csv": "code,parent\nlily,flower\n"}, folder)
    with pytest.raises(Unreadable, match="flower"):
        await load(folder, PLANTS, server)

    assert await has(server, PLANTS.url, "rose", "lily") == [True, False]
    assert await server.database["shelves"].count_documents({}) == 1
    assert await server.database["concepts"].count_documents({}) == 4


@pytest.mark.parametrize("same", [True, False], ids=["same files", "other files"])
async def test_an_interrupted_load_goes_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, same: bool
) -> None:
    """Behind what is there, if the files are the same; from the beginning if they are not."""
    monkeypatch.setattr(vocabulary, "BATCH", 1)
    folder = written({"plants.csv": TABLE}, tmp_path)
    added: list[str] = []
    add = Loading.add

    async def failing(self: Loading, batch: Any, position: str = "") -> None:
        if len(added) == 2:
            raise KeyboardInterrupt
        added.extend(one["code"] for one in batch)
        await add(self, batch, position)

    with monkeypatch.context() as patched:
        patched.setattr(Loading, "add", failing)
        with pytest.raises(KeyboardInterrupt):
            await load(folder, PLANTS, server)
    before = await has(server, PLANTS.url, "plant")
    if not same:
        written({"plants.csv": TABLE.replace("Weed", "Nettle")}, folder)
    written_later: list[str] = []

    async def counted(self: Loading, batch: Any, position: str = "") -> None:
        written_later.extend(one["code"] for one in batch)
        await add(self, batch, position)

    monkeypatch.setattr(Loading, "add", counted)

    assert await load(folder, PLANTS, server) == 4
    assert before == [None]
    assert written_later == (["rose", "weed"] if same else ["plant", "tree", "rose", "weed"])
    assert await has(server, PLANTS.url, "plant", "weed") == [True, True]
    assert await server.database["concepts"].count_documents({}) == 4


async def test_a_resource_is_kept_whole_or_apart(
    server: Server, fhir: Fhir, tmp_path: Path
) -> None:
    """A small one is its resource; a large one has its concepts beside it, with their parents."""
    small: dict[str, Any] = {"resourceType": "CodeSystem", "url": "http://x/s", "status": "active"}
    small |= {"content": "complete", "concept": [{"code": "a", "concept": [{"code": "b"}]}]}
    many = [{"code": f"c{n}", "concept": [{"code": f"d{n}"}]} for n in range(3000)]
    large = {**small, "url": "http://x/l", "version": "7", "concept": many}
    for name, resource in (("s", small), ("l", large)):
        path = written({f"{name}.json": json.dumps(resource)}, tmp_path / name)
        await load(path, vocabulary.Described(), server)
    [row] = await server.database["concepts"].find({"code": "d7"}).to_list()

    assert await has(server, "http://x/s", "b", "c") == [True, False]
    assert await has(server, "http://x/l", "d2999", "d3000") == [True, False]
    assert row["ancestors"] == ["c7", "d7"]
    assert await server.database["concepts"].count_documents({}) == 6000
