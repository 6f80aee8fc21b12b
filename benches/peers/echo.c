/* The floor under every DNS server: takes datagrams in batches, marks each as a reply and sends it
 * back with as many bytes as a real reply would have. What the kernel charges for that, no server
 * can go below.
 *
 *     echo ADDRESS PORT [WORKERS]
 *
 * A datagram says how long its reply is to be in what DNS calls the authority count, which is 0 in
 * every real query; 0 sends the datagram back as it is. The batch is that of Portolan's workers, and
 * so is a thread for each socket. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 32, LONGEST = 65507, HEADER = 12, SOCKET_BUFFER = 4 << 20 };

static struct sockaddr_in address;

static int open_socket(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1, size = SOCKET_BUFFER;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) ||
        bind(fd, (struct sockaddr *)&address, sizeof address)) {
        perror("echo: socket");
        exit(1);
    }
    return fd;
}

static void *serve(void *unused)
{
    int fd = open_socket();
    char(*buffers)[LONGEST] = calloc(BATCH, LONGEST);
    struct mmsghdr messages[BATCH];
    struct iovec slices[BATCH];
    struct sockaddr_in peers[BATCH];
    (void)unused;
    if (!buffers) {
        perror("echo");
        exit(1);
    }
    memset(messages, 0, sizeof messages);
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            slices[i].iov_base = buffers[i];
            slices[i].iov_len = LONGEST;
            messages[i].msg_hdr.msg_iov = &slices[i];
            messages[i].msg_hdr.msg_iovlen = 1;
            messages[i].msg_hdr.msg_name = &peers[i];
            messages[i].msg_hdr.msg_namelen = sizeof peers[i];
        }
        int taken = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        if (taken < 0) {
            if (errno == EINTR)
                continue;
            perror("echo: recvmmsg");
            exit(1);
        }
        for (int i = 0; i < taken; i++) {
            unsigned char *message = (unsigned char *)buffers[i];
            size_t length = messages[i].msg_len;
            if (length >= HEADER) {
                size_t wanted = (size_t)message[8] << 8 | message[9];
                message[2] |= 0x80;
                if (wanted > length)
                    length = wanted < LONGEST ? wanted : LONGEST;
            }
            slices[i].iov_len = length;
        }
        for (int sent = 0; sent < taken;) {
            int more = sendmmsg(fd, messages + sent, taken - sent, 0);
            sent += more > 0 ? more : 1;
        }
    }
    return NULL;
}

int main(int count, char **arguments)
{
    int workers = count > 3 ? atoi(arguments[3]) : 1;
    if (count < 3 || inet_pton(AF_INET, arguments[1], &address.sin_addr) != 1) {
        fprintf(stderr, "usage: echo ADDRESS PORT [WORKERS]\n");
        return 2;
    }
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)atoi(arguments[2]));
    for (int i = 1; i < workers; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, NULL)) {
            perror("echo: thread");
            return 1;
        }
    }
    serve(NULL);
    return 0;
}
