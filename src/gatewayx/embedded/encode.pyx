"""Gearman packets by name, for job servers, workers and clients of the demo, the tests and the fuzzing.

One function a packet type: values in, the packet's bytes out. `packet` makes one of any type. Each raises
InvalidArgumentError for a NUL byte where another argument follows, and for what gearmand would truncate or hang up on.
"""

from gatewayx.gearman.packet cimport (
    MAX_BODY_BYTES,
    MAX_FIRST_ARGUMENT_BYTES,
    MAX_FUNCTION_BYTES,
    MAX_HANDLE_BYTES,
    MAX_UNIQUE_BYTES,
    Magic,
    PacketType,
    check_submit,
    check_text,
    count_arguments,
    pack,
    packet_head,
    type_name,
)

from gatewayx.gearman.errors import InvalidArgumentError

# The types that submit a job for now, all of one shape; and those that name a reducer besides.
SUBMIT_TYPES = frozenset({
    PacketType.SUBMIT_JOB,
    PacketType.SUBMIT_JOB_BG,
    PacketType.SUBMIT_JOB_HIGH,
    PacketType.SUBMIT_JOB_HIGH_BG,
    PacketType.SUBMIT_JOB_LOW,
    PacketType.SUBMIT_JOB_LOW_BG,
})
REDUCE_TYPES = frozenset({PacketType.SUBMIT_REDUCE_JOB, PacketType.SUBMIT_REDUCE_JOB_BACKGROUND})


def packet(unsigned int magic, int packet_type, *arguments):
    """Return the packet of any type, given all its arguments as bytes; the last one may hold anything.

    Raises InvalidArgumentError for a type without a name, the wrong number of arguments, a NUL in any but the last,
    or a body above 2**32 - 1 bytes; TypeError for an argument that is not bytes.
    """
    cdef int count = count_arguments(packet_type)
    if count < 0:
        raise InvalidArgumentError(f"there is no packet type {packet_type}")
    if magic != Magic.REQUEST and magic != Magic.RESPONSE:
        raise InvalidArgumentError(f"magic {magic:#010x} is none of the protocol's")
    if len(arguments) != count:
        raise InvalidArgumentError(f"{type_name(packet_type)} has {count} arguments, not {len(arguments)}")
    if not arguments:
        return packet_head(magic, packet_type, (), 0)
    *leading, last = arguments
    for argument in leading:
        check_text(argument, "argument", MAX_BODY_BYTES)
    return pack(magic, packet_type, tuple(leading), last)


cdef inline int check_submit_type(int packet_type, frozenset allowed) except -1:
    if packet_type not in allowed:
        raise InvalidArgumentError(f"packet type {packet_type} is not one of {sorted(allowed)}")
    return 0


cdef bytes number(object value, str what):
    """A count as decimal ASCII; gearmand reads it with atoi into a uint32."""
    if not 0 <= value <= 0xFFFFFFFF:
        raise InvalidArgumentError(f"{what} {value} does not fit a uint32")
    return b"%d" % value


def can_do(bytes function not None):
    """Worker: it can run jobs of `function`."""
    check_text(function, "function", MAX_FUNCTION_BYTES)
    return pack(Magic.REQUEST, PacketType.CAN_DO, (), function)


def can_do_timeout(bytes function not None, timeout_s):
    """Worker: as CAN_DO, and the job server fails a job that runs longer than `timeout_s` whole seconds."""
    check_text(function, "function", MAX_FUNCTION_BYTES)
    return pack(Magic.REQUEST, PacketType.CAN_DO_TIMEOUT, (function,), number(timeout_s, "timeout_s"))


def cant_do(bytes function not None):
    """Worker: it no longer runs jobs of `function`."""
    check_text(function, "function", MAX_FUNCTION_BYTES)
    return pack(Magic.REQUEST, PacketType.CANT_DO, (), function)


def reset_abilities():
    """Worker: it no longer runs jobs of any function."""
    return packet_head(Magic.REQUEST, PacketType.RESET_ABILITIES, (), 0)


def pre_sleep():
    """Worker: wake me with NOOP when there is a job."""
    return packet_head(Magic.REQUEST, PacketType.PRE_SLEEP, (), 0)


def all_yours():
    """Worker: reserved ("Not yet implemented", PROTOCOL)."""
    return packet_head(Magic.REQUEST, PacketType.ALL_YOURS, (), 0)


def set_client_id(bytes client_id not None):
    """Worker: the name under which `workers` lists this connection."""
    check_text(client_id, "client identifier", MAX_FIRST_ARGUMENT_BYTES)
    return pack(Magic.REQUEST, PacketType.SET_CLIENT_ID, (), client_id)


