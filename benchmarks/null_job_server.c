/* A job server that answers at once: JOB_CREATED to every submit and, to a foreground one, its own workload as result.
 *
 *     null_job_server HOST PORT
 *
 * It queues nothing, knows no workers and does as little as it can, so that a load on a gateway in front of it measures
 * the gateway alone. The answers to everything that one receive has brought leave in one send. Of the text protocol it
 * knows what a gateway asks: `version`, and `status`, which has no functions to tell of. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_BYTES 12
#define RECEIVE_BYTES 65536
#define MAX_PACKET_BYTES (64u << 20)
#define MAX_LINE_BYTES 1024
#define MAX_EVENTS 256
#define HANDLE_START "H:null:"
/* The start and the digits of a 64-bit number. */
#define MAX_HANDLE_BYTES 32

enum {
    SUBMIT_JOB = 7,
    JOB_CREATED = 8,
    WORK_COMPLETE = 13,
    ECHO_REQ = 16,
    ECHO_RES = 17,
    SUBMIT_JOB_BG = 18,
    ERROR = 19,
    SUBMIT_JOB_HIGH = 21,
    OPTION_REQ = 26,
    OPTION_RES = 27,
    SUBMIT_JOB_HIGH_BG = 32,
    SUBMIT_JOB_LOW = 33,
    SUBMIT_JOB_LOW_BG = 34
};

struct buffer {
    char *bytes;
    size_t start, end; /* what it holds */
    size_t room;
};

struct connection {
    int descriptor;
    struct buffer received; /* beginning with an unfinished packet or line */
    struct buffer unsent;   /* while it holds something, nothing is read */
};

static int poller;
static uint64_t jobs;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Where `size` further bytes may be written. */
static char *room_for(struct buffer *buffer, size_t size)
{
    if (buffer->start == buffer->end)
        buffer->start = buffer->end = 0;
    if (buffer->room - buffer->end < size && buffer->start > 0) {
        memmove(buffer->bytes, buffer->bytes + buffer->start, buffer->end - buffer->start);
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    if (buffer->room - buffer->end < size) {
        size_t room = 2 * buffer->room > buffer->end + size ? 2 * buffer->room : buffer->end + size;
        char *bytes = realloc(buffer->bytes, room);
        if (bytes == NULL)
            fail("realloc");
        buffer->bytes = bytes;
        buffer->room = room;
    }
    return buffer->bytes + buffer->end;
}

static void append(struct buffer *buffer, const void *bytes, size_t size)
{
    if (size > 0)
        memcpy(room_for(buffer, size), bytes, size);
    buffer->end += size;
}

static void append_number(struct buffer *buffer, uint32_t number)
{
    uint32_t big_endian = htonl(number);
    append(buffer, &big_endian, sizeof big_endian);
}

/* The start of a packet whose `size` bytes of data follow. */
static void append_header(struct buffer *buffer, uint32_t type, size_t size)
{
    append(buffer, "\0RES", 4);
    append_number(buffer, type);
    append_number(buffer, (uint32_t)size);
}

static void append_packet(struct buffer *buffer, uint32_t type, const void *data, size_t size)
{
    append_header(buffer, type, size);
    append(buffer, data, size);
}

static void append_error(struct buffer *buffer, const char *text)
{
    static const char code[] = "unexpected";
    append_header(buffer, ERROR, sizeof code + strlen(text));
    append(buffer, code, sizeof code);
    append(buffer, text, strlen(text));
}

/* The next job's handle; returns its size. */
static size_t next_handle(char handle[MAX_HANDLE_BYTES])
{
    char digits[20];
    size_t count = 0, size = sizeof HANDLE_START - 1;
    uint64_t number = ++jobs;
    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    memcpy(handle, HANDLE_START, size);
    while (count > 0)
        handle[size++] = digits[--count];
    return size;
}

/* The data of a submit is function, unique and workload, with a NUL after each of the first two. */
static void answer_submit(struct buffer *unsent, const char *data, size_t size, int foreground)
{
    char handle[MAX_HANDLE_BYTES];
    const char *workload = memchr(data, 0, size);
    if (workload != NULL)
        workload = memchr(workload + 1, 0, size - (size_t)(workload + 1 - data));
    if (workload == NULL) {
        append_error(unsent, "a submit without its arguments");
        return;
    }
    size_t handle_bytes = next_handle(handle);
    append_packet(unsent, JOB_CREATED, handle, handle_bytes);
    if (foreground) {
        size_t workload_bytes = size - (size_t)(++workload - data);
        append_header(unsent, WORK_COMPLETE, handle_bytes + 1 + workload_bytes);
        append(unsent, handle, handle_bytes);
        append(unsent, "", 1);
        append(unsent, workload, workload_bytes);
    }
}

static void answer_packet(struct buffer *unsent, uint32_t type, const char *data, size_t size)
{
    switch (type) {
    case SUBMIT_JOB:
    case SUBMIT_JOB_HIGH:
    case SUBMIT_JOB_LOW:
        answer_submit(unsent, data, size, 1);
        break;
    case SUBMIT_JOB_BG:
    case SUBMIT_JOB_HIGH_BG:
    case SUBMIT_JOB_LOW_BG:
        answer_submit(unsent, data, size, 0);
        break;
    case OPTION_REQ:
        append_packet(unsent, OPTION_RES, data, size);
        break;
    case ECHO_REQ:
        append_packet(unsent, ECHO_RES, data, size);
        break;
    default:
        append_error(unsent, "a packet of a type that is not known here");
    }
}

static int is_line(const char *line, size_t size, const char *command)
{
    return size == strlen(command) && memcmp(line, command, size) == 0;
}

static void answer_line(struct buffer *unsent, const char *line, size_t size)
{
    const char *answer = "ERR UNKNOWN_COMMAND Unknown+server+command\n";
    if (size > 0 && line[size - 1] == '\r')
        size--;
    if (is_line(line, size, "version"))
        answer = "OK 1.1.20\n";
    else if (is_line(line, size, "status") || is_line(line, size, "workers") || is_line(line, size, "prioritystatus"))
        answer = ".\n";
    append(unsent, answer, strlen(answer));
}

static uint32_t number_at(const char *bytes)
{
    uint32_t big_endian;
    memcpy(&big_endian, bytes, sizeof big_endian);
    return ntohl(big_endian);
}

/* Answers whatever packets and lines are complete; returns 0 for a connection that has to be closed. */
static int answer(struct connection *connection)
{
    struct buffer *received = &connection->received;
    while (received->start < received->end) {
        const char *bytes = received->bytes + received->start;
        size_t size = received->end - received->start;
        if (bytes[0] != '\0') {
            const char *end = memchr(bytes, '\n', size);
            if (end == NULL)
                return size <= MAX_LINE_BYTES;
            answer_line(&connection->unsent, bytes, (size_t)(end - bytes));
            received->start += (size_t)(end - bytes) + 1;
            continue;
        }
        if (size < HEADER_BYTES)
            return 1;
        size_t data_bytes = number_at(bytes + 8);
        if (memcmp(bytes, "\0REQ", 4) != 0 || data_bytes > MAX_PACKET_BYTES)
            return 0;
        if (size - HEADER_BYTES < data_bytes)
            return 1;
        answer_packet(&connection->unsent, number_at(bytes + 4), bytes + HEADER_BYTES, data_bytes);
        received->start += HEADER_BYTES + data_bytes;
    }
    return 1;
}

static void watch(struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->descriptor, &event) < 0)
        fail("epoll_ctl");
}

