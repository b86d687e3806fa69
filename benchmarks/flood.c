/* Floods a server on the loopback with connections that no good client makes, and says how it answered.
 *
 *     flood PORT KIND CONNECTIONS RATE COUNT SECONDS
 *
 * KIND: see kinds[]; "mixed" takes the quick ones in turn. CONNECTIONS: open at once, at most. RATE: new ones a second,
 * 0 for as many as go. COUNT: in all, 0 for any number. SECONDS: the end, whatever is left. The quick kinds connect,
 * send, read what comes to its end and begin anew; the slow ones stay until the server closes or time is up; "no-read"
 * sends requests for as long as the server takes them and never reads an answer; "slow-reader" asks for one large answer
 * and takes it byte by byte; "standard-input" sends what stands there and waits, "standard-input-and-leave" leaves at once.
 * The source address is 127.0.0.2 and above, one of 200 in turn, so that no pair of ports is used again too soon.
 * One JSON object goes to standard output. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SOURCES 200
#define MAX_CONNECTIONS 20000
#define MAX_SECONDS 900
#define MAX_COUNT 2000000

enum { QUICK, LEAVE, DRIP, HOLD, DEAF, SIP };

#define SWEEP_S 0.1

struct kind {
    const char *name;
    int manner;           /* QUICK reads the answer, LEAVE closes after sending, DRIP adds a byte a second, HOLD
                             waits, DEAF sends all it can and reads nothing, SIP reads a byte every SWEEP_S */
    const char *bytes;
    size_t size;
};

#define TEXT(text) text, sizeof(text) - 1
#define HEAD "POST /echo HTTP/1.1\r\nHost: a\r\n"

static char header_flood[8192], pipelined[8192], standard_input[16384];

static struct kind kinds[] = {
    {"bad-line", QUICK, TEXT("AAA\r\n")},
    {"bad-version", QUICK, TEXT("GET /echo HTTP/4.7\r\nHost: a\r\n\r\n")},
    {"bad-chunk", QUICK, TEXT(HEAD "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n")},
    {"nul", QUICK, TEXT("GET /echo?\0 HTTP/1.1\r\nHost: a\r\n\r\n")},
    {"header-flood", QUICK, header_flood, 0},
    {"oversize", QUICK, TEXT(HEAD "Content-Length: 1000000000\r\n\r\n")},
    {"half-head", LEAVE, TEXT(HEAD "X-Half: ")},
    {"connect", LEAVE, TEXT("")},
    {"requests-and-leave", LEAVE, pipelined, 0},
    {"slow-head", DRIP, TEXT(HEAD "X-Slow: ")},
    {"slow-body", DRIP, TEXT(HEAD "Content-Length: 100000\r\n\r\n")},
    {"held-head", HOLD, TEXT(HEAD "X-Held: ")},
    {"no-read", DEAF, pipelined, 0},
    {"declared", HOLD, TEXT(HEAD "Content-Length: 8388608\r\n\r\n")},
    {"slow-reader", SIP, TEXT("GET /large HTTP/1.1\r\nHost: a\r\n\r\n")},
    {"standard-input", HOLD, standard_input, 0},
    {"standard-input-and-leave", LEAVE, standard_input, 0},
};
#define QUICK_KINDS 9
#define KINDS ((int)(sizeof(kinds) / sizeof(kinds[0])))

struct connection {
    int descriptor;       /* -1 when unused */
    int sent, answered;
    struct kind *kind;
    double next_drip_s;
};

static struct connection connections[MAX_CONNECTIONS];
static int unused[MAX_CONNECTIONS], unused_count, poll_descriptor, highest_open;
static long opened, closed_silently, resets, failed, statuses[600];

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void end(int index)
{
    close(connections[index].descriptor);
    connections[index].descriptor = -1;
    unused[unused_count++] = index;
}

static void begin(int port, struct kind *kind)
{
    struct sockaddr_in source = {.sin_family = AF_INET}, target = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, small = 4096, index = unused[--unused_count];
    struct connection *connection = &connections[index];
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = index};
    source.sin_addr.s_addr = htonl(0x7F000002 + opened % SOURCES);
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->descriptor < 0) {
        perror("socket");
        exit(1);
    }
    connection->kind = kind;
    connection->sent = connection->answered = 0;
    connection->next_drip_s = now_s() + 1;
    if (kind->manner == DEAF || kind->manner == SIP)
        setsockopt(connection->descriptor, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(connection->descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    opened++;
    if (bind(connection->descriptor, (struct sockaddr *)&source, sizeof source) < 0
        || (connect(connection->descriptor, (struct sockaddr *)&target, sizeof target) < 0 && errno != EINPROGRESS)) {
        failed++;
        end(index);
        return;
    }
    epoll_ctl(poll_descriptor, EPOLL_CTL_ADD, connection->descriptor, &event);
    if (MAX_CONNECTIONS - unused_count > highest_open)
        highest_open = MAX_CONNECTIONS - unused_count;
}

/* Counts the status if this is the beginning of the connection's first answer. */
static void note_answer(struct connection *connection, const char *bytes, ssize_t got)
{
    if (!connection->answered && got >= 12 && memcmp(bytes, "HTTP/1.", 7) == 0) {
        int status = atoi(bytes + 9);
        statuses[status >= 0 && status < 600 ? status : 0]++;
        connection->answered = 1;
    }
}

static void note_end(int index, ssize_t got)
{
    if (got < 0 && !connections[index].answered)
        resets++;
    else if (!connections[index].answered)
        closed_silently++;
    end(index);
}

static void sip(int index)
{
    char buffer[16];
    ssize_t got = recv(connections[index].descriptor, buffer, sizeof buffer, MSG_PEEK);
    if (got > 0) {
        note_answer(&connections[index], buffer, got);
        got = recv(connections[index].descriptor, buffer, 1, 0);
    }
    if (got == 0 || (got < 0 && errno != EAGAIN))
        note_end(index, got);
}

static void serve(int index, unsigned events)
{
    struct connection *connection = &connections[index];
    char buffer[65536];
    ssize_t got;
    if (connection->descriptor < 0)
        return;
    if (connection->kind->manner == DEAF) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            resets++;
            end(index);
            return;
        }
        while (events & EPOLLOUT
               && send(connection->descriptor, connection->kind->bytes, connection->kind->size, MSG_NOSIGNAL) > 0)
            ;
        return;
    }
    if (!connection->sent && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        if (events & EPOLLERR || send(connection->descriptor, connection->kind->bytes, connection->kind->size,
                                      MSG_NOSIGNAL) < 0) {
            failed++;
            end(index);
            return;
        }
        connection->sent = 1;
        if (connection->kind->manner == LEAVE) {
            end(index);
            return;
        }
    }
    if (connection->kind->manner == SIP)
        return;
    while ((got = recv(connection->descriptor, buffer, sizeof buffer, 0)) > 0)
        note_answer(connection, buffer, got);
    if (got == 0 || errno != EAGAIN)
        note_end(index, got);
}