def grab_job():
    """Worker: asks for a job, answered by JOB_ASSIGN or NO_JOB."""
    return packet_head(Magic.REQUEST, PacketType.GRAB_JOB, (), 0)


def grab_job_uniq():
    """Worker: asks for a job with its unique, answered by JOB_ASSIGN_UNIQ or NO_JOB."""
    return packet_head(Magic.REQUEST, PacketType.GRAB_JOB_UNIQ, (), 0)


def grab_job_all():
    """Worker: asks for a job with its unique and reducer, answered by JOB_ASSIGN_ALL, JOB_ASSIGN_UNIQ or NO_JOB."""
    return packet_head(Magic.REQUEST, PacketType.GRAB_JOB_ALL, (), 0)


def work_data(bytes handle not None, bytes data not None, unsigned int magic=Magic.REQUEST):
    """Worker to job server, or with `Magic.RESPONSE` job server to client: a part of the result."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    return pack(magic, PacketType.WORK_DATA, (handle,), data)


def work_warning(bytes handle not None, bytes data not None, unsigned int magic=Magic.REQUEST):
    """Worker to job server, or with `Magic.RESPONSE` job server to client: a warning."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    return pack(magic, PacketType.WORK_WARNING, (handle,), data)


def work_complete(bytes handle not None, bytes data not None, unsigned int magic=Magic.REQUEST):
    """Worker to job server, or with `Magic.RESPONSE` job server to client: the end of the result."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    return pack(magic, PacketType.WORK_COMPLETE, (handle,), data)


def work_exception(bytes handle not None, bytes data not None, unsigned int magic=Magic.REQUEST):
    """Worker to job server, or with `Magic.RESPONSE` job server to client: the end of a job that raised."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    return pack(magic, PacketType.WORK_EXCEPTION, (handle,), data)


def work_status(bytes handle not None, numerator, denominator, unsigned int magic=Magic.REQUEST):
    """Worker to job server, or with `Magic.RESPONSE` job server to client: how much of the job is done."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    return pack(
        magic, PacketType.WORK_STATUS, (handle, number(numerator, "numerator")), number(denominator, "denominator")
    )


def work_fail(bytes handle not None, unsigned int magic=Magic.REQUEST):
    """Worker to job server, or with `Magic.RESPONSE` job server to client: the job failed."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    return pack(magic, PacketType.WORK_FAIL, (), handle)


def submit_job(int packet_type, bytes function not None, bytes unique not None, bytes workload not None):
    """Client: run a job; `packet_type` is one of SUBMIT_TYPES, answered by JOB_CREATED or ERROR.

    unique: at most MAX_UNIQUE_BYTES; empty never coalesces, `-` coalesces on the workload.
    Raises InvalidArgumentError.
    """
    check_submit_type(packet_type, SUBMIT_TYPES)
    check_submit(function, unique)
    return pack(Magic.REQUEST, packet_type, (function, unique), workload)


def submit_reduce_job(
    int packet_type,
    bytes function not None,
    bytes unique not None,
    bytes reducer not None,
    bytes workload not None,
):
    """Client: run a job with a reducer; `packet_type` is SUBMIT_REDUCE_JOB or SUBMIT_REDUCE_JOB_BACKGROUND.

    The body has a fifth argument between reducer and workload that the PROTOCOL text leaves out and libgearman sends
    (command.h: FUNC UNIQ REDUCER UNUSED ARGS). Raises InvalidArgumentError.
    """
    check_submit_type(packet_type, REDUCE_TYPES)
    check_submit(function, unique)
    check_text(reducer, "reducer", MAX_FUNCTION_BYTES)
    return pack(Magic.REQUEST, packet_type, (function, unique, reducer, b"0"), workload)


def submit_job_sched(
    bytes function not None,
    bytes unique not None,
    minute,
    hour,
    day,
    month,
    weekday,
    bytes workload not None,
):
    """Client: run a background job at a time of the calendar; no known job server implements it.

    minute 0-59, hour 0-23, day 1-31, month 1-12, weekday 0-6 from Monday (PROTOCOL). Raises InvalidArgumentError.
    """
    check_submit(function, unique)
    return pack(
        Magic.REQUEST,
        PacketType.SUBMIT_JOB_SCHED,
        (
            function,
            unique,
            number(minute, "minute"),
            number(hour, "hour"),
            number(day, "day"),
            number(month, "month"),
            number(weekday, "weekday"),
        ),
        workload,
    )


