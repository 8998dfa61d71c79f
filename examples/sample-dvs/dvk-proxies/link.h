/* One direction of a proxy: a process that keeps one TCP connection alive and tells the tables. */
#ifndef SAMPLE_LINK_H
#define SAMPLE_LINK_H

#include "dvk.h"

struct link {
	int self, remote;       /* node ids */
	const char *name;       /* of the remote node */
	int beat_ms, deadline_ms;
	int listener;           /* the receiver's, open before the processes part */
	struct owner main;      /* the proxy's first process */
};

/* Sets and clears proxy flags (PROXY_SENDER, PROXY_RECEIVER). */
int link_tell(const struct link *link, unsigned set, unsigned clear);
_Noreturn void link_sender(const struct link *link);
_Noreturn void link_receiver(const struct link *link);

#endif
