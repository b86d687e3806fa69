"""In which order the job servers are asked to take a job that may be merged with others.

Rendezvous hashing (Thaler and Ravishankar, 1996). The hash is public and fixed: every process and every gateway with the
same server names ranks them alike.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

# A workload by which a job server is ranked counts by its length and its first and last so many bytes.
RANKED_BYTES = 4096


cdef unsigned long long rank_key_of(bytes function, bytes unique, bytes workload):
    """The same in every gateway, so that all send what is to be merged to one job server."""
    cdef unsigned long long key = hash_of(hash_of(0, function) + 1, unique)
    if unique == b"-":
        key = hash_of(key + <unsigned long long> len(workload), workload[:RANKED_BYTES])
        key = hash_of(key, workload[-RANKED_BYTES:])
    return key


cdef unsigned long long hash_of(unsigned long long seed, bytes text) noexcept:
    """FNV-1a of 64 bits, from an offset basis that differs by seed."""
    cdef unsigned long long state = 0xCBF29CE484222325 ^ seed
    cdef const unsigned char* byte = <const unsigned char*> PyBytes_AS_STRING(text)
    cdef Py_ssize_t index
    for index in range(PyBytes_GET_SIZE(text)):
        state = (state ^ byte[index]) * <unsigned long long> 0x100000001B3
    return state


cdef unsigned long long mixed(unsigned long long state) noexcept:
    """The finalizer of splitmix64: keys that differ in a bit rank alike by chance only."""
    state = (state ^ (state >> 30)) * <unsigned long long> 0xBF58476D1CE4E5B9
    state = (state ^ (state >> 27)) * <unsigned long long> 0x94D049BB133111EB
    return state ^ (state >> 31)
