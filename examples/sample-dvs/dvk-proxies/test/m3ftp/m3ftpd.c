/* Serves the files of its own folder; its figures go to m3ftpd.log there, as the DVS's do. */
#include "m3ftp.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG "m3ftpd.log"

static volatile sig_atomic_t stopped;
static int folder, dcid, endpoint, self;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

/* One write for a session: sessions that end together do not mix their lines. */
static void log_session(bool put, const char *path, int error, const struct transfer *transfer,
			double wall, double total)
{
	int fd = openat(folder, LOG, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return;
	if (error) {
		fprintf(out, "FTP_%s [%s] FAILED error=%d: %s: %llu of %llu bytes\n",
			put ? "PUT" : "GET", path, error, transfer_error(error),
			(unsigned long long)transfer->bytes, (unsigned long long)transfer->announced);
	} else {
		figures_times(out, wall, total);
		fprintf(out, "total_bytes = %llu\n", (unsigned long long)transfer->bytes);
		fprintf(out, "FTP_%s [%s] Throuhput = %f [bytes/s]\n", put ? "PUT" : "GET", path,
			(double)transfer->bytes / total);
	}
	fclose(out);
	if (fd < 0 || write(fd, text, length) != (ssize_t)length)
		fprintf(stderr, "%s: %s\n", LOG, strerror(errno));
}

static int answer(int fd, struct frame *frame, struct request *request, int error, uint64_t size)
{
	frame->status = error;
	request->size = size;
	return net_send(fd, frame, request);
}

/* A request that makes no sense; its path is not for the log. */
static void refuse(int fd, struct frame *frame, struct request *request, int error)
{
	strcpy(request->path, "?");
	frame->length = sizeof *request;
	answer(fd, frame, request, error, 0);
}

static int serve_get(int fd, struct frame *frame, struct request *request, struct transfer *transfer)
{
	int parent = -1, file, error, sent;
	const char *name;

	error = open_beneath(folder, request->path, &parent, &name);
	file = error ? error : open_regular(parent, name, &transfer->announced);
	error = file < 0 ? file : 0;
	sent = answer(fd, frame, request, error, transfer->announced);
	if (error || sent)
		return error ? error : sent;
	return transfer_send(fd, transfer, file);
}

static int serve_put(int fd, struct frame *frame, struct request *request, struct transfer *transfer)
{
	struct beside beside;
	const char *name;
	int parent = -1, error, sent;

	transfer->announced = request->size;
	error = open_beneath(folder, request->path, &parent, &name);
	if (!error)
		error = beside_open(&beside, parent, name);
	sent = answer(fd, frame, request, error, request->size);
	if (error)
		return error;
	error = sent ? sent : transfer_receive(fd, transfer, beside.fd);
	if (error) {
		beside_drop(&beside);
		return error;
	}
	error = beside_commit(&beside);
	*frame = (struct frame){ .type = F_END, .status = error, .seq = transfer->bytes };
	sent = net_send(fd, frame, NULL);
	return error ? error : sent;
}

/* The client's endpoint must be bound here, on its node: test_rmtbind, as in the procedure. */
static int greet(int fd)
{
	struct frame frame;
	struct hello hello;
	int error = net_receive(fd, &frame, &hello, sizeof hello);

	if (error || frame.type != F_HELLO || frame.length != sizeof hello)
		return error ? error : EDVSBADFILE;
	frame.status = 0;
	if (hello.dcid != dcid || hello.to_endpoint != endpoint || hello.to_node != self ||
	    dvk_node_of(dcid, hello.endpoint) != hello.node)
		frame.status = EDVSNOTBIND;
	error = net_send(fd, &frame, &hello);
	if (frame.status)
		fprintf(stderr, "refused: endpoint %d of node %d is not bound here\n", hello.endpoint,
			hello.node);
	return error ? error : frame.status;
}

static _Noreturn void session(int fd)
{
	struct transfer transfer = { 0 };
	struct request request;
	struct frame frame;
	double wall, start;
	bool put;
	int error = greet(fd);

	if (!error)
		error = net_receive(fd, &frame, &request, sizeof request);
	if (error)
		_exit(transfer_exit_code(error));
	put = frame.type == F_PUT;
	wall = now_wall();
	start = now_monotonic();
	request.path[PATHLEN - 1] = 0;
	transfer.buffer = request.buffer;
	if ((!put && frame.type != F_GET) || frame.length != sizeof request ||
	    request.buffer < MIN_BUFFER || request.buffer > MAXCOPY || request.buffer % 8 ||
	    strpbrk(request.path, "\n]"))
		error = EDVSINVAL;
	else if (!(transfer.data = malloc(request.buffer)))
		error = -ENOMEM;
	if (error)
		refuse(fd, &frame, &request, error);
	else
		error = put ? serve_put(fd, &frame, &request, &transfer) :
			serve_get(fd, &frame, &request, &transfer);
	log_session(put, request.path, error, &transfer, wall,
		    now_monotonic() - start);
	_exit(transfer_exit_code(error));
}

/* A process a session, so that one that hangs holds up no other. */
static void serve(int listener, const sigset_t *waiting)
{
	int parent = getpid();

	while (!stopped) {
		struct pollfd wait = { .fd = listener, .events = POLLIN };
		int fd, pid;

		if (ppoll(&wait, 1, NULL, waiting) <= 0) {
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
			continue;
		}
		fd = net_accept(listener, 0);
		if (fd < 0)
			continue;
		pid = fork();
		if (!pid) {
			signal(SIGTERM, SIG_DFL);
			signal(SIGINT, SIG_DFL);
			sigprocmask(SIG_SETMASK, waiting, NULL);
			prctl(PR_SET_PDEATHSIG, SIGTERM);
			if (getppid() != parent)
				_exit(EXIT_FAILED);
			close(listener);
			session(fd);
		}
		if (pid < 0)
			fprintf(stderr, "no process for a session: %s\n", strerror(errno));
		close(fd);
	}
}

static void nothing(int signal)
{
	(void)signal;
}

int main(int argc, char *argv[])
{
	struct sigaction action = { .sa_handler = stop };
	char program[PATH_MAX] = "";
	sigset_t blocked, waiting;
	int listener;

	if (argc != 3) {
		fprintf(stderr, "Usage: m3ftpd <dcid> <ftpd_ep>\n");
		return EXIT_USAGE;
	}
	dcid = number_argument(argv[1], "dcid", 0, NR_DCS - 1);
	endpoint = number_argument(argv[2], "ftpd_ep", -NR_TASKS, NR_PROCS - 1);
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	action.sa_handler = nothing;
	sigaction(SIGCHLD, &action, NULL);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_BLOCK, &blocked, &waiting);
	if (readlink("/proc/self/exe", program, sizeof program - 1) < 0 ||
	    (folder = open(dirname(program), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
		fprintf(stderr, "m3ftpd: its own folder: %s\n", strerror(errno));
		return EXIT_FAILED;
	}
	self = dvs_nodeid();
	if (dvk_bind(dcid, endpoint, "m3ftpd"))
		return self < 0 ? EXIT_NODVS : EXIT_BIND;
	listener = net_listen(self, endpoint_port(dcid, endpoint));
	if (listener < 0)
		return EXIT_FAILED;
	printf("ready: DC%d node %d endpoint %d port %d, serving %s\n", dcid, self, endpoint,
	       endpoint_port(dcid, endpoint), program);
	serve(listener, &waiting);
	return EXIT_OK;         /* sessions end with it, and unbinding is at exit */
}
