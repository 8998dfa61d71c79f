/*
 * The sender connects to node<remote> on 3000 + own id and beats; the receiver answers each beat.
 * Both ends so learn of a silent peer by themselves, whichever way the packets are lost.
 */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 250

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

/* No SA_RESTART: a wait ends at once. */
static void until_sigterm(void)
{
	struct sigaction action = { .sa_handler = stop };
	sigset_t set;

	sigaction(SIGTERM, &action, NULL);
	signal(SIGINT, SIG_IGN);        /* the first process gets it too, and ends us */
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

static void say(const struct link *link, const char *who, const char *format, ...)
{
	va_list rest;

	printf("%.3f %s: node%d -> %s: ", now_wall(), who, link->self, link->name);
	va_start(rest, format);
	vprintf(format, rest);
	va_end(rest);
	printf("\n");
}

static void sleep_ms(int milliseconds)
{
	struct timespec pause = { milliseconds / 1000, milliseconds % 1000 * 1000000L };

	nanosleep(&pause, NULL);
}

/* Whether the row is this proxy's; if not it is another one's by now, or the DVS was ended. */
static bool ours(const struct link *link, const struct proxy *proxy)
{
	return proxy->flags && proxy->main.pid == link->main.pid &&
	       proxy->main.started == link->main.started;
}

int link_tell(const struct link *link, unsigned set, unsigned clear)
{
	struct proxy *proxy;
	struct node *node;
	struct dvs *dvs;
	int error;

	/* What is not told now nobody tells later: the pair would count as not joined for good. */
	do
		dvs = dvs_open(&error);
	while (!dvs && error == EDVSBUSY && !stopped);
	if (!dvs)
		return error;
	proxy = &dvs->proxies[link->remote];
	node = &dvs->nodes[link->remote];
	if (!ours(link, proxy)) {
		dvs_close(dvs, T_NONE);
		return EDVSNOTBIND;
	}
	proxy->flags = (proxy->flags | set) & ~clear;
	node->flags = NODE_ATTACHED | (proxy->flags & PROXY_SENDER ? NODE_SENDER : 0) |
		      (proxy->flags & PROXY_RECEIVER ? NODE_RECEIVER : 0);
	dvs_close(dvs, T_NODES | T_PROXIES);
	return 0;
}

/* A beat: without a lock, and without a look at any process. */
static void count(const struct link *link, bool sent)
{
	static struct dvs *dvs;
	struct node *node;
	int error;

	if (!dvs)
		dvs = dvs_keep(&error);
	if (!dvs || !ours(link, &dvs->proxies[link->remote]))
		return;
	node = &dvs->nodes[link->remote];
	if (sent)
		node->sent++;
	else
		node->received++;
	dvs_tell_counters(dvs);
}

static struct hello hello_of(const struct link *link)
{
	struct hello hello = { .node = link->self, .to_node = link->remote };

	return hello;
}

/* Beats until the peer is silent, gone, or we are to stop; returns why. */
static int beat(const struct link *link, int fd)
{
	double due = now_monotonic(), heard = due;
	uint64_t seq = 0;

	while (!stopped) {
		double now = now_monotonic();
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		struct frame frame;
		int error = 0;

		if (now >= due) {
			frame = (struct frame){ .type = F_BEAT, .seq = ++seq };
			error = net_send(fd, &frame, NULL);
			due = now + link->beat_ms / 1e3;
			if (!error)
				count(link, true);
		}
		if (!error && now - heard > link->deadline_ms / 1e3)
			error = EDVSTIMEDOUT;
		if (!error && poll(&wait, 1, (int)((due - now) * 1e3) + 1) > 0) {
			error = net_receive(fd, &frame, NULL, 0);
			heard = now_monotonic();
		}
		if (error)
			return error;
	}
	return 0;
}

_Noreturn void link_sender(const struct link *link)
{
	int port = (int)env_number("DVS_PROXY_PORT", PROXY_PORT, 1, 65000) + link->self;
	int fd, error = 0, told = 0;

	until_sigterm();
	while (!stopped) {
		struct hello hello = hello_of(link);
		struct sockaddr_in to;

		fd = net_address(link->remote, link->name, port, &to);
		if (!fd)
			fd = net_connect(&to, link->deadline_ms);
		error = fd;
		if (fd >= 0) {
			net_timeout(fd, link->deadline_ms);
			error = net_hello(fd, &hello);
			if (!error) {
				say(link, "sender", "connected");
				link_tell(link, PROXY_SENDER, 0);
				error = beat(link, fd);
				link_tell(link, 0, PROXY_SENDER);
				told = 0;
			}
			close(fd);
		}
		/* The same reason is said once, not four times a second. */
		if (!stopped && error != told) {
			say(link, "sender", "not connected: error=%d: %s", error, dvk_strerror(error));
			told = error;
		}
		if (!stopped)
			sleep_ms(RETRY_MS);
	}
	_exit(0);
}

/* A newcomer that says the right words, or -1. It takes the place of the connection that is. */
static int admit(const struct link *link)
{
	struct frame frame;
	struct hello hello;
	int fd = net_accept(link->listener, 0);

	if (fd < 0)
		return -1;
	net_timeout(fd, link->deadline_ms / 3);
	if (net_receive(fd, &frame, &hello, sizeof hello) || frame.type != F_HELLO ||
	    frame.length != sizeof hello) {
		close(fd);
		return -1;
	}
	frame.status = hello.node == link->remote && hello.to_node == link->self ? 0 : EDVSBADNODEID;
	if (net_send(fd, &frame, &hello) || frame.status) {
		say(link, "receiver", "refused node %d", hello.node);
		close(fd);
		return -1;
	}
	net_timeout(fd, link->deadline_ms);
	return fd;
}

static int answer(const struct link *link, int fd)
{
	struct frame frame;
	int error = net_receive(fd, &frame, NULL, 0);

	if (!error)
		error = net_send(fd, &frame, NULL);
	if (!error)
		count(link, false);
	return error;
}

_Noreturn void link_receiver(const struct link *link)
{
	double heard = 0;
	int fd = -1;

	until_sigterm();
	while (!stopped) {
		struct pollfd wait[2] = { { .fd = link->listener, .events = POLLIN },
					  { .fd = fd, .events = POLLIN } };
		int error = 0, newcomer = -1;

		poll(wait, 2, link->beat_ms);
		if (stopped)
			break;
		if (wait[0].revents)
			newcomer = admit(link);
		if (newcomer >= 0) {
			if (fd >= 0)
				close(fd);
			fd = newcomer;
			heard = now_monotonic();
			say(link, "receiver", "connected");
			link_tell(link, PROXY_RECEIVER, 0);
			continue;
		}
		if (fd < 0)
			continue;
		if (wait[1].revents) {
			error = answer(link, fd);
			heard = now_monotonic();
		} else if (now_monotonic() - heard > link->deadline_ms / 1e3) {
			error = EDVSTIMEDOUT;
		}
		if (error) {
			say(link, "receiver", "lost: error=%d: %s", error, dvk_strerror(error));
			link_tell(link, 0, PROXY_RECEIVER);
			close(fd);
			fd = -1;
		}
	}
	link_tell(link, 0, PROXY_RECEIVER);
	_exit(0);
}
