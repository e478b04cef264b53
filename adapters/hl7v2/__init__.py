"""HL7 v2 in: messages become FHIR resources, in one transaction each, before they are acknowledged.

design/hl7v2.md; the rules of the mapping are those of the HL7 v2-to-FHIR implementation guide,
https://hl7.org/fhir/uv/v2mappings/
"""
