"""Small made-up releases in the forms of their publishers. None of their codes is a real one."""

from collections.abc import Mapping
from pathlib import Path

TABLE = """\ufeffcode,display,parent,colour,display:bn,status
plant,Plant,,,,active
tree,Tree,plant,,গাছ,active
rose,"Rose, red",plant|tree,red|pink,গোলাপ,active
weed,Weed,plant,,,retired
"""

LOINC: Mapping[str, str] = {
    "LoincTable/Loinc.csv": (
        '"LOINC_NUM","COMPONENT","PROPERTY","SYSTEM","STATUS","CLASS","LONG_COMMON_NAME","SHORTNAME"\n'
        '"1-0","Sugar","MCnc","Ser","ACTIVE","CHEM","Sugar in Serum","Sugar Ser"\n'
        '"2-0","Colour","Type","Eye","DEPRECATED","EYE","Colour, of Eye",""\n'
    ),
    "AccessoryFiles/PartFile/LoincPartLink_Primary.csv": (
        '"LoincNumber","PartNumber","PartName","Property"\n'
        '"1-0","LP1-0","Sugar","http://loinc.org/property/COMPONENT"\n'
    ),
    "AccessoryFiles/PartFile/Part.csv": (
        '"PartNumber","PartTypeName","PartName","PartDisplayName","Status"\n'
        '"LP1-0","COMPONENT","Sugar","Sugar","ACTIVE"\n'
    ),
    "AccessoryFiles/ComponentHierarchyBySystem/ComponentHierarchyBySystem.csv": (
        '"PATH_TO_ROOT","SEQUENCE","IMMEDIATE_PARENT","CODE","CODE_TEXT"\n'
        '"","1","","LP9-0","Component"\n'
        '"LP9-0","1","LP9-0","LP1-0","Sugar"\n'
        '"LP9-0.LP1-0","1","LP1-0","1-0","Sugar Ser"\n'
    ),
    "AccessoryFiles/AnswerFile/AnswerList.csv": (
        '"AnswerListId","AnswerListName","AnswerStringId","DisplayText"\n'
        '"LL1-0","Eye colours","LA1-0","Brown"\n"LL1-0","Eye colours","LA2-0","Blue"\n'
        '"LL2-0","Skies","LA2-0","Blue"\n'
    ),
    "AccessoryFiles/AnswerFile/LoincAnswerListLink.csv": (
        '"LoincNumber","AnswerListId"\n"2-0","LL1-0"\n'
    ),
    "AccessoryFiles/LinguisticVariants/frFR8LinguisticVariant.csv": (
        '"LOINC_NUM","LONG_COMMON_NAME"\n"1-0","Sucre dans le sérum"\n'
    ),
}

_US = "900000000000509007"
_FULL, _SYNONYM = "900000000000003001", "900000000000013009"
_PREFERRED, _ACCEPTABLE = "900000000000548007", "900000000000549004"
_RF2: Mapping[str, list[tuple[str, ...]]] = {
    "Terminology/sct2_Concept_Snapshot_INT_20260101.txt": [
        ("id", "effectiveTime", "active", "moduleId", "definitionStatusId"),
        ("1000001", "20260101", "1", "9", "900000000000074008"),
        ("1000003", "20260101", "1", "9", "900000000000073002"),
        ("1000002", "20260101", "0", "9", "900000000000074008"),
    ],
    "Terminology/sct2_Description_Snapshot-en_INT_20260101.txt": [
        ("id", "active", "conceptId", "languageCode", "typeId", "term"),
        ("11", "1", "1000001", "en", _FULL, "Finding (finding)"),
        ("12", "1", "1000001", "en", _SYNONYM, "Clinical finding"),
        ("13", "1", "1000001", "en", _SYNONYM, "Finding"),
        ("31", "1", "1000003", "en", _FULL, 'A "quoted" cough (finding)'),
        ("32", "0", "1000003", "en", _SYNONYM, "No longer said"),
        ("21", "1", "1000002", "en", _SYNONYM, "Old"),
    ],
    "Terminology/sct2_Relationship_Snapshot_INT_20260101.txt": [
        ("id", "active", "sourceId", "destinationId", "relationshipGroup", "typeId"),
        ("1", "1", "1000003", "1000001", "0", "116680003"),
        ("2", "1", "1000003", "1000002", "1", "363698007"),
        ("3", "0", "1000001", "1000002", "0", "116680003"),
    ],
    "Refset/Language/der2_cRefset_LanguageSnapshot-en_INT_20260101.txt": [
        ("id", "active", "refsetId", "referencedComponentId", "acceptabilityId"),
        ("a", "1", _US, "12", _ACCEPTABLE),
        ("b", "1", _US, "13", _PREFERRED),
    ],
    "Refset/Content/der2_Refset_SimpleSnapshot_INT_20260101.txt": [
        ("id", "active", "refsetId", "referencedComponentId"),
        ("c", "1", "1000009", "1000003"),
        ("d", "0", "1000009", "1000001"),
    ],
}
SNOMED: Mapping[str, str] = {
    f"Snapshot/{name}": "".join("\t".join(line) + "\r\n" for line in lines)
    for name, lines in _RF2.items()
}


def written(files: Mapping[str, str], folder: Path) -> Path:
    """Write ``files`` below ``folder``, and return it."""
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8", newline="")
    return folder
