"""What this server does beyond plain FHIR REST. A feature is loaded where the settings list it."""
