"""In which order the job servers are asked to take a job that may be merged with others; all of it is C-level."""

RANKED_BYTES: int
