/* A server that does nothing for its clients: it accepts, reads what is there, and keeps the last KEPT connections open.
 *
 *     sink PORT
 *
 * A flood that goes there costs a machine what the flood itself does, and no server's work. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEPT 1000
#define RECEIVE_BYTES 2048
#define BACKLOG 4096

int main(int count, char **arguments) {
    static int kept[KEPT];
    static char received[RECEIVE_BYTES];
    unsigned int accepted = 0;
    int yes = 1;
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (count != 2) {
        fprintf(stderr, "usage: sink PORT\n");
        return 2;
    }
    address.sin_port = htons(atoi(arguments[1]));
    if (setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0
        || bind(listening, (struct sockaddr *) &address, sizeof address) < 0 || listen(listening, BACKLOG) < 0) {
        perror("sink");
        return 1;
    }
    for (;;) {
        int descriptor = accept(listening, NULL, NULL);
        if (descriptor < 0)
            continue;
        /* A client that sends nothing must not hold up the others. */
        recv(descriptor, received, sizeof received, MSG_DONTWAIT);
        if (accepted >= KEPT)
            close(kept[accepted % KEPT]);
        kept[accepted++ % KEPT] = descriptor;
    }
}
