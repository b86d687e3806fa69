"""Every count of a process, in a C struct: on the heap, or in a row of shared memory."""

cdef struct Counts:
    # Clients' connections: let in, refused at accept, closed at accept since there was no descriptor for them, closed to
    # make room for new ones, cut off since they did not read.
    unsigned long long connections_accepted
    unsigned long long connections_refused
    unsigned long long connections_unserved
    unsigned long long connections_evicted
    unsigned long long writes_timed_out
    # Requests: answered, refused with an end of reading for whatever reason, those whose client was gone before the answer.
    unsigned long long requests_answered
    unsigned long long requests_refused
    unsigned long long requests_abandoned
    # Requests that the process which owns their key was given, by the first one.
    unsigned long long requests_relayed
    # Refusals that did not leave at once.
    unsigned long long refusals_delayed
    # Unfinished requests, and connections with unread answers, that were ended since the byte budget was crowded or full.
    unsigned long long arrivals_ended
    unsigned long long answers_ended
    # Answers that had begun when whoever made them was gone: the process that owned the request's key, or its connection.
    unsigned long long answers_cut
    # Requests and results that were refused or ended for want of room, each once; counted by whoever refuses.
    unsigned long long budget_refused
    # Requests that were not let in.
    unsigned long long admission_refused
    # Jobs that went to another connection, since the first one was lost or its job server's queue was full.
    unsigned long long moved_jobs
    # Packets of job servers for handles that nobody waits for.
    unsigned long long dropped_packets
    # Cancellations that a job server was asked for, and those that were not, since as many waited as may.
    unsigned long long cancels_requested
    unsigned long long cancels_left_out
    # Lines of the access log, and of the event log, that nobody took in time.
    unsigned long long log_lines_dropped
    unsigned long long log_events_dropped
    # Keys of rates that were forgotten before their time, since others needed their place.
    unsigned long long rates_forgiven
    # Jobs that were kept, by how they have ended, and those whose result made room for others; those that were lost are the jobs
    # whose end nobody will know.
    unsigned long long kept_begun
    unsigned long long kept_succeeded
    unsigned long long kept_failed
    unsigned long long kept_cancelled
    unsigned long long kept_lost
    unsigned long long kept_timed_out
    unsigned long long kept_results_dropped
    # Requests with an idempotency key: those that were the first with theirs, those that were answered with what another one's job came to,
    # once that had ended or by waiting for it, and those that were refused since the key was another request's.
    unsigned long long keys_begun
    unsigned long long keys_replayed
    unsigned long long keys_joined
    unsigned long long keys_reused
    # Jobs that came in batches, and batches.
    unsigned long long batches
    unsigned long long batch_jobs
    # Answers that were streams of events, and those that ended since their client did not read.
    unsigned long long event_streams
    unsigned long long event_streams_cut
    # Questions to job servers about background jobs, and requests for which none was asked since that was too often.
    unsigned long long status_polls
    unsigned long long status_polls_refused
    # TLS handshakes of clients: those that were whole, and those that took up a session; those that failed, and those that were given
    # up before their end, by the client or here.
    unsigned long long tls_full
    unsigned long long tls_resumed
    unsigned long long tls_failed
    unsigned long long tls_left
    # Connections that were closed since they came from no trusted proxy, or did not begin with a PROXY header.
    unsigned long long proxies_untrusted
    unsigned long long proxy_headers_refused


cdef class Counters:
    # The row; on the heap if it is owned, else in the memory of `view`.
    cdef Counts* row
    cdef bint owned
    cdef Py_buffer view
