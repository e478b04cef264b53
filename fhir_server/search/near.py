"""``near``: positions within a distance of a point.

https://hl7.org/fhir/R4/location.html#positional

A key is a GeoJSON point (WGS84). Distances are those on a sphere of the earth's mean radius, which
differ from the ellipsoid's by half a percent at most.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from fhir_server.outcome import invalid_value
from fhir_server.r4.decimals import number
from fhir_server.r4.ucum import Units
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import Filter
from fhir_server.search.number import decimal

EARTH_RADIUS_KM = 6371.0088  # the mean radius of WGS84
DISTANCE_KM = Decimal(50)
"""Where no distance is given: a day's way to a clinic and back."""

_LATITUDE_MAX, _LONGITUDE_MAX = 90, 180
_FARTHEST_KM = 20_038  # half the equator: everything
_UNITS = {"": "km", "mi": "[mi_i]"}  # the names that the specification's examples use


def _position(position: Any) -> list[Any]:
    latitude, longitude = decimal(position.get("latitude")), decimal(position.get("longitude"))
    if latitude is None or longitude is None:
        return []
    if abs(latitude) > _LATITUDE_MAX or abs(longitude) > _LONGITUDE_MAX:
        return []
    return [{"type": "Point", "coordinates": [float(longitude), float(latitude)]}]


INDEXED: Mapping[str, Callable[[Any], list[Any]]] = {"BackboneElement": _position}
"""FHIR type -> what is written for a value of it."""


def compile_near(field: str, value: str, *, units: Units) -> Filter:
    """Return the filter for one value, ``latitude|longitude[|distance[|unit]]``.

    The unit is ``km`` (which it is if not given), ``mi`` or a length of UCUM. ``units`` converts
    it.

    Raises ``value`` for another form, a point outside the earth, or a unit that is no length.
    """
    parts = [unescape(part) for part in split(value, "|")]
    if not 2 <= len(parts) <= 4:
        raise invalid_value("A place", value, "latitude|longitude|distance|unit")
    latitude, longitude = number(parts[0]), number(parts[1])
    if abs(latitude) > _LATITUDE_MAX or abs(longitude) > _LONGITUDE_MAX:
        raise invalid_value("A place", value, "a latitude within 90 and a longitude within 180")
    distance = number(parts[2]) if len(parts) > 2 and parts[2] else DISTANCE_KM
    if distance < 0:
        raise invalid_value("A distance", parts[2], "a number that is not negative")
    unit = parts[3] if len(parts) > 3 else ""
    kilometres = min(_kilometres(distance, unit, units), Decimal(_FARTHEST_KM))
    centre = [float(longitude), float(latitude)]
    sphere = [centre, float(kilometres) / EARTH_RADIUS_KM]
    return {field: {"$geoWithin": {"$centerSphere": sphere}}}


def _kilometres(distance: Decimal, unit: str, units: Units) -> Decimal:
    if unit in ("", "km"):
        return distance
    scale = units.scale(_UNITS.get(unit, unit))
    if scale is None or scale.base != "m":
        raise invalid_value("A unit of distance", unit, "km, mi or a length of UCUM such as m")
    return scale.canonical(distance) / 1000
