/* The loops: a main endpoint on each side that starts and stops, and a pair a child that works. */
#ifndef SAMPLE_LOOP_H
#define SAMPLE_LOOP_H

#include "dvk.h"

#define MAXCHILDREN 100
#define MAXLOOPS 1000000
#define MSG_SIZE 64             /* bytes of a message, each way */

enum { KIND_MSG = 1, KIND_COPY = 2 };

struct loop {
	int kind, dcid, self, remote, children, loops, size;
	double *seconds;        /* of each exchange, children * loops, shared with the children */
	int done[MAXCHILDREN];  /* pids of the children, 0 once reaped */
};

static inline int server_endpoint(int child) { return 2 * (child + 1); }       /* -1: the main one */
static inline int client_endpoint(int child) { return 2 * (child + 1) + 1; }

/* Optional arguments [dcid [node]]; DVS_RMTNODE; else what the procedure has hard-coded. */
void loop_setup(struct loop *loop, int argc, char *argv[], int at, int hard_coded);
void loop_samples(struct loop *loop);
void loop_end_children(struct loop *loop);
/* Waits for children; 0 while all that ended did well, else the worst exit code. */
int loop_reap(struct loop *loop, bool block, int *running);
void loop_figures(const struct loop *loop, double start, double total, bool server);
/* Bytes that are not the block's: says block and position. */
bool loop_wrong(const char *who, const void *data, size_t length, uint64_t block);
int loop_server(struct loop *loop);
int loop_client(struct loop *loop);

/* Blocks of the pattern: by child, direction and number, so that none is like another. */
static inline uint64_t block_of(int child, int number, bool reply)
{
	return (uint64_t)child << 25 | (uint64_t)number << 1 | reply;
}

#endif
