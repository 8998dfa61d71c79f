/* What servers and clients of the loops share: arguments, children, figures. */
#include "loop.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

void loop_setup(struct loop *loop, int argc, char *argv[], int at, int hard_coded)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > at)
		loop->dcid = number_argument(argv[at], "dcid", 0, NR_DCS - 1);
	loop->remote = (int)env_number("DVS_RMTNODE", -1, 0, NR_NODES - 1);
	if (argc > at + 1)
		loop->remote = number_argument(argv[at + 1], "nodeid", 0, NR_NODES - 1);
	loop->self = dvs_nodeid();
	if (loop->self < 0) {
		fprintf(stderr, "dvk_getdvsinfo error=%d: %s: %s\n", loop->self, dvs_folder(),
			dvk_strerror(loop->self));
		exit(dvk_exit_code(loop->self));
	}
	if (loop->remote < 0) {
		loop->remote = hard_coded;
		if (loop->remote == loop->self) {
			fprintf(stderr, "this is node %d: name the other node, by DVS_RMTNODE or as the last "
				"argument behind the dcid\n", loop->self);
			exit(EXIT_USAGE);
		}
	}
}

void loop_samples(struct loop *loop)
{
	size_t bytes = sizeof(double) * (size_t)loop->children * (size_t)loop->loops;

	loop->seconds = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (loop->seconds == MAP_FAILED) {
		fprintf(stderr, "no memory for the times of %d * %d exchanges\n", loop->children,
			loop->loops);
		exit(EXIT_FAILED);
	}
}

void loop_end_children(struct loop *loop)
{
	for (int i = 0; i < loop->children; i++)
		if (loop->done[i] > 0) {
			kill(loop->done[i], SIGKILL);
			waitpid(loop->done[i], NULL, 0);
			loop->done[i] = 0;
		}
}

int loop_reap(struct loop *loop, bool block, int *running)
{
	int worst = 0;

	*running = 0;
	for (int i = 0; i < loop->children; i++) {
		int status, pid = loop->done[i];

		if (pid > 0 && waitpid(pid, &status, block ? 0 : WNOHANG) == pid) {
			int code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;

			loop->done[i] = 0;
			if (code > worst)
				worst = code;
		}
		*running += loop->done[i] > 0;
	}
	return worst;
}

bool loop_wrong(const char *who, const void *data, size_t length, uint64_t block)
{
	ptrdiff_t at = pattern_check(data, length, block);

	if (at >= 0)
		fprintf(stderr, "%s: wrong byte: exchange %d, position %td of %zu\n", who,
			(int)(block >> 1 & 0xffffff), at, length);
	return at >= 0;
}

void loop_figures(const struct loop *loop, double start, double total, bool server)
{
	size_t count = (size_t)loop->children * (size_t)loop->loops;
	double bytes = (double)count * loop->size * (loop->kind == KIND_MSG ? 2 : 1);

	figures_times(stdout, start, total);
	printf("Children = %d\nLoops = %d\n", loop->children, loop->loops);
	if (loop->kind == KIND_MSG) {
		printf("Total msg transfers = %zu\n", count);
		printf("Time for a pair of SENDREC/RECEIVE-SEND= %f[ms]\n", 1e3 * total / (double)count);
		printf("Throuhput = %f [SENDREC/RECEIVE-SEND/s]\n", (double)count / total);
	} else {
		/* Of one child, as the DVS prints it; the throughput is of all together. */
		printf("transfer size=%d #transfers=%d loopbysec=%f\n", loop->size, loop->loops,
		       loop->loops / total);
		printf("Throuhput = %f [bytes/s]\n", bytes / total);
	}
	if (loop->kind == KIND_COPY || !server)
		figures_exchanges(loop->seconds, count);
	printf("rate = %.6f [MB/s]\n", bytes / 1e6 / total);
	/* Messages are checked on both sides, blocks where they arrive. */
	printf("checked_bytes = %.0f wrong_bytes = 0\n",
	       loop->kind == KIND_MSG ? bytes / 2 : server ? 0 : bytes);
}
