"""In which order the job servers are asked to take a job that may be merged with others."""

# What a job is ranked by, as a number.
cdef unsigned long long rank_key_of(bytes function, bytes unique, bytes workload)
cdef unsigned long long hash_of(unsigned long long seed, bytes text) noexcept
cdef unsigned long long mixed(unsigned long long state) noexcept
