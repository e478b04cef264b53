"""FHIRPath: text -> tree -> functions -> values. The one front is :mod:`.engine`."""
