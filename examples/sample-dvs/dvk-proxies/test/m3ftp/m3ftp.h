/*
 * A file goes over in buffers, each asked for by a NEXT and checked by a sum (stop and wait, as
 * in the DVS, so that the size of the buffer counts); END carries the number of bytes in all.
 */
#ifndef SAMPLE_M3FTP_H
#define SAMPLE_M3FTP_H

#include "dvk.h"

#define PATHLEN 256
#define MIN_BUFFER 8
#define DEFAULT_BUFFER (64 << 10)

struct request {                /* the payload of F_GET and F_PUT; its answer is the same frame */
	uint64_t size;          /* bytes of the file: the sender's */
	uint32_t buffer;        /* bytes */
	uint32_t unused;
	char path[PATHLEN];
};

struct transfer {
	uint64_t announced, bytes;
	uint32_t buffer;
	char *data;             /* buffer bytes */
};

/* A new file beside the one that it will be; only transfer_commit gives it the name. */
struct beside {
	int directory, fd;
	char name[PATHLEN], temporary[PATHLEN + 24];
};
int beside_open(struct beside *beside, int directory, const char *name);
int beside_commit(struct beside *beside);
void beside_drop(struct beside *beside);

/* Opens directory/path as a regular file; beneath it refuses "..", "/x" and symbolic links. */
int open_beneath(int directory, const char *path, int *parent, const char **name);
int open_regular(int directory, const char *name, uint64_t *size);

/* Each returns 0 or an error; fewer bytes than announced is SHORT_TRANSFER. */
#define SHORT_TRANSFER (-1000)
int transfer_send(int fd, struct transfer *transfer, int file);
int transfer_receive(int fd, struct transfer *transfer, int file);
const char *transfer_error(int error);
int transfer_exit_code(int error);

#endif
