/* Gets a file from an m3ftpd, or puts one there. */
#include "m3ftp.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct job {
	bool put;
	int dcid, server, client, node, self;
	const char *remote, *local;
	struct request request;
};

static _Noreturn void usage(void)
{
	fprintf(stderr, "Usage:  m3ftp {-p|-g} [-b buffer] <dcid> <srv_ep> <clt_ep> <rmt_fname> "
		"<lcl_fname> \n");
	exit(EXIT_USAGE);
}

/* Bytes, with K or M behind the number. */
static uint32_t buffer_size(const char *text)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (!strcasecmp(end, "k"))
		value <<= 10;
	else if (!strcasecmp(end, "m"))
		value <<= 20;
	else if (*end)
		value = 0;
	if (errno || value < MIN_BUFFER || value > MAXCOPY || value % 8) {
		fprintf(stderr, "buffer \"%s\": 8 bytes to 16M, a multiple of 8\n", text);
		exit(EXIT_USAGE);
	}
	return (uint32_t)value;
}

/* Connects, agrees on the endpoints, sends the request and takes its answer. */
static int ask(struct job *job)
{
	struct hello hello = { .dcid = job->dcid, .node = job->self, .endpoint = job->client,
			       .to_node = job->node, .to_endpoint = job->server };
	struct frame frame = { .type = job->put ? F_PUT : F_GET, .length = sizeof job->request };
	int fd = net_reach(job->dcid, job->server, job->node), error;

	if (fd < 0)
		return fd;
	error = net_hello(fd, &hello);
	if (error == EDVSNOTBIND)
		fprintf(stderr, "node %d refuses: endpoint %d is not bound there to node %d "
			"(test_rmtbind %d %d %d NAME on node %d)\n", job->node, job->client, job->self,
			job->dcid, job->client, job->self, job->node);
	if (!error)
		error = net_send(fd, &frame, &job->request);
	if (!error)
		error = net_receive(fd, &frame, &job->request, sizeof job->request);
	if (!error)
		error = frame.status;
	if (!error)
		return fd;
	close(fd);
	return error;
}

/* After the last byte the server says that the file has its name. */
static int confirmed(int fd)
{
	struct frame frame;
	int error = net_receive(fd, &frame, NULL, 0);

	if (!error && frame.type != F_END)
		error = EDVSBADFILE;
	return error ? error : frame.status;
}

static int put(struct job *job, struct transfer *transfer)
{
	int file = open_regular(AT_FDCWD, job->local, &transfer->announced), fd, error;

	if (file < 0) {
		fprintf(stderr, "%s: %s\n", job->local, strerror(-file));
		return file;
	}
	job->request.size = transfer->announced;
	fd = ask(job);
	error = fd < 0 ? fd : transfer_send(fd, transfer, file);
	if (!error)
		error = confirmed(fd);
	close(file);
	return error;
}

static int get(struct job *job, struct transfer *transfer)
{
	char folder[4096], name[4096];
	struct beside beside;
	int directory, fd, error;

	snprintf(folder, sizeof folder, "%s", job->local);
	snprintf(name, sizeof name, "%s", job->local);
	directory = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	error = directory < 0 ? -errno : beside_open(&beside, directory, basename(name));
	if (error) {
		fprintf(stderr, "%s: %s\n", job->local, strerror(-error));
		return error;
	}
	fd = ask(job);
	error = fd < 0 ? fd : 0;
	if (!error) {
		transfer->announced = job->request.size;
		error = transfer_receive(fd, transfer, beside.fd);
	}
	if (error) {
		beside_drop(&beside);
		return error;
	}
	return beside_commit(&beside);
}

static int run(struct job *job)
{
	struct transfer transfer = { .buffer = job->request.buffer };
	double wall = now_wall(), start = now_monotonic(), total;
	int error;

	transfer.data = malloc(transfer.buffer);
	error = !transfer.data ? -ENOMEM : job->put ? put(job, &transfer) : get(job, &transfer);
	total = now_monotonic() - start;
	if (error) {
		fprintf(stderr, "m3ftp: FTP_%s [%s]: error=%d: %s: %llu of %llu bytes\n",
			job->put ? "PUT" : "GET", job->remote, error, transfer_error(error),
			(unsigned long long)transfer.bytes, (unsigned long long)transfer.announced);
		return transfer_exit_code(error);
	}
	figures_times(stdout, wall, total);
	printf("total_bytes = %llu\n", (unsigned long long)transfer.bytes);
	printf("FTP_%s [%s] Throuhput = %f [bytes/s]\n", job->put ? "PUT" : "GET", job->remote,
	       (double)transfer.bytes / total);
	printf("buffer = %u\n", transfer.buffer);
	return EXIT_OK;
}

int main(int argc, char *argv[])
{
	const char *buffer = getenv("M3FTP_BUFFER");
	struct job job = { 0 };
	bool get_given = false;
	int option;

	while ((option = getopt(argc, argv, "+pgb:")) != -1)
		if (option == 'p')
			job.put = true;
		else if (option == 'g')
			get_given = true;
		else if (option == 'b')
			buffer = optarg;
		else
			usage();
	if (argc - optind != 5 || job.put == get_given)
		usage();
	setvbuf(stdout, NULL, _IOLBF, 0);
	job.dcid = number_argument(argv[optind], "dcid", 0, NR_DCS - 1);
	job.server = number_argument(argv[optind + 1], "srv_ep", -NR_TASKS, NR_PROCS - 1);
	job.client = number_argument(argv[optind + 2], "clt_ep", -NR_TASKS, NR_PROCS - 1);
	job.remote = argv[optind + 3];
	job.local = argv[optind + 4];
	if (!*job.remote || strlen(job.remote) >= PATHLEN || !*job.local ||
	    strlen(job.local) >= 4096) {
		fprintf(stderr, "names of files: 1 to %d characters\n", PATHLEN - 1);
		return EXIT_USAGE;
	}
	job.request.buffer = buffer && *buffer ? buffer_size(buffer) : DEFAULT_BUFFER;
	snprintf(job.request.path, PATHLEN, "%s", job.remote);
	job.node = dvk_node_of(job.dcid, job.server);
	if (job.node < 0) {
		if (job.node == EDVSNOTBIND)
			fprintf(stderr, "SERVER not bound=%d: test_rmtbind %d %d NODE m3ftp_server\n",
				job.node, job.dcid, job.server);
		return dvk_exit_code(job.node);
	}
	job.self = dvs_nodeid();
	if (dvk_bind(job.dcid, job.client, "m3ftp"))
		return EXIT_BIND;
	return run(&job);
}
