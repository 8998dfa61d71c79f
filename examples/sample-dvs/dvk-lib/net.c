/* TCP between nodes: where a node is, which port an endpoint has, and frames that arrive whole. */
#include "dvk.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAGIC 0x4b565344u /* "DSVK" */

int timeout_ms(void)
{
	return (int)(1000 * env_number("DVS_TIMEOUT", 10, 1, 3600));
}

int endpoint_port(int dcid, int endpoint)
{
	long base = env_number("DVS_PORT_BASE", ENDPOINT_PORT, 1, 65535 - 256 * NR_DCS);

	return (int)base + 256 * dcid + NR_TASKS + endpoint;
}

static const char *address_given(int node)
{
	char name[40];
	const char *text;

	snprintf(name, sizeof name, "DVS_NODE_ADDR_%d", node);
	text = getenv(name);
	return text && *text ? text : NULL;
}

/* DVS_NODE_ADDR_<node> before the name (node<node> where there is none). */
int net_address(int node, const char *name, int port, struct sockaddr_in *out)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
	const char *given = address_given(node);
	char plain[24];

	snprintf(plain, sizeof plain, "node%d", node);
	if (!given)
		given = name ? name : plain;
	if (getaddrinfo(given, NULL, &hints, &found))
		return EDVSNONODE;
	memcpy(out, found->ai_addr, sizeof *out);
	out->sin_port = htons((uint16_t)port);
	freeaddrinfo(found);
	return 0;
}

static int new_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	/* A message is small and waited for: Nagle's algorithm would hold it back. */
	if (fd >= 0)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

/* On this node's own address where one is given: several nodes can share a machine, and nobody
   beside the lab can connect. */
int net_listen(int self, int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = new_socket(), one = 1, error = 0;
	const char *own = getenv("DVS_ADDRESS");

	if (fd < 0)
		return -errno;
	if (own && *own)
		error = inet_pton(AF_INET, own, &at.sin_addr) == 1 ? 0 : EDVSNONODE;
	else if (address_given(self))
		error = net_address(self, NULL, port, &at);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (!error && (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 128)))
		error = -errno;
	if (error) {
		fprintf(stderr, "cannot listen on port %d: %s\n", port, dvk_strerror(error));
		close(fd);
		return error;
	}
	return fd;
}

void net_timeout(int fd, int milliseconds)
{
	struct timeval limit = { milliseconds / 1000, milliseconds % 1000 * 1000 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

int net_connect(const struct sockaddr_in *to, int milliseconds)
{
	int fd = new_socket(), error = 0;
	socklen_t length = sizeof error;
	struct pollfd wait = { .fd = fd, .events = POLLOUT };

	if (fd < 0)
		return -errno;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (connect(fd, (const struct sockaddr *)to, sizeof *to) && errno != EINPROGRESS)
		error = errno;
	else if (poll(&wait, 1, milliseconds) != 1)
		error = ETIMEDOUT;
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length))
		error = errno;
	if (error) {
		close(fd);
		if (error == ECONNREFUSED)
			return EDVSCONNREFUSED;
		return error == ETIMEDOUT ? EDVSTIMEDOUT : -error;
	}
	fcntl(fd, F_SETFL, 0);
	return fd;
}

/* With DVS_STRICT=1 nothing is sent to a node that no proxy joins, as in the DVS. */
static int strict(int dcid, int node)
{
	struct dvs *dvs;
	int error;

	if (!env_number("DVS_STRICT", 0, 0, 1))
		return 0;
	dvs = dvs_open(&error);
	if (!dvs)
		return error;
	if (node != dvs->nodeid &&
	    (dvs->nodes[node].flags != NODE_UP || !(dvs->nodes[node].dcs >> dcid & 1)))
		error = EDVSNONODE;
	dvs_close(dvs, T_NONE);
	return error;
}

/* The server may not listen yet: tried for DVS_CONNECT seconds. */
int net_reach(int dcid, int endpoint, int node)
{
	double until = now_monotonic() + (double)env_number("DVS_CONNECT", 5, 0, 3600);
	struct timespec pause = { 0, 50000000 };
	int port = endpoint_port(dcid, endpoint), fd = strict(dcid, node);
	struct sockaddr_in to;

	if (!fd)
		fd = net_address(node, NULL, port, &to);
	if (fd) {
		fprintf(stderr, "node %d: error=%d: %s\n", node, fd, dvk_strerror(fd));
		return fd;
	}
	for (;;) {
		fd = net_connect(&to, timeout_ms());
		if (fd >= 0 || now_monotonic() >= until)
			break;
		nanosleep(&pause, NULL);
	}
	if (fd < 0)
		fprintf(stderr, "node %d, endpoint %d of DC%d (%s:%d): error=%d: %s\n", node, endpoint,
			dcid, inet_ntoa(to.sin_addr), port, fd, dvk_strerror(fd));
	else
		net_timeout(fd, timeout_ms());
	return fd;
}

int net_accept(int listener, int milliseconds)
{
	struct pollfd wait = { .fd = listener, .events = POLLIN };
	int ready = poll(&wait, 1, milliseconds), fd, one = 1;

	if (ready <= 0)
		return ready ? -errno : EDVSTIMEDOUT;
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	net_timeout(fd, timeout_ms());
	return fd;
}

static int error_of(ssize_t result)
{
	if (!result || errno == ECONNRESET || errno == EPIPE)
		return EDVSDSTDIED;
	if (errno == EAGAIN || errno == ETIMEDOUT)
		return EDVSTIMEDOUT;
	return -errno;
}

int net_send(int fd, struct frame *frame, const void *data)
{
	struct frame wire = *frame;
	size_t total = sizeof wire + frame->length, done = 0;

	wire.magic = FRAME_MAGIC;
	wire.pad = 0;
	while (done < total) {
		struct iovec part[2] = { { (char *)&wire, sizeof wire },
					 { (void *)(uintptr_t)data, frame->length } };
		struct msghdr message = { .msg_iov = part, .msg_iovlen = frame->length ? 2 : 1 };
		size_t head = done < sizeof wire ? done : sizeof wire;
		ssize_t sent;

		part[0].iov_base = (char *)part[0].iov_base + head;
		part[0].iov_len -= head;
		part[1].iov_base = (char *)part[1].iov_base + (done - head);
		part[1].iov_len -= done - head;
		sent = sendmsg(fd, &message, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return error_of(sent);
		done += (size_t)sent;
	}
	return 0;
}

static int read_all(int fd, void *to, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t got = recv(fd, (char *)to + done, length - done, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return error_of(got);
		done += (size_t)got;
	}
	return 0;
}

int net_receive(int fd, struct frame *frame, void *data, size_t room)
{
	int error = read_all(fd, frame, sizeof *frame);

	if (error)
		return error;
	if (frame->magic != FRAME_MAGIC || frame->length > room)
		return EDVSBADFILE;
	return read_all(fd, data, frame->length);
}

int net_hello(int fd, struct hello *mine)
{
	struct frame frame = { .type = F_HELLO, .length = sizeof *mine };
	int error = net_send(fd, &frame, mine);

	if (!error)
		error = net_receive(fd, &frame, mine, sizeof *mine);
	if (!error && (frame.type != F_HELLO || frame.length != sizeof *mine))
		error = EDVSBADFILE;
	return error ? error : frame.status;
}
