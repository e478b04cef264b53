"""NK1 to RelatedPerson, where the sender's profile wants resources instead of contacts.

HL7 v2.5.1, 3.4.5; design/hl7v2.md, section 13 (``next_of_kin``).
"""

from adapters.hl7v2.codes import code, concept
from adapters.hl7v2.datatypes import cx, date, date_time, xad, xpn, xtn
from adapters.hl7v2.rows import Row, Table

RELATIVE = Table(
    "RelatedPerson",
    "NK1",
    [
        Row("NK1-33*", "identifier[+]", cx),
        Row("NK1-2*", "name[]", xpn),
        Row("NK1-3", "relationship[]", concept("Relationship", "0063")),
        Row("NK1-7", "relationship[]", concept("ContactRole", "0131")),
        Row("NK1-4*", "address[]", xad),
        Row("NK1-5*", "telecom[]", xtn("")),
        Row("NK1-6*", "telecom[]", xtn("work")),
        Row("NK1-40*", "telecom[]", xtn("")),
        Row("NK1-41*", "telecom[]", xtn("")),
        Row("NK1-8", "period.start", date_time),
        Row("NK1-9", "period.end", date_time),
        Row("NK1-15", "gender", code("AdministrativeSex", "", "0001")),
        Row("NK1-16", "birthDate", date),
    ],
)
