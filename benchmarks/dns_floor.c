/* The floor of a DNS server on this machine: recvmmsg, paste the id into one fixed answer, sendmmsg.
 *
 * floor PORT FILE: serves 127.0.0.1:PORT; FILE holds the answer. It reads nothing of a query but its
 * id and decides nothing, so no server that uses the same two system calls can spend less.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, ANSWER_BYTES = 4096, QUERY_BYTES = 4096, APART = QUERY_BYTES + 64 };

/* Queries lie apart by no power of two, and answers close together, so that caches hold them all. */
static unsigned char query[BATCH][APART], answer[BATCH * ANSWER_BYTES];
static struct sockaddr_in peer[BATCH];
static struct iovec in[BATCH], out[BATCH];
static struct mmsghdr received[BATCH], sent[BATCH];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    FILE *file = fopen(argv[2], "rb");
    if (!file)
        die(argv[2]);
    size_t size = fread(answer, 1, ANSWER_BYTES, file), stride = (size + 63) / 64 * 64;
    fclose(file);

    int sock = socket(AF_INET, SOCK_DGRAM, 0), bytes = 4 << 20;
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(sock, (struct sockaddr *)&here, sizeof here))
        die("bind");

    for (int i = 0; i < BATCH; i++) {
        unsigned char *own = answer + i * stride;
        if (i)
            memcpy(own, answer, size);
        in[i] = (struct iovec){query[i], QUERY_BYTES};
        out[i] = (struct iovec){own, size};
        received[i].msg_hdr = (struct msghdr){.msg_name = &peer[i], .msg_iov = &in[i], .msg_iovlen = 1};
        sent[i].msg_hdr = (struct msghdr){.msg_name = &peer[i], .msg_iov = &out[i], .msg_iovlen = 1};
        sent[i].msg_hdr.msg_namelen = received[i].msg_hdr.msg_namelen = sizeof peer[i];
    }
    for (;;) {
        int count = recvmmsg(sock, received, BATCH, MSG_WAITFORONE, NULL);
        if (count < 0)
            continue;
        for (int i = 0; i < count; i++)
            memcpy(out[i].iov_base, query[i], 2);
        for (int done = 0; done < count;) {
            int took = sendmmsg(sock, sent + done, count - done, 0);
            done += took > 0 ? took : 1;
        }
    }
}
