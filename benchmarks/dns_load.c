/* A load of DNS queries over one UDP socket, at a fixed rate or with a fixed number under way.
 *
 * load window PORT FILE SECONDS COUNT: COUNT queries under way at any moment.
 * load rate   PORT FILE SECONDS RATE:  RATE queries a second, whatever the server does.
 *
 * FILE holds queries behind their lengths, as `dnsperf -B` takes them. Answers are counted by rcode
 * and must carry an answer record; those to a query that is not under way are not counted. Prints
 * "key value" lines; latencies, in microseconds, from just before the send to just after the receive.
 * It spins: give it a core of its own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, ANSWER_BYTES = 4096, IDS = 65536, BUCKETS = 2000000 };
static const uint64_t LOST_NS = 200000000;

static unsigned char id[BATCH][2], answer[BATCH][ANSWER_BYTES];
static struct iovec out[BATCH][2], in[BATCH];
static struct mmsghdr sent[BATCH], received[BATCH];
static uint64_t sent_ns[IDS];
static uint32_t bucket[BUCKETS];

static unsigned char *data, *at, *end;
static uint16_t next_id;
static uint64_t asked, good, wrong, lost, bytes_in;
static long under_way;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void send_some(int sock, long count)
{
    if (count > BATCH)
        count = BATCH;
    uint64_t now = now_ns();
    for (long i = 0; i < count; i++) {
        if (at >= end)
            at = data;
        size_t size = at[0] << 8 | at[1];
        if (sent_ns[next_id]) { /* nothing came for a whole turn of the ids */
            lost++;
            under_way--;
        }
        sent_ns[next_id] = now;
        id[i][0] = next_id >> 8, id[i][1] = next_id & 255;
        next_id++;
        out[i][0] = (struct iovec){id[i], 2};
        out[i][1] = (struct iovec){at + 4, size - 2};
        sent[i].msg_hdr = (struct msghdr){.msg_iov = out[i], .msg_iovlen = 2};
        at += 2 + size;
    }
    for (long done = 0; done < count;) {
        int took = sendmmsg(sock, sent + done, count - done, 0);
        done += took > 0 ? took : 0;
    }
    asked += count;
    under_way += count;
}

static int receive_some(int sock)
{
    int count = recvmmsg(sock, received, BATCH, MSG_DONTWAIT, NULL);
    if (count <= 0)
        return 0;
    uint64_t now = now_ns();
    for (int i = 0; i < count; i++) {
        unsigned char *got = answer[i];
        uint16_t which = got[0] << 8 | got[1];
        if (received[i].msg_len < 12 || !sent_ns[which])
            continue;
        uint64_t us = (now - sent_ns[which]) / 1000;
        sent_ns[which] = 0;
        under_way--;
        bucket[us < BUCKETS ? us : BUCKETS - 1]++;
        bytes_in += received[i].msg_len;
        if ((got[3] & 15) == 0 && (got[6] | got[7]))
            good++;
        else
            wrong++;
    }
    return count;
}

static void give_up(void)
{
    for (int i = 0; i < IDS; i++)
        if (sent_ns[i]) {
            sent_ns[i] = 0;
            lost++;
        }
    under_way = 0;
}

static unsigned at_share(double share)
{
    uint64_t total = good + wrong, seen = 0;
    for (unsigned us = 0; us < BUCKETS; us++)
        if ((seen += bucket[us]) && seen >= share * total)
            return us;
    return BUCKETS;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    int paced = !strcmp(argv[1], "rate");
    double seconds = atof(argv[4]), amount = atof(argv[5]);
    FILE *file = fopen(argv[3], "rb");
    if (!file)
        die(argv[3]);
    fseek(file, 0, SEEK_END);
    size_t size = ftell(file);
    rewind(file);
    data = at = malloc(size);
    end = data + fread(data, 1, size, file);

    int sock = socket(AF_INET, SOCK_DGRAM, 0), buffer = 4 << 20;
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(sock, (struct sockaddr *)&there, sizeof there))
        die("connect");
    for (int i = 0; i < BATCH; i++) {
        in[i] = (struct iovec){answer[i], ANSWER_BYTES};
        received[i].msg_hdr = (struct msghdr){.msg_iov = &in[i], .msg_iovlen = 1};
    }

    uint64_t begun = now_ns(), until = begun + seconds * 1e9, heard = begun, now;
    while ((now = now_ns()) < until) {
        if (paced) {
            long due = (now - begun) * 1e-9 * amount - asked;
            if (due > 0)
                send_some(sock, due);
        } else if (under_way < amount) {
            send_some(sock, amount - under_way);
        }
        if (receive_some(sock))
            heard = now;
        else if (!paced && now - heard > LOST_NS) {
            give_up();
            heard = now;
        }
    }
    double took = (now_ns() - begun) * 1e-9;
    for (uint64_t last = now_ns(); under_way > 0 && now_ns() - last < LOST_NS;)
        if (receive_some(sock))
            last = now_ns();
    give_up();
    printf("sent %lu\nanswered %lu\nwrong %lu\nlost %lu\nseconds %.6f\n", asked, good, wrong, lost, took);
    printf("size %.1f\n", good + wrong ? (double)bytes_in / (good + wrong) : 0.0);
    printf("p50 %u\np90 %u\np99 %u\np999 %u\n", at_share(0.5), at_share(0.9), at_share(0.99), at_share(0.999));
    return 0;
}
