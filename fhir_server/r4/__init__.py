"""What the R4 specification says, as Python values. https://hl7.org/fhir/R4/"""
