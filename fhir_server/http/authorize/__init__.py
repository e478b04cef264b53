"""The authorization server over HTTP: one table of endpoints, and the ASGI application of it.

SMART App Launch 2.2 with OpenID Connect. https://hl7.org/fhir/smart-app-launch/STU2.2/
"""
