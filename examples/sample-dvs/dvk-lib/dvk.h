/* What every program of the sample tree shares: errors, state, endpoints, wire, figures. */
#ifndef SAMPLE_DVK_H
#define SAMPLE_DVK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire has x86's byte order");

#define DVS_VERSION 1
#define NR_NODES 32
#define NR_DCS 32
#define NR_TASKS 35
#define NR_PROCS 221
#define NR_SYSPROCS 64
#define NR_SLOTS 512            /* endpoints bound at one time on a node */
#define MAXCOPY (16 << 20)      /* largest block, bytes */
#define NAMELEN 16
#define PROXY_PORT 3000         /* the proxies': base + node (DVS_PROXY_PORT) */
#define ENDPOINT_PORT 12000     /* the endpoints': base + 256*dcid + 35 + endpoint (DVS_PORT_BASE) */

/* Errors, with the numbers under which the DVS's users know them. */
enum {
	EDVSBUSY = -16,
	EDVSINVAL = -22,
	EDVSCONNREFUSED = -59,
	EDVSTIMEDOUT = -61,
	EDVSDSTDIED = -109,
	EDVSBADNODEID = -301,
	EDVSBADDCID = -302,
	EDVSDCNOTRUN = -303,
	EDVSENDPOINT = -306,
	EDVSNOTBIND = -310,
	EDVSNONODE = -316,
	EDVSDVSINIT = -318,
	EDVSPROCRUN = -320,
	EDVSSLOTUSED = -337,
	EDVSBADFILE = -341,
};

/* Exit codes of every program. */
enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1,        /* none of the others; errno's text is in the message */
	EXIT_USAGE = 2,
	EXIT_BYTES = 3,         /* a byte arrived that was not sent */
	EXIT_SHORT = 4,         /* fewer bytes than announced */
	EXIT_BIND = 5,          /* 337 slot used, 310 not bound */
	EXIT_PEER = 6,          /* unreachable, silent, dead, or it refused */
	EXIT_NODVS = 7,         /* DVS not initialised, DC not running */
};

/* node flags: E is all three; a node's own row says 6 */
enum { NODE_ATTACHED = 2, NODE_SENDER = 4, NODE_RECEIVER = 8, NODE_UP = 14, NODE_SELF = 6 };
/* proxy flags: 7 is all three */
enum { PROXY_RUNS = 1, PROXY_SENDER = 2, PROXY_RECEIVER = 4 };

struct node {
	uint32_t flags;         /* 0: no such row */
	int32_t proxy;          /* -1: none */
	uint64_t sent, received;
	uint32_t dcs;           /* bitmap of the DCs that it is in */
	uint32_t unused;
	char name[NAMELEN];
};

struct owner {                  /* a process: its pid as /proc shows it, and when it started */
	int32_t pid;
	int32_t inner;          /* getpid() in its own PID namespace */
	uint64_t started;       /* clock ticks after boot */
};

struct proxy {
	uint32_t flags;         /* 0: no such row */
	int32_t sender, receiver, unused;
	struct owner main;
	char name[NAMELEN];
};

struct dc {
	struct owner init;      /* pid 0: no such DC */
	char name[NAMELEN];
	char script[2][256];    /* the DC<n>.sh that were written */
};

struct slot {
	int32_t used, dcid, endpoint, node;
	struct owner owner;     /* of a local endpoint; pid -1 for a remote one */
	char name[NAMELEN];
};

struct dvs {                    /* the same bytes in 32 and 64 bits */
	char magic[16], boot[40], name[NAMELEN];
	int32_t nodeid, flags;
	uint32_t debug;
	uint32_t told;          /* the second in which the counters were last written to the table */
	struct node nodes[NR_NODES];
	struct proxy proxies[NR_NODES];
	struct dc dcs[NR_DCS];
	struct slot slots[NR_SLOTS];
};
_Static_assert(sizeof(struct node) == 48 && sizeof(struct proxy) == 48 &&
	       sizeof(struct dc) == 544 && sizeof(struct slot) == 48, "no padding of the compiler's");

/* state.c: the state folder. Open locks it for every other process; close writes the tables. */
enum { T_NONE = 0, T_NODES = 1, T_PROXIES = 2, T_DCS = 4, T_INFO = 8, T_ALL = 15 };
const char *dvs_folder(void);
int dvs_init(int nodeid, const char *name, uint32_t debug, int more_flags);
int dvs_end(void);
struct dvs *dvs_open(int *error);
void dvs_close(struct dvs *dvs, int tables);
struct dvs *dvs_keep(int *error);       /* the state, mapped for good, nobody locked out */
void dvs_tell_counters(struct dvs *kept);
int dvs_nodeid(void);
bool dvs_sweep(struct dvs *dvs);
void dvs_drop_proxy(struct dvs *dvs, int id);
int dvs_library_flag(void);
long env_number(const char *name, long otherwise, long min, long max);

/* tables.c */
void tables_write(const struct dvs *dvs, int tables);
int write_beside(const char *path, const char *text, size_t length);
bool row_exists(const struct node *node);

/* proc.c */
void owner_self(struct owner *owner);
bool owner_of(int pid, struct owner *owner);
bool owner_alive(const struct owner *owner);

/* bind.c: endpoints. Each returns 0 or one of the errors above, after a message on stderr. */
int dvk_bind(int dcid, int endpoint, const char *name);
int dvk_rmtbind(int dcid, const char *name, int endpoint, int node);
int dvk_unbind(int dcid, int endpoint);
void dvk_unbind_mine(void);
void dvk_keep(void);
int dvk_node_of(int dcid, int endpoint);        /* node that it is bound on, or an error */
int dvk_check_endpoint(int dcid, int endpoint);

/* net.c: a frame is a header and up to MAXCOPY bytes. */
struct frame {
	uint32_t magic;
	uint16_t type, pad;
	int32_t status;
	uint32_t length;
	uint64_t seq, check;
};
enum { F_HELLO = 1, F_START, F_STOP, F_MSG, F_BLOCK, F_ACK, F_GET, F_PUT, F_NEXT, F_DATA, F_END,
       F_BEAT };
struct hello {                  /* the payload of F_HELLO */
	int32_t dcid, node, endpoint, to_node, to_endpoint, kind, children, loops, size;
};
int net_address(int node, const char *name, int port, struct sockaddr_in *out);
int net_listen(int self, int port);
int net_connect(const struct sockaddr_in *to, int milliseconds);
int net_reach(int dcid, int endpoint, int node);        /* connects, waiting for the server */
int net_accept(int listener, int milliseconds);         /* -1: forever */
void net_timeout(int fd, int milliseconds);
int net_send(int fd, struct frame *frame, const void *data);
int net_receive(int fd, struct frame *frame, void *data, size_t room);
int net_hello(int fd, struct hello *mine);      /* client: sends, takes the server's answer */
int endpoint_port(int dcid, int endpoint);
int timeout_ms(void);

/* data.c: the bytes, their check, the clock and the figures. */
void pattern_fill(void *data, size_t length, uint64_t block);
ptrdiff_t pattern_check(const void *data, size_t length, uint64_t block);
uint64_t data_check(uint64_t seed, const void *data, size_t length);
double now_monotonic(void);
double now_wall(void);
void figures_times(FILE *out, double start, double total);
void figures_exchanges(double *seconds, size_t count);
const char *dvk_strerror(int error);
int dvk_exit_code(int error);
int number_argument(const char *text, const char *what, long min, long max);

#endif
