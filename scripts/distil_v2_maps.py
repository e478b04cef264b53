"""Distil the vocabulary maps of the HL7 v2-to-FHIR guide into ``terminology/hl7v2/``.

    python scripts/distil_v2_maps.py TABLES.json

``TABLES.json`` has the guide's maps (Apache-2.0) as ``{"maps": {name: {"v2table", "map"}}}``, where
``map`` is v2 code -> ``{"code", "display", "system"}`` or a list of them. Written is
``ConceptMap.ndjson``, one map a line, sorted by id. Running the script again changes nothing.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "terminology" / "hl7v2" / "ConceptMap.ndjson"
CANONICAL = "http://hl7.org/fhir/uv/v2mappings/ConceptMap/"


def concept_map(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Return the ConceptMap of one table, with a group for each target system."""
    groups: dict[str, dict[str, Any]] = {}
    source = _source(table)
    for code, targets in table["map"].items():
        for target in targets if isinstance(targets, list) else [targets]:
            system = target.get("system") or "".join((table.get("targets") or [""])[:1])
            group = groups.setdefault(system, {"source": source, "target": system, "element": []})
            found = {"code": target["code"], "equivalence": "equivalent"}
            if target.get("display"):
                found["display"] = target["display"]
            group["element"].append({"code": code, "target": [found]})
    id = "v2-" + re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    return {
        "resourceType": "ConceptMap",
        "id": id[:64],
        "url": CANONICAL + id,
        "name": re.sub(r"\W+", "", name),
        "title": name,
        "status": "draft",
        "group": [
            {key: value for key, value in group.items() if value} for group in groups.values()
        ],
    }


def _source(table: dict[str, Any]) -> str:
    number = re.search(r"(\d{4})$", "".join((table.get("v2table") or [""])[:1]))
    return f"http://terminology.hl7.org/CodeSystem/v2-{number.group(1)}" if number else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path)
    maps = json.loads(parser.parse_args().tables.read_text(encoding="utf-8"))["maps"]
    made = [concept_map(name, table) for name, table in maps.items() if table["map"]]
    lines = [
        json.dumps(one, ensure_ascii=False, separators=(",", ":"))
        for one in sorted(made, key=lambda one: str(one["id"]))
    ]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(made)} maps")


if __name__ == "__main__":
    main()
