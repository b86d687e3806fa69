"""Which requests become jobs: each that asks for one gets an Exchange."""

import base64
import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.core.digits cimport put_bytes
from gatewayx.gateway.access cimport Access
from gatewayx.gateway.admission cimport Admission
from gatewayx.gateway.asking cimport (
    ABOUT_THE_ANSWER,
    ABOUT_THE_JOB,
    ABOUT_THE_KEY,
    ABOUT_WHO_ASKS,
    FOR_THE_LOG,
    tells_who_asks,
)
from gatewayx.gateway.background_jobs cimport BackgroundJobs
from gatewayx.gateway.background_locations cimport BackgroundLocations
from gatewayx.gateway.batch cimport Batches
from gatewayx.gateway.common cimport Common
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gateway.headers cimport UNIQUE_PREFIX, is_ours, read_headers, read_plugin_headers
from gatewayx.gateway.job_calls cimport JobCall, allow_line, is_batch, is_call, read_call, read_resumption
from gatewayx.gateway.job_request cimport CLIENT, GATEWAY, NORMAL, PLUGIN, JobRequest
from gatewayx.gateway.key_header cimport LEAST_OPEN_KEY_BYTES, is_key_header, key_of_value, key_value
from gatewayx.gateway.keyed_exchange cimport KeyedExchange
from gatewayx.gateway.kept_exchange cimport KeptExchange
from gatewayx.gateway.kept_jobs cimport KeptJobs
from gatewayx.gateway.keys cimport Keys
from gatewayx.gateway.openapi_call cimport is_openapi, read_openapi_call
from gatewayx.gateway.owners cimport Owners
from gatewayx.gateway.preferences cimport Preferences, last_event_id, read_preferences, tells_of_answer
from gatewayx.gateway.routes cimport RecentFunctions, plugin_function_of
from gatewayx.gateway.streamed cimport Streamed
from gatewayx.gateway.tokens cimport Token
from gatewayx.gearman.pool cimport Pool
from gatewayx.http.records cimport Records, is_noted
from gatewayx.http.request cimport METHOD_DELETE, METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_POST, Request

from gatewayx.core.metrics import alone as metrics_alone
from gatewayx.http import outcomes
from gatewayx.http.problems import (
    ALLOW,
    FUNCTION_NOT_ALLOWED,
    MALFORMED_HEADER,
    METHOD_NOT_ALLOWED,
    NO_FUNCTION,
    UNEXPECTED_BODY,
    UNEXPECTED_QUERY,
    RequestError,
)


cdef bytes ALLOW_LINE = ALLOW
cdef bytes HTML = b"text/html; charset=utf-8"
# What the first job's comes after: 10^14 jobs are three years at a million a second.
cdef bytes FIRST_NUMBER = b"00000000000000"