int main(int count_of_arguments, char **arguments)
{
    int port, most, kind = -1, index, first = 1;
    long count;
    double rate, seconds, began_s, now, next_sweep_s;
    struct epoll_event events[1024];
    size_t filled;
    if (count_of_arguments != 7) {
        fputs("usage: flood PORT KIND CONNECTIONS RATE COUNT SECONDS\n", stderr);
        return 2;
    }
    port = atoi(arguments[1]);
    for (index = 0; index < KINDS; index++)
        if (strcmp(arguments[2], kinds[index].name) == 0)
            kind = index;
    most = atoi(arguments[3]);
    rate = atof(arguments[4]);
    count = atol(arguments[5]);
    seconds = atof(arguments[6]);
    if ((kind < 0 && strcmp(arguments[2], "mixed")) || most < 1 || most > MAX_CONNECTIONS || seconds <= 0
        || seconds > MAX_SECONDS || count < 0 || count > MAX_COUNT) {
        fputs("flood: an argument is out of its bounds\n", stderr);
        return 2;
    }
    strcpy(header_flood, "GET /echo HTTP/1.1\r\nHost: a\r\n");
    while (strlen(header_flood) < 4000)
        strcat(header_flood, "X-Flood: x\r\n");
    strcat(header_flood, "\r\n");
    while ((filled = strlen(pipelined)) < 4000)
        strcat(pipelined, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    kinds[4].size = strlen(header_flood);
    kinds[8].size = kinds[12].size = strlen(pipelined);
    if (kind >= 0 && kinds[kind].bytes == standard_input)
        kinds[kind].size = fread(standard_input, 1, sizeof standard_input, stdin);
    for (index = MAX_CONNECTIONS - 1; index >= 0; index--) {
        connections[index].descriptor = -1;
        unused[unused_count++] = index;
    }
    poll_descriptor = epoll_create1(EPOLL_CLOEXEC);
    began_s = now = now_s();
    next_sweep_s = began_s + SWEEP_S;
    while (now < began_s + seconds) {
        int open = MAX_CONNECTIONS - unused_count, ready;
        long due = rate > 0 ? (long)((now - began_s) * rate) + 1 : opened + most;
        int finished = count && opened >= count;
        if (finished && open == 0)
            break;
        /* At most as many as the kernel's queue of the listener takes, before looking at the answers. */
        for (int burst = 0; !finished && open < most && opened < due && burst < 256; burst++) {
            begin(port, kind >= 0 ? &kinds[kind] : &kinds[opened % QUICK_KINDS]);
            open = MAX_CONNECTIONS - unused_count;
            finished = count && opened >= count;
        }
        ready = epoll_wait(poll_descriptor, events, 1024, rate > 0 || kind >= QUICK_KINDS ? 1 : 100);
        for (index = 0; index < ready; index++)
            serve(events[index].data.u32, events[index].events);
        now = now_s();
        if (now >= next_sweep_s) {
            next_sweep_s = now + SWEEP_S;
            for (index = 0; index < MAX_CONNECTIONS && kind >= QUICK_KINDS; index++) {
                struct connection *slow = &connections[index];
                if (slow->descriptor >= 0 && slow->sent && slow->kind->manner == DRIP && now >= slow->next_drip_s) {
                    slow->next_drip_s = now + 1;
                    send(slow->descriptor, "x", 1, MSG_NOSIGNAL);
                }
                if (slow->descriptor >= 0 && slow->sent && slow->kind->manner == SIP)
                    sip(index);
            }
        }
    }
    printf("{\"seconds\": %.3f, \"opened\": %ld, \"left_open\": %d, \"highest_open\": %d, \"closed_silently\": %ld, "
           "\"resets\": %ld, \"failed\": %ld, \"statuses\": {",
           now - began_s, opened, MAX_CONNECTIONS - unused_count, highest_open, closed_silently, resets, failed);
    for (index = 0; index < 600; index++)
        if (statuses[index]) {
            printf("%s\"%d\": %ld", first ? "" : ", ", index, statuses[index]);
            first = 0;
        }
    puts("}}");
    return 0;
}
