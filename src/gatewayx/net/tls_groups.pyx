"""Which groups keys are exchanged in.

OpenSSL takes part in every group of TLS 1.3 by default, those of finite fields up to ffdhe8192 among them. A client chooses: it sends
any number as its share, for nothing, and the server computes for 0.1 s where X25519 takes it 0.1 ms (D(HE)at, CVE-2022-40735). So
the groups are named, as Mozilla's "intermediate" configuration names them. Before Python 3.15 ssl.SSLContext can be told of one
group alone (set_ecdh_curve()), while OpenSSL takes a list.
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


cdef bint _set_groups(context, str groups) except -1:
    cdef ControlContext control
    cdef bytes text = groups.encode()
    if hasattr(context, "set_groups"):
        try:
            context.set_groups(groups)
        except ssl.SSLError:
            return False
        return True
    control = _control()
    return control != NULL and control((<PythonContext*> context).context, SET_GROUPS_LIST, 0, <char*> text) == 1


cdef ControlContext _control() except? NULL:
    """SSL_CTX_ctrl() of the OpenSSL that Python itself uses; NULL where it cannot be reached, as in a Python that has it built in."""
    import _ssl

    # Python's module is loaded already, and what it stands on with it. What another library has of this name is for other contexts.
    cdef bytes path = getattr(_ssl, "__file__", "").encode()
    cdef void* library = dlopen(<char*> path, RTLD_LAZY | RTLD_NOLOAD) if path else NULL
    return NULL if library == NULL else <ControlContext> dlsym(library, "SSL_CTX_ctrl")