@cython.final
cdef class Gateway(Common):
    """Makes a job of each request.

    pool: where jobs are submitted. admission: which, and how many at once. content_type: of results. job_timeout_s:
    default and maximum of a job's wait. records: where jobs are counted, and of whose requests they are; None for where nobody
    looks. access: who may ask; None for anybody. owners: of keys, where there are several processes. kept: the jobs
    that outlive their requests, and background_jobs: those that clients come back to; None where none are served. keys:
    the idempotency keys; None, with kept, where none are taken.
    max_function_bytes: longest name of a function. refuse_client_unique: clients may not give uniques. max_batch: lines of a
    batch. max_pipelined: of these, under way at once. plugin_compat: take
    requests and answer them as gearmand's HTTP plugin (libgearman-server/plugins/protocol/http) where gatewayx differs from it
    on purpose.
    """

    def __init__(
        self,
        Pool pool not None,
        Admission admission not None,
        *,
        bytes content_type,
        double job_timeout_s,
        Records records=None,
        Access access=None,
        Owners owners=None,
        KeptJobs kept=None,
        BackgroundJobs background_jobs=None,
        Keys keys=None,
        Py_ssize_t max_function_bytes=512,
        Py_ssize_t max_batch=1000,
        Py_ssize_t max_pipelined=64,
        bint refuse_client_unique=False,
        bint plugin_compat=False,
    ):
        self.pool = pool
        self.admission = admission
        self.records = Records(metrics_alone(), pool.turn) if records is None else records
        self.access = Access() if access is None else access
        self.owners = owners
        self.kept = kept
        self.locations = None if kept is None else BackgroundLocations(kept.ids, kept.place, kept.mark)
        self.background_jobs = background_jobs
        self.keys = keys
        self.batches = Batches(self, self.access)
        self.change(
            content_type=content_type,
            job_timeout_s=job_timeout_s,
            max_function_bytes=max_function_bytes,
            max_batch=max_batch,
            max_pipelined=max_pipelined,
            refuse_client_unique=refuse_client_unique,
            plugin_compat=plugin_compat,
        )
        # 100 random bits tell processes, hosts and restarts apart.
        process = base64.b32encode(os.urandom(15))[:20].lower()
        prefix = UNIQUE_PREFIX + process + b"-"
        self.own_unique.size = put_bytes(put_bytes(self.own_unique.text, prefix), FIRST_NUMBER) - self.own_unique.text

    def change(
        self,
        *,
        bytes content_type,
        double job_timeout_s,
        Py_ssize_t max_function_bytes,
        Py_ssize_t max_batch,
        Py_ssize_t max_pipelined,
        bint refuse_client_unique,
        bint plugin_compat,
    ):
        """Be as if it had been made with these, for requests that begin from now on; the Content-Type for all."""
        self.content_type = content_type
        self.job_timeout_s = job_timeout_s
        self.max_function_bytes = max_function_bytes
        self.refuse_client_unique = refuse_client_unique
        self.plugin_compat = plugin_compat
        self.batches.change(max_batch, max_pipelined)
        # A path that came lately may be too long now.
        self.functions = RecentFunctions.__new__(RecentFunctions)
        self.functions.names = self.records.metrics.functions

    def show(self, bytes page not None, bytes lines not None):
        """Answer GET / with this page of HTML, where it is otherwise the want of a function; `lines` are header lines, each whole."""
        self.page = page
        self.page_lines = lines

    def counters(self):
        """What is held now, by name."""
        return {"open_exchanges": self.open_exchanges}

    cdef int wants_header(self, const char* name, Py_ssize_t name_bytes, Py_ssize_t value_bytes) except -1:
        if is_ours(name, name_bytes):
            return ABOUT_THE_JOB
        if tells_who_asks(name, name_bytes):
            return ABOUT_WHO_ASKS
        if tells_of_answer(name, name_bytes, value_bytes):
            return ABOUT_THE_ANSWER
        if is_key_header(name, name_bytes):
            return ABOUT_THE_KEY
        if is_noted(name, name_bytes) and (self.records.log is not None or self.records.takes_names):
            return FOR_THE_LOG
        return 0

    cdef int begin(self, Request request) except -1:
        cdef Exchange exchange
        cdef JobRequest asked
        cdef object refusal = None
        try:
            if self.access.looks_at_all or request.header_kinds & ABOUT_WHO_ASKS:
                if self.access.check(request):
                    return 0
            if request.method == METHOD_OPTIONS or (self.plugin_compat and _is_plugin_check(request)):
                # Answered once it is complete: a request that was cut short gets no 2xx.
                if self.kept is not None and is_call(request.path):
                    allow_line(request.path)
                return 0
            if is_call(request.path) and self.kept is not None:
                return self._begin_call(request)
            if request.method >= METHOD_DELETE:
                return request.owner.answer_problem(request, METHOD_NOT_ALLOWED, None, None)
            exchange = Exchange.__new__(Exchange)
            if request.header_kinds & ABOUT_THE_KEY and self.keys is not None:
                exchange = self._read_keyed(exchange, request)
            elif request.header_kinds & ABOUT_THE_ANSWER and self.kept is not None and not self.plugin_compat:
                asked = self._read_form(exchange, request)
                if asked is not exchange:
                    if not isinstance(asked, Exchange):
                        return self._let_in(asked, request)
                    exchange = <Exchange> asked
            else:
                self._read_head(exchange, request, self.job_timeout_s)
            if exchange.streamed and request.method != METHOD_HEAD:
                exchange = _streamed(exchange)
            if self.access.limits_jobs:
                self.access.check_job(request, exchange)
                exchange.token = self.access.token
                if exchange.token is not None:
                    exchange.token_mark = exchange.token.mark
            # Whether a key is known already, and needs no job, is seen where it is looked for.
            if not request.header_kinds & ABOUT_THE_KEY:
                refusal = self.admission.refusal(exchange.function, self.pool)
            if refusal is not None:
                return request.owner.answer_problem(request, refusal, None, None)
            exchange.gateway = self
            exchange.plugin_compat = self.plugin_compat
            exchange.request = request
            request.context = exchange
            self.open_exchanges += 1
            if self.owners is not None and not request.complete and (
                exchange.unique_origin == CLIENT or request.header_kinds & ABOUT_THE_KEY
            ):
                exchange.relay_body()
        except RequestError as error:
            if error.problem is NO_FUNCTION and self.page is not None and (
                request.method == METHOD_GET or request.method == METHOD_HEAD
            ):
                return 0
            request.owner.answer_problem(request, error.problem, error.detail, error.headers)
        return 0

    cdef int _let_in(self, JobRequest asked, Request request) except -1:
        asked.request = request
        request.context = asked
        self.open_exchanges += 1
        return 0

    cdef int _begin_call(self, Request request) except -1:
        cdef JobCall call
        if is_openapi(request.path):
            return self._let_in(read_openapi_call(self, request), request)
        if is_batch(request.path):
            return self._let_in(self.batches.begin(request), request)
        call = read_call(self, request)
        call.token_mark = self._token_mark(request)
        return self._let_in(call, request)

    cdef JobRequest _read_form(self, Exchange exchange, Request request):
        cdef Preferences preferences
        cdef KeptExchange kept
        cdef JobCall call
        read_preferences(request, &preferences)
        preferences.wants_events = preferences.wants_events and (
            request.method == METHOD_GET or request.method == METHOD_POST
        )
        if not preferences.wants_events and not preferences.respond_async:
            self._read_head(exchange, request, self.job_timeout_s)
            return exchange
        self._read_head(exchange, request, self.kept.timeout_s)
        if preferences.wants_events:
            if request.header_kinds & ABOUT_THE_KEY:
                raise RequestError(MALFORMED_HEADER, "Idempotency-Key cannot stand with Accept: text/event-stream")
            if exchange.background:
                raise RequestError(
                    MALFORMED_HEADER,
                    "X-Gearman-Background cannot stand with Accept: text/event-stream: a background job has no events",
                )
            if preferences.has_event_id:
                call = read_resumption(self, request, last_event_id(request))
                call.token_mark = self._token_mark(request)
                return call
        elif exchange.background:
            # What takes a background job's place is its own queue; nothing of it is kept here.
            exchange.timeout_s = min(exchange.timeout_s, self.job_timeout_s)
            exchange.responds_async = True
            return exchange
        refusal = None if request.header_kinds & ABOUT_THE_KEY else self.kept.refusal()
        if refusal is not None:
            raise RequestError(refusal)
        kept = KeptExchange.__new__(KeptExchange)
        kept.become(exchange)
        kept.streamed = False
        kept.wants_events = preferences.wants_events
        kept.wait_s = min(preferences.wait_s, self.job_timeout_s)
        kept.token_mark = self._token_mark(request)
        return kept

    cdef KeyedExchange _read_keyed(self, Exchange exchange, Request request):
        """The request with its Idempotency-Key; raises RequestError."""
        cdef KeyedExchange keyed = KeyedExchange.__new__(KeyedExchange)
        cdef bint is_relayed = request.owner.is_relayed()
        cdef bytes value, key, hashed
        if self.plugin_compat:
            raise RequestError(MALFORMED_HEADER, "Idempotency-Key is not taken here: --plugin-compat is set")
        if request.method != METHOD_POST:
            raise RequestError(MALFORMED_HEADER, "Idempotency-Key is for POST alone")
        value = key_value(request)
        key = key_of_value(value)
        if self.access.tokens is None and not is_relayed and PyBytes_GET_SIZE(key) < LEAST_OPEN_KEY_BYTES:
            raise RequestError(
                MALFORMED_HEADER,
                f"Idempotency-Key has fewer than {LEAST_OPEN_KEY_BYTES} characters: where clients have no tokens, a key that "
                "can be guessed would be somebody else's result",
            )
        if request.header_kinds & ABOUT_THE_ANSWER:
            exchange = <Exchange> self._read_form(exchange, request)
        else:
            self._read_head(exchange, request, self.job_timeout_s)
        if exchange.unique_origin != GATEWAY:
            raise RequestError(MALFORMED_HEADER, "Idempotency-Key cannot stand with X-Gearman-Unique")
        if exchange.streamed:
            raise RequestError(MALFORMED_HEADER, "Idempotency-Key cannot stand with X-Gearman-Stream")
        exchange.token_mark = self._token_mark(request)
        hashed = self.keys.hashed(key, exchange.token_mark)
        keyed.read(exchange, value, hashed, is_relayed or self.owners is None or self.owners.elsewhere(hashed) < 0)
        request.body_hash = keyed.fingerprint
        return keyed

    cdef bytes _token_mark(self, Request request):
        if request.owner.is_relayed():
            return request.owner.token_mark()
        return None if self.access.token is None else self.access.token.mark

    cdef Token token_of(self, bytes mark):
        return None if self.access.tokens is None else self.access.tokens.of_mark(mark)

    cdef int refused(self, Request request) except -1:
        return self.access.refused(request)

    cdef int handle(self, Request request) except -1:
        # A reference of our own: whoever it is may drop the request's while it runs.
        cdef JobRequest asked = <JobRequest> request.context
        cdef bytes allowed
        if asked is None:
            if request.method == METHOD_OPTIONS:
                request.outcome = <int> outcomes.NO_CONTENT
                allowed = ALLOW_LINE if self.kept is None or not is_call(request.path) else allow_line(request.path)
                return request.owner.answer(
                    request, 204, None, PyBytes_AS_STRING(allowed), PyBytes_GET_SIZE(allowed), None
                )
            if self.page is not None:
                return request.owner.answer(
                    request,
                    200,
                    HTML,
                    PyBytes_AS_STRING(self.page_lines),
                    PyBytes_GET_SIZE(self.page_lines),
                    self.page,
                )
            return request.owner.answer(request, 200, None, NULL, 0, b"")
        return asked.perform()

    cdef int abandon(self, Request request) except -1:
        cdef JobRequest asked = <JobRequest> request.context
        if asked is not None:
            asked.abandon()
        return 0

    cdef int _read_head(self, JobRequest wanted, Request request, double timeout_s) except -1:
        """Fill in what the head asks for; raises RequestError."""
        if self.plugin_compat:
            wanted.function = plugin_function_of(request.path, request.query, self.max_function_bytes)
            request.function_place = self.records.metrics.functions.place_of(wanted.function)
        else:
            wanted.function = self.functions.function_of(request.path, self.max_function_bytes)
            request.function_place = self.functions.place
        if request.note is not None:
            request.note.function = wanted.function
        if not self.admission.allows(wanted.function):
            raise RequestError(FUNCTION_NOT_ALLOWED)
        if self.access.limits_jobs:
            # Before anything else is found in the head: who does not reach a function learns nothing of it.
            self.access.check_function(wanted.function)
        if self.plugin_compat:
            # The plugin reads no body of these, and a query belongs to the name.
            request.discards_body = request.method == METHOD_GET or request.method == METHOD_HEAD
        elif request.method == METHOD_GET or request.method == METHOD_HEAD:
            if request.content_length > 0:
                raise RequestError(UNEXPECTED_BODY)
        elif request.query is not None:
            raise RequestError(UNEXPECTED_QUERY)
        wanted.priority = NORMAL
        wanted.timeout_s = timeout_s
        if request.header_kinds & ABOUT_THE_JOB:
            if self.plugin_compat:
                read_plugin_headers(wanted, request, self.refuse_client_unique)
            else:
                read_headers(wanted, request, self.refuse_client_unique, timeout_s if self.kept is None else self.kept.timeout_s)
        if wanted.unique is None:
            if not self.plugin_compat:
                wanted.unique_origin = GATEWAY
                self.next_unique(&wanted.own_unique)
                return 0
            wanted.unique_origin = PLUGIN
            wanted.unique = b"-"
        if wanted.unique == b"-":
            # Hashed as it arrives, so that a large body does not hold up the loop at its end.
            request.body_hash = wanted.hash_workload(self.pool.start_identity(wanted.function, wanted.unique))
        return 0


cdef Exchange _streamed(Exchange read):
    cdef Streamed exchange = Streamed.__new__(Streamed)
    exchange.become(read)
    return exchange


cdef bint _is_plugin_check(Request request):
    """A HEAD that names no function, which the plugin answers without a job: what a balancer's health check sends."""
    return request.method == METHOD_HEAD and request.query is None and not request.path.strip(b"/")
