"""What OpenSSL is told of a context that ssl.SSLContext has no way to tell it: groups of keys, to keep no sessions, and bounds.

OpenSSL takes part in every group of TLS 1.3 by default, those of finite fields up to ffdhe8192 among them. A client chooses: it sends
any number as its share, for nothing, and the server computes for 0.1 s where X25519 takes it 0.1 ms (D(HE)at, CVE-2022-40735). So
the groups are named, as Mozilla's "intermediate" configuration names them. Before Python 3.15 ssl.SSLContext can be told of one
group alone (set_ecdh_curve()), while OpenSSL takes a list.

OpenSSL keeps sessions too, 20,480 of a context, each with its client's certificate: those of TLS 1.2 with clients that take no
tickets, and they are known in one worker process alone.

Of a client that is asked for its certificate it reads 100 KiB of them, whoever has signed those: their keys alone take 0.1 ms
each to decode, so that 250 of them hold the loop up for 30 ms.
"""

import ssl

cdef extern from "<dlfcn.h>":
    enum:
        RTLD_LAZY
        RTLD_NOLOAD
    void* dlopen(const char* path, int mode)
    void* dlsym(void* library, const char* name)

# The list of OpenSSL 3.5 and later, with the group that quantum computers do not break, and that of those before it.
GROUPS = ("X25519MLKEM768:X25519:prime256v1:secp384r1", "X25519:prime256v1:secp384r1")
EVERYBODYS = "prime256v1"

# For Python.
globals().update(MOST_CHAIN_BYTES=<int> MOST_CHAIN_BYTES)


def limit_groups(context not None):
    """Exchange keys in groups of GROUPS alone, of which each costs about as much as a signature.

    Returns whether OpenSSL could be told so; if not, only the group is left that every client has, and those that guess another one
    come in a round trip later.
    """
    for groups in GROUPS:
        if _set_groups(context, groups):
            return True
    context.set_ecdh_curve(EVERYBODYS)
    return False


def keep_no_sessions(context not None):
    """Have whoever takes no ticket make a full handshake each time, so that clients hold no memory once they are gone.

    Returns whether OpenSSL could be told so; if not, it keeps sessions as it does by default. Tickets are not kept by a server, and
    stay.
    """
    return _tell(context, SET_SESSION_CACHE_MODE, CACHE_OFF, NULL) >= 0


def limit_chains(context not None):
    """Read at most MOST_CHAIN_BYTES of certificates that a client shows; with more its handshake fails before any is decoded.

    Returns whether OpenSSL could be told so; if not, it reads 100 KiB as it does by default.
    """
    return _tell(context, SET_MAX_CERT_LIST, MOST_CHAIN_BYTES, NULL) >= 0


cdef bint _set_groups(context, str groups) except -1:
    cdef bytes text = groups.encode()
    if hasattr(context, "set_groups"):
        try:
            context.set_groups(groups)
        except ssl.SSLError:
            return False
        return True
    return _tell(context, SET_GROUPS_LIST, 0, <char*> text) == 1


cdef long _tell(context, int command, long number, char* text) except? -1:
    """What SSL_CTX_ctrl() returns, which is never negative for these commands; -1 where it cannot be reached."""
    cdef ControlContext control = _control()
    return -1 if control == NULL else control((<PythonContext*> context).context, command, number, text)


cdef ControlContext _control() except? NULL:
    """SSL_CTX_ctrl() of the OpenSSL that Python itself uses; NULL where it cannot be reached, as in a Python that has it built in."""
    import _ssl

    # Python's module is loaded already, and what it stands on with it. What another library has of this name is for other contexts.
    cdef bytes path = getattr(_ssl, "__file__", "").encode()
    cdef void* library = dlopen(<char*> path, RTLD_LAZY | RTLD_NOLOAD) if path else NULL
    return NULL if library == NULL else <ControlContext> dlsym(library, "SSL_CTX_ctrl")
