"""Values by function: for full names, and for all that begin alike.

Settings name functions so: `resize`, or with `*` at the end `image-*`. Of several that fit a function the full name
holds, then the longest beginning.
"""

cimport cython


@cython.final
cdef class FunctionTable:
    """entries: (name, value) pairs, a name as bytes, `*` at its end standing for any rest; no name twice."""

    def __init__(self, entries=()):
        self.names = {name: value for name, value in entries if not name.endswith(b"*")}
        beginnings = [(name.removesuffix(b"*"), value) for name, value in entries if name.endswith(b"*")]
        self.beginnings = tuple(sorted(beginnings, key=lambda entry: len(entry[0]), reverse=True))
        self.empty = not self.names and not self.beginnings

    cdef object find(self, bytes function):
        value = self.names.get(function)
        if value is not None:
            return value
        for beginning, value in self.beginnings:
            if function.startswith(beginning):
                return value
        return None