def submit_job_epoch(bytes function not None, bytes unique not None, at_s, bytes workload not None):
    """Client: run a background job at `at_s`, whole seconds since the epoch; gearmand implements it in part only.

    Raises InvalidArgumentError.
    """
    check_submit(function, unique)
    return pack(Magic.REQUEST, PacketType.SUBMIT_JOB_EPOCH, (function, unique, number(at_s, "at_s")), workload)


def get_status(bytes handle not None):
    """Client: what is known of the job with this handle, answered by STATUS_RES."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    return pack(Magic.REQUEST, PacketType.GET_STATUS, (), handle)


def get_status_unique(bytes unique not None):
    """Client: what is known of the job with this unique, answered by STATUS_RES_UNIQUE."""
    check_text(unique, "unique", MAX_UNIQUE_BYTES)
    return pack(Magic.REQUEST, PacketType.GET_STATUS_UNIQUE, (), unique)


def option_req(bytes option not None):
    """Client: set an option of this connection (`exceptions`), answered by OPTION_RES or ERROR."""
    check_text(option, "option", MAX_FIRST_ARGUMENT_BYTES)
    return pack(Magic.REQUEST, PacketType.OPTION_REQ, (), option)


def echo_req(bytes data not None):
    """Client or worker: asks for the same bytes back."""
    return pack(Magic.REQUEST, PacketType.ECHO_REQ, (), data)


def echo_res(bytes data not None):
    """Job server: the bytes of an ECHO_REQ."""
    return pack(Magic.RESPONSE, PacketType.ECHO_RES, (), data)


def error(bytes code not None, bytes text not None):
    """Job server: a request failed; `code` is upper-case ASCII, `text` is for people."""
    check_text(code, "error code", MAX_FIRST_ARGUMENT_BYTES)
    return pack(Magic.RESPONSE, PacketType.ERROR, (code,), text)


def option_res(bytes option not None):
    """Job server: the option is set."""
    check_text(option, "option", MAX_FIRST_ARGUMENT_BYTES)
    return pack(Magic.RESPONSE, PacketType.OPTION_RES, (), option)


def noop():
    """Job server to a sleeping worker: there may be a job."""
    return packet_head(Magic.RESPONSE, PacketType.NOOP, (), 0)


def no_job():
    """Job server to a worker: there is no job."""
    return packet_head(Magic.RESPONSE, PacketType.NO_JOB, (), 0)


def job_created(bytes handle not None):
    """Job server to a client: the job is queued."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    return pack(Magic.RESPONSE, PacketType.JOB_CREATED, (), handle)


def job_assign(bytes handle not None, bytes function not None, bytes workload not None):
    """Job server to a worker: run this job."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    check_text(function, "function", MAX_FUNCTION_BYTES)
    return pack(Magic.RESPONSE, PacketType.JOB_ASSIGN, (handle, function), workload)


def job_assign_uniq(
    bytes handle not None, bytes function not None, bytes unique not None, bytes workload not None
):
    """Job server to a worker: run this job, whose unique is given."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    check_submit(function, unique)
    return pack(Magic.RESPONSE, PacketType.JOB_ASSIGN_UNIQ, (handle, function, unique), workload)


def job_assign_all(
    bytes handle not None,
    bytes function not None,
    bytes unique not None,
    bytes reducer not None,
    bytes workload not None,
):
    """Job server to a worker: run this job, whose unique and reducer are given."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    check_submit(function, unique)
    check_text(reducer, "reducer", MAX_FUNCTION_BYTES)
    return pack(Magic.RESPONSE, PacketType.JOB_ASSIGN_ALL, (handle, function, unique, reducer), workload)


cdef tuple status_arguments(bytes name, bint known, bint running, object numerator):
    return (name, b"1" if known else b"0", b"1" if running else b"0", number(numerator, "numerator"))


def status_res(bytes handle not None, bint known, bint running, numerator, denominator):
    """Job server to a client: whether the job is known and running, and how much of it is done."""
    check_text(handle, "handle", MAX_HANDLE_BYTES)
    return pack(
        Magic.RESPONSE,
        PacketType.STATUS_RES,
        status_arguments(handle, known, running, numerator),
        number(denominator, "denominator"),
    )


def status_res_unique(bytes unique not None, bint known, bint running, numerator, denominator, clients):
    """Job server to a client: as STATUS_RES, by unique, and how many clients wait for the job."""
    check_text(unique, "unique", MAX_UNIQUE_BYTES)
    return pack(
        Magic.RESPONSE,
        PacketType.STATUS_RES_UNIQUE,
        (*status_arguments(unique, known, running, numerator), number(denominator, "denominator")),
        number(clients, "clients"),
    )
