/* Joins this node with one other: a sender and a receiver process, one TCP connection each. */
#include "link.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STOP_MS 500

static _Noreturn void usage(const char *program)
{
	fprintf(stderr, "usage: %s [-bBZ] -n NAME -i ID     joins node ID, whose name is NAME\n",
		program);
	exit(EXIT_USAGE);
}

/* Takes the row of the remote node; another live proxy's is not taken over. */
static int claim(struct link *link)
{
	struct proxy *proxy;
	struct dvs *dvs;
	int error;

	dvs = dvs_open(&error);
	if (!dvs) {
		fprintf(stderr, "dvk_getdvsinfo error=%d: %s: %s\n", error, dvs_folder(),
			dvk_strerror(error));
		return error;
	}
	link->self = dvs->nodeid;
	proxy = &dvs->proxies[link->remote];
	if (link->remote == dvs->nodeid) {
		fprintf(stderr, "-i %d: is this node itself\n", link->remote);
		error = EDVSBADNODEID;
	} else if (proxy->flags && proxy->main.pid != link->main.pid) {
		fprintf(stderr, "node %d has a proxy already: pid %d\n", link->remote,
			proxy->main.pid);
		error = EDVSBUSY;
	} else {
		struct node *node = &dvs->nodes[link->remote];

		memset(proxy, 0, sizeof *proxy);
		proxy->flags = PROXY_RUNS;
		proxy->main = link->main;
		snprintf(proxy->name, NAMELEN, "%s", link->name);
		node->flags = NODE_ATTACHED;
		node->proxy = link->remote;
		node->sent = node->received = 0;
		snprintf(node->name, NAMELEN, "%s", link->name);
	}
	dvs_close(dvs, error ? T_NONE : T_NODES | T_PROXIES);
	return error;
}

/* Forks one direction; with the first process gone, however it went, it ends too. */
static int start(const struct link *link, bool sender)
{
	int parent = getpid(), pid = fork();
	struct owner self;
	struct dvs *dvs;
	int error;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(0);
	owner_self(&self);
	dvs = dvs_open(&error);
	if (dvs) {
		*(sender ? &dvs->proxies[link->remote].sender :
		  &dvs->proxies[link->remote].receiver) = self.pid;
		dvs_close(dvs, T_PROXIES);
	}
	if (sender)
		link_sender(link);
	link_receiver(link);
}

/* Until SIGTERM or SIGINT; a direction that dies is told to the tables and started again. */
static void supervise(const struct link *link, int sender, int receiver, const sigset_t *set)
{
	struct timespec pause = { 0, 500000000 };
	int child, got;

	do {
		got = sigwaitinfo(set, NULL);
		while ((child = waitpid(-1, NULL, WNOHANG)) > 0) {
			bool is_sender = child == sender;

			link_tell(link, 0, is_sender ? PROXY_SENDER : PROXY_RECEIVER);
			printf("%.3f proxy: its %s, pid %d, died; started again\n", now_wall(),
			       is_sender ? "sender" : "receiver", child);
			nanosleep(&pause, NULL);
			*(is_sender ? &sender : &receiver) = start(link, is_sender);
		}
	} while (got == SIGCHLD || (got < 0 && errno == EINTR));
	kill(sender, SIGTERM);
	kill(receiver, SIGTERM);
	for (int waited = 0; waited < STOP_MS; waited += 10) {
		while ((child = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (child < 0)
			return;
		nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	}
	kill(sender, SIGKILL);  /* in the middle of a connection that does not answer */
	kill(receiver, SIGKILL);
	while (wait(NULL) > 0)
		;
}

int main(int argc, char *argv[])
{
	struct link link = { .remote = -1 };
	int option, error, sender, receiver;
	bool noop = false;
	struct dvs *dvs;
	sigset_t set;

	while ((option = getopt(argc, argv, "bBZn:i:")) != -1)
		switch (option) {
		case 'b':
		case 'B':
		case 'Z':
			noop = true;
			break;
		case 'n':
			link.name = optarg;
			break;
		case 'i':
			link.remote = number_argument(optarg, "-i", 0, NR_NODES - 1);
			break;
		default:
			usage(argv[0]);
		}
	if (argv[optind] || !link.name || link.remote < 0)
		usage(argv[0]);
	if (!*link.name || strlen(link.name) >= NAMELEN || strpbrk(link.name, " \n")) {
		fprintf(stderr, "-n: 1 to %d characters without spaces\n", NAMELEN - 1);
		return EXIT_USAGE;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	link.beat_ms = (int)env_number("DVS_HEARTBEAT_MS", 1000, 10, 60000);
	link.deadline_ms = (int)env_number("DVS_DEADLINE_MS", 3000, 30, 600000);
	if (link.deadline_ms < 2 * link.beat_ms) {
		fprintf(stderr, "DVS_DEADLINE_MS=%d: at least twice DVS_HEARTBEAT_MS=%d is needed\n",
			link.deadline_ms, link.beat_ms);
		return EXIT_USAGE;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	owner_self(&link.main);
	error = claim(&link);
	if (error)
		return dvk_exit_code(error);
	link.listener = net_listen(link.self, (int)env_number("DVS_PROXY_PORT", PROXY_PORT, 1, 65000) +
				   link.remote);
	if (link.listener >= 0) {
		printf("%.3f proxy: node%d -> %s, pid %d%s\n", now_wall(), link.self, link.name,
		       link.main.pid, noop ? "; -b -B -Z have no effect here: nothing is batched or "
		       "compressed" : "");
		sender = start(&link, true);
		receiver = start(&link, false);
		supervise(&link, sender, receiver, &set);
	}
	dvs = dvs_open(&error);
	if (dvs) {
		if (dvs->proxies[link.remote].main.pid == link.main.pid)
			dvs_drop_proxy(dvs, link.remote);
		dvs_close(dvs, T_NODES | T_PROXIES);
	}
	return link.listener < 0 ? dvk_exit_code(link.listener) : EXIT_OK;
}
