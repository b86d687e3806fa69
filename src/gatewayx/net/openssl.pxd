"""What OpenSSL is told of a context that ssl.SSLContext has no way to tell it."""

# Context of OpenSSL (SSL_CTX), where Python keeps it.
cdef extern from *:
    """
    /* The beginning of PySSLContext in Modules/_ssl.c, the same from Python 3.10 to 3.14. */
    typedef struct {
        PyObject_HEAD
        void *context;
    } gatewayx_ssl_context;
    typedef long (*gatewayx_ctx_ctrl)(void *context, int command, long number, void *value);
    """
    ctypedef struct PythonContext "gatewayx_ssl_context":
        void* context
    # SSL_CTX_ctrl(), which its macros stand for.
    ctypedef long (*ControlContext "gatewayx_ctx_ctrl")(void* context, int command, long number, void* value) noexcept

cdef enum:
    # SSL_CTX_set_session_cache_mode() of OpenSSL, with SSL_SESS_CACHE_OFF (openssl/ssl.h); it returns the mode from before.
    SET_SESSION_CACHE_MODE = 44
    CACHE_OFF = 0
    # SSL_CTX_set_max_cert_list(), which returns the bound from before; a chain of three RSA or ECDSA certificates takes at
    # most 6 KiB.
    SET_MAX_CERT_LIST = 51
    MOST_CHAIN_BYTES = 16384
    # SSL_CTX_set1_groups_list().
    SET_GROUPS_LIST = 92
