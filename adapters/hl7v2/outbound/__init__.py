"""Resources to v2 messages, for those who understand nothing else; pure.

HL7 v2.5.1, chapters 2, 3 and 7. What a message of ours says, our own reader reads back: the rows
here are those of ``segments/`` the other way round.
"""
