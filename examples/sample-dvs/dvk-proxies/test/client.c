/* The side that calls: connects all children first, then lets them go together. */
#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Connects one endpoint to its server's and agrees with it; hello holds its answer. */
static int call(const struct loop *loop, int child, struct hello *hello)
{
	int fd = net_reach(loop->dcid, server_endpoint(child), loop->remote), error;

	if (fd < 0)
		return fd;
	*hello = (struct hello){ .dcid = loop->dcid, .node = loop->self,
				 .endpoint = client_endpoint(child), .to_node = loop->remote,
				 .to_endpoint = server_endpoint(child), .kind = loop->kind,
				 .children = loop->children, .loops = loop->loops };
	error = net_hello(fd, hello);
	if (!error)
		return fd;
	if (error == EDVSINVAL)
		fprintf(stderr, "the server wants kind %d, %d children, %d loops; this is kind %d, "
			"%d, %d\n", hello->kind, hello->children, hello->loops, loop->kind,
			loop->children, loop->loops);
	else
		fprintf(stderr, "the server on node %d: error=%d: %s\n", loop->remote, error,
			dvk_strerror(error));
	close(fd);
	return error;
}

static int message(const struct loop *loop, int fd, int child, int number, char *data)
{
	struct frame frame = { .type = F_MSG, .length = (uint32_t)loop->size,
			       .seq = (uint64_t)number };
	double start;
	int error;

	pattern_fill(data, (size_t)loop->size, block_of(child, number, false));
	start = now_monotonic();
	error = net_send(fd, &frame, data);
	if (!error)
		error = net_receive(fd, &frame, data, (size_t)loop->size);
	loop->seconds[child * loop->loops + number] = now_monotonic() - start;
	if (!error && (frame.seq != (uint64_t)number || (int)frame.length != loop->size ||
		       loop_wrong("client", data, frame.length, block_of(child, number, true))))
		error = EDVSBADFILE;
	return error;
}

static int block(const struct loop *loop, int fd, int child, int number, char *data)
{
	double start = now_monotonic();
	struct frame frame;
	int error = net_receive(fd, &frame, data, (size_t)loop->size), sent;

	if (error)
		return error;
	if (frame.type != F_BLOCK || frame.seq != (uint64_t)number ||
	    (int)frame.length != loop->size ||
	    loop_wrong("client", data, frame.length, block_of(child, number, false)))
		error = EDVSBADFILE;
	frame = (struct frame){ .type = F_ACK, .status = error, .seq = (uint64_t)number };
	sent = net_send(fd, &frame, NULL);
	loop->seconds[child * loop->loops + number] = now_monotonic() - start;
	return error ? error : sent;
}

static _Noreturn void child_main(const struct loop *loop, int fd, int go, int child)
{
	char *data = malloc((size_t)loop->size), byte;
	int error = data ? 0 : -ENOMEM;

	if (read(go, &byte, 1) != 1)    /* the main client ended before the start */
		_exit(EXIT_FAILED);
	for (int i = 0; i < loop->loops && !error; i++)
		error = loop->kind == KIND_MSG ? message(loop, fd, child, i, data) :
			block(loop, fd, child, i, data);
	if (error)
		fprintf(stderr, "CHILD %d: error=%d: %s\n", child, error, dvk_strerror(error));
	_exit(error == EDVSBADFILE ? EXIT_BYTES : dvk_exit_code(error));
}

static int start_children(struct loop *loop, int go[2])
{
	struct hello hello;

	for (int i = 0; i < loop->children; i++) {
		int fd = call(loop, i, &hello), parent = getpid();

		if (fd < 0)
			return fd;
		loop->done[i] = fork();
		if (loop->done[i]) {
			close(fd);
			continue;
		}
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(EXIT_FAILED);
		close(go[1]);
		child_main(loop, fd, go[0], i);
	}
	return 0;
}

/* Says START or STOP and waits for the answer. */
static int tell(int fd, int type)
{
	struct frame frame = { .type = (uint16_t)type };
	int error = net_send(fd, &frame, NULL);

	if (!error)
		error = net_receive(fd, &frame, NULL, 0);
	if (!error && frame.type != type)
		error = EDVSBADFILE;
	if (error)
		fprintf(stderr, "ERROR MAIN CLIENT: error=%d: %s\n", error, dvk_strerror(error));
	return dvk_exit_code(error);
}

static int work(struct loop *loop, int fd)
{
	double wall, start, total;
	int go[2], error, code, running;
	char *bytes = calloc(1, MAXCHILDREN);

	if (!bytes || pipe(go))
		return EXIT_FAILED;
	error = start_children(loop, go);
	if (error)
		return dvk_exit_code(error);
	code = tell(fd, F_START);
	if (code)
		return code;
	wall = now_wall();
	start = now_monotonic();
	if (write(go[1], bytes, (size_t)loop->children) != loop->children)
		return EXIT_FAILED;
	code = loop_reap(loop, true, &running);
	total = now_monotonic() - start;
	if (!code)
		code = tell(fd, F_STOP);
	if (!code)
		loop_figures(loop, wall, total, false);
	free(bytes);
	return code;
}

int loop_client(struct loop *loop)
{
	struct hello hello;
	char name[24];
	int fd, error = 0, code;

	for (int i = -1; i < loop->children && !error; i++) {
		snprintf(name, sizeof name, "client%d", client_endpoint(i));
		error = dvk_bind(loop->dcid, client_endpoint(i), name);
		snprintf(name, sizeof name, "server%d", server_endpoint(i));
		if (!error && loop->remote != loop->self)
			error = dvk_rmtbind(loop->dcid, name, server_endpoint(i), loop->remote);
	}
	if (error)
		return dvk_exit_code(error);
	fd = call(loop, -1, &hello);
	if (fd < 0)
		return fd == EDVSINVAL ? EXIT_USAGE : dvk_exit_code(fd);
	/* A client of blocks learns number and size from its server. */
	if (hello.loops < 1 || hello.loops > MAXLOOPS || hello.size < 1 || hello.size > MAXCOPY) {
		fprintf(stderr, "the server's answer makes no sense\n");
		return EXIT_FAILED;
	}
	loop->loops = hello.loops;
	loop->size = hello.size;
	loop_samples(loop);
	code = work(loop, fd);
	loop_end_children(loop);
	return code;
}
