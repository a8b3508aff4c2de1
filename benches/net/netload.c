// Network load of `cargo xtask bench net`, run inside the guest against servers on the host. Each mode prints one line.
//   netload download HOST PORT BYTES      one connection, as fast as it comes
//   netload upload HOST PORT BYTES        one connection, as fast as it goes
//   netload connections HOST PORT COUNT   all open at once, then a request and an answer on each
//   netload dns HOST PORT COUNT           questions, 32 at a time
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK (256 << 10)
#define WINDOW 32
#define ANSWER 1000

static char block[BLOCK];

static void fail(const char *what) {
    printf("failed: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr_in address(const char *host, const char *port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1) fail("address");
    return to;
}

static int open_stream(const struct sockaddr_in *to) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) fail("socket");
    if (connect(fd, (const struct sockaddr *)to, sizeof *to)) fail("connect");
    return fd;
}

static void send_all(int fd, const char *data, size_t len) {
    while (len) {
        ssize_t sent = write(fd, data, len);
        if (sent <= 0) fail("write");
        data += sent;
        len -= sent;
    }
}

// Everything up to the end; how much it was.
static size_t receive_all(int fd) {
    size_t total = 0;
    for (;;) {
        ssize_t got = read(fd, block, sizeof block);
        if (got < 0) fail("read");
        if (got == 0) return total;
        total += got;
    }
}

static void ask(int fd, size_t bytes) {
    char request[64];
    send_all(fd, request, snprintf(request, sizeof request, "GET /%zu HTTP/1.0\r\n\r\n", bytes));
}

static void download(const struct sockaddr_in *to, size_t bytes) {
    int fd = open_stream(to);
    ask(fd, bytes);
    size_t got = receive_all(fd);
    printf("%s %zu bytes\n", got > bytes ? "ok" : "failed:", bytes);
}

static void upload(const struct sockaddr_in *to, size_t bytes) {
    int fd = open_stream(to);
    for (size_t left = bytes; left;) {
        size_t part = left < sizeof block ? left : sizeof block;
        send_all(fd, block, part);
        left -= part;
    }
    shutdown(fd, SHUT_WR);
    char answer[64] = {0};
    if (read(fd, answer, sizeof answer - 1) <= 0) fail("read");
    printf("%s %zu bytes\n", strtoull(answer, 0, 10) == bytes ? "ok" : "failed:", bytes);
}

static void connections(const struct sockaddr_in *to, size_t count) {
    struct rlimit limit = {count + 64, count + 64};
    setrlimit(RLIMIT_NOFILE, &limit);
    int *fds = calloc(count, sizeof *fds);
    for (size_t i = 0; i < count; i++) fds[i] = open_stream(to);
    for (size_t i = 0; i < count; i++) ask(fds[i], ANSWER);
    size_t good = 0;
    for (size_t i = 0; i < count; i++) {
        good += receive_all(fds[i]) > ANSWER;
        close(fds[i]);
    }
    printf("%s %zu connections\n", good == count ? "ok" : "failed:", good);
}

static void dns(const struct sockaddr_in *to, size_t count) {
    struct pollfd polled[WINDOW];
    unsigned asked[WINDOW];
    size_t next = 0, done = 0, lost = 0;
    for (int i = 0; i < WINDOW; i++) polled[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    while (done + lost < count) {
        for (int i = 0; i < WINDOW; i++) {
            if (polled[i].fd >= 0 || next == count) continue;
            // A port of its own for each question, as resolvers do it.
            unsigned char question[64] = {next >> 8, next, 1, 0, 0, 1};
            int len = 12 + sprintf((char *)question + 12, "\x08name%04zu\x07""example\x03org", next % 10000) + 1;
            memcpy(question + len, "\0\1\0\1", 4);
            polled[i].fd = socket(AF_INET, SOCK_DGRAM, 0);
            if (connect(polled[i].fd, (const struct sockaddr *)to, sizeof *to)) fail("connect");
            if (send(polled[i].fd, question, len + 4, 0) != len + 4) fail("send");
            asked[i] = next++;
        }
        if (poll(polled, WINDOW, 5000) <= 0) {
            for (int i = 0; i < WINDOW; i++) {
                if (polled[i].fd >= 0) lost++, close(polled[i].fd), polled[i].fd = -1;
            }
            continue;
        }
        for (int i = 0; i < WINDOW; i++) {
            if (polled[i].fd < 0 || !(polled[i].revents & POLLIN)) continue;
            ssize_t got = recv(polled[i].fd, block, sizeof block, 0);
            int right = got > 30 && (unsigned char)block[1] == asked[i] % 256 && block[7] == 1;
            if (right) done++;
            else lost++;
            close(polled[i].fd);
            polled[i].fd = -1;
        }
    }
    printf("%s %zu answers, %zu lost\n", lost ? "failed:" : "ok", done, lost);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    struct sockaddr_in to = address(argv[2], argv[3]);
    size_t amount = strtoull(argv[4], 0, 10);
    if (!strcmp(argv[1], "download")) download(&to, amount);
    else if (!strcmp(argv[1], "upload")) upload(&to, amount);
    else if (!strcmp(argv[1], "connections")) connections(&to, amount);
    else if (!strcmp(argv[1], "dns")) dns(&to, amount);
    else return 2;
    return 0;
}
