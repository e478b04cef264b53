"""Clinical decision support: drug safety over CDS Hooks 2.0 and as a FHIR operation."""
