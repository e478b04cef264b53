"""Changes to a part of a resource: resource and patch in, resource out. Pure.

https://hl7.org/fhir/R4/http.html#patch
"""
