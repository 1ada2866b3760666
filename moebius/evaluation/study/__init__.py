"""A blind preference study (Sec. 4.3): a page for participants, and what their answers say."""
