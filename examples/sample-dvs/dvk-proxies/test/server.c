/* The side that waits: everything is bound and listens before the first client can come. */
#include "loop.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Takes the client of this endpoint; another is told why not, and the wait goes on. */
static int take_client(const struct loop *loop, int listener, int child, int milliseconds)
{
	double until = now_monotonic() + milliseconds / 1e3;

	for (;;) {
		double left = (until - now_monotonic()) * 1e3;
		int fd = net_accept(listener, milliseconds < 0 ? -1 : left < 0 ? 0 : (int)left);
		struct frame frame;
		struct hello hello;

		if (fd < 0)
			return fd;
		if (net_receive(fd, &frame, &hello, sizeof hello) || frame.type != F_HELLO ||
		    frame.length != sizeof hello) {
			close(fd);
			continue;
		}
		frame.status = 0;
		if (hello.dcid != loop->dcid || hello.node != loop->remote ||
		    hello.to_node != loop->self || hello.endpoint != client_endpoint(child) ||
		    hello.to_endpoint != server_endpoint(child))
			frame.status = EDVSNOTBIND;
		else if (hello.kind != loop->kind || hello.children != loop->children ||
			 (hello.loops && hello.loops != loop->loops))
			frame.status = EDVSINVAL;
		if (frame.status)
			fprintf(stderr, "refused: node %d endpoint %d, kind %d, %d children, %d loops\n",
				hello.node, hello.endpoint, hello.kind, hello.children, hello.loops);
		hello.kind = loop->kind;
		hello.children = loop->children;
		hello.loops = loop->loops;
		hello.size = loop->size;
		if (!net_send(fd, &frame, &hello) && !frame.status)
			return fd;
		close(fd);
	}
}

/* The exchange's time is the client's to measure. */
static int message(const struct loop *loop, int fd, int child, int number, char *data)
{
	struct frame frame;
	int error = net_receive(fd, &frame, data, MSG_SIZE);

	if (error)
		return error;
	if (frame.type != F_MSG || (int)frame.length != loop->size)
		return EDVSBADFILE;
	if (loop_wrong("server", data, frame.length, block_of(child, number, false)))
		return EDVSBADFILE;
	pattern_fill(data, frame.length, block_of(child, number, true));
	return net_send(fd, &frame, data);
}

static int block(const struct loop *loop, int fd, int child, int number, char *data)
{
	struct frame frame = { .type = F_BLOCK, .length = (uint32_t)loop->size,
			       .seq = (uint64_t)number };
	double start;
	int error;

	pattern_fill(data, (size_t)loop->size, block_of(child, number, false));
	start = now_monotonic();
	error = net_send(fd, &frame, data);
	if (!error)
		error = net_receive(fd, &frame, NULL, 0);
	loop->seconds[child * loop->loops + number] = now_monotonic() - start;
	if (!error && (frame.type != F_ACK || frame.seq != (uint64_t)number))
		error = EDVSBADFILE;
	return error ? error : frame.status;
}

static _Noreturn void child_main(const struct loop *loop, int listener, int child)
{
	char *data = malloc((size_t)loop->size);
	int fd = take_client(loop, listener, child, timeout_ms()), error = fd < 0 ? fd : 0;

	if (!data)
		error = -ENOMEM;
	for (int i = 0; i < loop->loops && !error; i++)
		error = loop->kind == KIND_MSG ? message(loop, fd, child, i, data) :
			block(loop, fd, child, i, data);
	if (error)
		fprintf(stderr, "CHILD %d: error=%d: %s\n", child, error, dvk_strerror(error));
	fflush(stdout);
	_exit(error == EDVSBADFILE ? EXIT_BYTES : dvk_exit_code(error));
}

/* Waits on the main connection while the children work; one that fails ends it all. */
static int expect(struct loop *loop, int fd, int type)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	struct frame frame = { .type = (uint16_t)type };
	int running, error, code;

	while (poll(&wait, 1, 100) <= 0) {
		code = loop_reap(loop, false, &running);
		if (code)
			return code;
	}
	error = net_receive(fd, &frame, NULL, 0);
	if (!error && frame.type != type)
		error = EDVSBADFILE;
	if (error)
		fprintf(stderr, "ERROR MAIN SERVER: error=%d: %s\n", error, dvk_strerror(error));
	return dvk_exit_code(error);
}

static int serve(struct loop *loop, int *listeners)
{
	struct frame start_frame = { .type = F_START }, stop_frame = { .type = F_STOP };
	long patience = env_number("DVS_WAIT", 0, 0, 86400);
	double wall, start, total;
	int fd, code, running, late = 0;

	fd = take_client(loop, listeners[0], -1, patience ? (int)(1000 * patience) : -1);
	if (fd < 0) {
		fprintf(stderr, "no client came: error=%d: %s\n", fd, dvk_strerror(fd));
		return dvk_exit_code(fd);
	}
	for (int i = 0; i < loop->children; i++) {
		int parent = getpid();

		loop->done[i] = fork();
		if (loop->done[i])
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(EXIT_FAILED);
		child_main(loop, listeners[i + 1], i);
	}
	code = expect(loop, fd, F_START);
	wall = now_wall();
	start = now_monotonic();
	if (!code)
		code = dvk_exit_code(net_send(fd, &start_frame, NULL));
	if (!code)
		code = expect(loop, fd, F_STOP);
	total = now_monotonic() - start;
	/* A child that knows better than the main endpoint why it ended is heard. */
	if (!code)
		code = loop_reap(loop, true, &running);
	for (int tries = 0; code == EXIT_PEER && !late && tries < 50; tries++) {
		late = loop_reap(loop, false, &running);
		usleep(10000);
	}
	if (late)
		code = late;
	if (!code)
		code = dvk_exit_code(net_send(fd, &stop_frame, NULL));
	if (!code)
		loop_figures(loop, wall, total, true);
	return code;
}

int loop_server(struct loop *loop)
{
	int listeners[MAXCHILDREN + 1], error = 0, code;
	char name[24];

	loop_samples(loop);
	for (int i = -1; i < loop->children && !error; i++) {
		snprintf(name, sizeof name, "server%d", server_endpoint(i));
		error = dvk_bind(loop->dcid, server_endpoint(i), name);
		if (error)
			break;
		snprintf(name, sizeof name, "client%d", client_endpoint(i));
		if (loop->remote != loop->self)
			error = dvk_rmtbind(loop->dcid, name, client_endpoint(i), loop->remote);
		if (error)
			break;
		listeners[i + 1] = net_listen(loop->self, endpoint_port(loop->dcid,
									server_endpoint(i)));
		if (listeners[i + 1] < 0)
			error = listeners[i + 1];
	}
	if (error)
		return dvk_exit_code(error);
	printf("ready: DC%d node %d endpoint %d port %d, waiting for node %d endpoint %d\n", loop->dcid,
	       loop->self, server_endpoint(-1), endpoint_port(loop->dcid, server_endpoint(-1)),
	       loop->remote, client_endpoint(-1));
	code = serve(loop, listeners);
	loop_end_children(loop);
	return code;
}