/* Sends what the kernel takes; returns 0 for a connection that has to be closed. */
static int send_unsent(struct connection *connection, int was_waiting)
{
    struct buffer *unsent = &connection->unsent;
    while (unsent->start < unsent->end) {
        const char *rest = unsent->bytes + unsent->start;
        ssize_t sent = send(connection->descriptor, rest, unsent->end - unsent->start, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0)
            return 0;
        unsent->start += (size_t)sent;
    }
    int waits = unsent->start < unsent->end;
    if (waits != was_waiting)
        watch(connection, EPOLL_CTL_MOD, waits ? EPOLLOUT : EPOLLIN);
    return 1;
}

/* One receive and the answers to it; what remains in the kernel is told again. Returns as answer does. */
static int serve(struct connection *connection)
{
    if (connection->unsent.start < connection->unsent.end)
        return send_unsent(connection, 1);
    char *place = room_for(&connection->received, RECEIVE_BYTES);
    ssize_t count = recv(connection->descriptor, place, connection->received.room - connection->received.end, 0);
    if (count < 0)
        return errno == EAGAIN || errno == EINTR;
    if (count == 0)
        return 0;
    connection->received.end += (size_t)count;
    return answer(connection) && send_unsent(connection, 0);
}

static void accept_connection(int listener)
{
    int descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
    if (descriptor < 0)
        return;
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        fail("calloc");
    connection->descriptor = descriptor;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

static void close_connection(struct connection *connection)
{
    close(connection->descriptor);
    free(connection->received.bytes);
    free(connection->unsent.bytes);
    free(connection);
}

int main(int argument_count, char **arguments)
{
    if (argument_count != 3) {
        fprintf(stderr, "usage: %s HOST PORT\n", arguments[0]);
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[2]))};
    struct epoll_event events[MAX_EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (inet_pton(AF_INET, arguments[1], &address.sin_addr) != 1) {
        fprintf(stderr, "%s: not an IPv4 address: %s\n", arguments[0], arguments[1]);
        return 2;
    }
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1024) < 0)
        fail("listen");
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("epoll");
    for (;;) {
        int count = epoll_wait(poller, events, MAX_EVENTS, -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int index = 0; index < count; index++) {
            struct connection *connection = events[index].data.ptr;
            if (connection == NULL)
                accept_connection(listener);
            else if (!serve(connection))
                close_connection(connection);
        }
    }
}
