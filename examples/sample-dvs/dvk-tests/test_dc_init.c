/*
 * Starts a DC: a PID namespace with a live init that reaps its children, and DC<n>.sh, which sets
 * DC<n> to the init's pid, so that `. DC0.sh; nsenter -p -t $DC0 PROGRAM` runs inside it.
 */
#include "dvk.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STOP_MS 3000

static _Noreturn void usage(const char *program)
{
	fprintf(stderr, "usage: %s [-d dcid] [-N DCname] [-o directory of DC<dcid>.sh, /dev/shm]\n"
		"       %s -e [-d dcid]     ends the DC and everything that runs in it\n", program,
		program);
	exit(EXIT_USAGE);
}

/* Pid 1 of the namespace. Nothing of the caller's stays open, or its ssh session would wait. */
static _Noreturn void dc_main(int dcid, int ready)
{
	struct timespec second = { 1, 0 };
	char name[16];
	sigset_t set;
	int null;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_SETMASK, &set, NULL);
	setsid();
	snprintf(name, sizeof name, "dc%d_init", dcid);
	prctl(PR_SET_NAME, name);
	null = open("/dev/null", O_RDWR);
	if (null < 0 || chdir("/"))
		_exit(1);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	for (int fd = 3; fd < 1024; fd++)
		if (fd != ready)
			close(fd);
	if (write(ready, "1", 1) != 1)
		_exit(1);
	close(ready);
	for (;;) {
		int error, got = sigtimedwait(&set, NULL, &second);
		struct dvs *dvs;

		if (got == SIGTERM)
			_exit(0);       /* the kernel ends all others in the namespace */
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		/* Once a second what the DVK does at a process's exit: opening sweeps. */
		dvs = got < 0 ? dvs_open(&error) : NULL;
		if (dvs)
			dvs_close(dvs, T_NONE);
	}
}

/* Forks the init in a new PID namespace; its pid as seen here, or an error. */
static int start_init(int dcid)
{
	int pipes[2], pid;
	char byte;

	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	if (unshare(CLONE_NEWPID)) {
		int error = errno;

		fprintf(stderr, "a new PID namespace: %s\n", error == EINVAL ?
			"this kernel has none (CONFIG_PID_NS)" :
			error == EPERM ? "root is needed" : strerror(error));
		return -error;
	}
	pid = fork();
	if (!pid)
		dc_main(dcid, pipes[1]);
	if (pid < 0)
		return -errno;
	close(pipes[1]);
	if (read(pipes[0], &byte, 1) != 1) {
		fprintf(stderr, "DC%d: its init died at once\n", dcid);
		return EDVSDCNOTRUN;
	}
	close(pipes[0]);
	return pid;
}

static int write_script(const struct dc *dc, int dcid, const char *path)
{
	char text[64];
	int length = snprintf(text, sizeof text, "DC%d=%d\nexport DC%d\n", dcid, dc->init.pid, dcid);
	int error = write_beside(path, text, (size_t)length);

	if (error)
		fprintf(stderr, "%s: %s\n", path, strerror(-error));
	return error;
}

static void stop_init(const struct dc *dc)
{
	struct timespec pause = { 0, 10000000 };

	if (!owner_alive(&dc->init))
		return;
	kill(dc->init.pid, SIGTERM);
	for (int waited = 0; waited < STOP_MS && owner_alive(&dc->init); waited += 10)
		nanosleep(&pause, NULL);
	if (owner_alive(&dc->init))
		kill(dc->init.pid, SIGKILL);
}

/* Removes a script that we wrote, if it still names this DC's init. */
static void remove_script(const char *path, int dcid, int pid)
{
	char wanted[32], text[64] = "";
	FILE *file = *path ? fopen(path, "re") : NULL;

	if (!file)
		return;
	if (!fgets(text, sizeof text, file))
		text[0] = 0;
	fclose(file);
	snprintf(wanted, sizeof wanted, "DC%d=%d\n", dcid, pid);
	if (!strcmp(text, wanted))
		unlink(path);
}

static int end_dc(struct dvs *dvs, int dcid)
{
	struct dc *dc = &dvs->dcs[dcid];

	if (!dc->init.pid) {
		fprintf(stderr, "DC%d is not running\n", dcid);
		return EDVSDCNOTRUN;
	}
	stop_init(dc);
	for (int i = 0; i < 2; i++)
		remove_script(dc->script[i], dcid, dc->init.pid);
	for (int i = 0; i < NR_SLOTS; i++)
		if (dvs->slots[i].used && dvs->slots[i].dcid == dcid)
			memset(&dvs->slots[i], 0, sizeof dvs->slots[i]);
	for (int i = 0; i < NR_NODES; i++) {
		dvs->nodes[i].dcs &= ~(1u << dcid);
		if (!dvs->nodes[i].dcs && !dvs->proxies[i].flags && i != dvs->nodeid)
			memset(&dvs->nodes[i], 0, sizeof dvs->nodes[i]);
	}
	printf("DC%d has ended\n", dcid);
	memset(dc, 0, sizeof *dc);
	return 0;
}

static int start_dc(struct dvs *dvs, int dcid, const char *name, const char *folder)
{
	struct dc *dc = &dvs->dcs[dcid];
	char here[200];
	int pid, error = 0;

	if (owner_alive(&dc->init)) {
		fprintf(stderr, "DC%d is already running: its init is pid %d\n", dcid, dc->init.pid);
		return EDVSBUSY;
	}
	if (dc->init.pid)       /* its init is dead: so is all that it left here */
		end_dc(dvs, dcid);
	pid = start_init(dcid);
	if (pid < 0)
		return pid;
	owner_of(pid, &dc->init);
	dc->init.inner = 1;
	snprintf(dc->name, NAMELEN, "%s", name);
	dvs->nodes[dvs->nodeid].dcs |= 1u << dcid;
	snprintf(dc->script[0], sizeof dc->script[0], "%s/DC%d.sh", folder, dcid);
	if (getcwd(here, sizeof here))
		snprintf(dc->script[1], sizeof dc->script[1], "%s/DC%d.sh", here, dcid);
	for (int i = 0; i < 2 && !error; i++)
		if (*dc->script[i])
			error = write_script(dc, dcid, dc->script[i]);
	if (error) {
		end_dc(dvs, dcid);
		return error;
	}
	printf("DC%d has been initialized on node %d\n", dcid, dvs->nodeid);
	printf("dc_pid=%d dc_name=%s script=%s\n", pid, dc->name, dc->script[0]);
	return 0;
}

int main(int argc, char *argv[])
{
	const char *folder = "/dev/shm", *name = NULL;
	int option, dcid = 0, error;
	bool end = false;
	char plain[NAMELEN];
	struct dvs *dvs;

	while ((option = getopt(argc, argv, "d:N:o:e")) != -1)
		switch (option) {
		case 'd':
			dcid = number_argument(optarg, "dcid", 0, NR_DCS - 1);
			break;
		case 'N':
			name = optarg;
			if (strlen(name) >= NAMELEN) {
				fprintf(stderr, "DC name too long [%d]\n", NAMELEN - 1);
				return EXIT_USAGE;
			}
			break;
		case 'o':
			folder = optarg;
			if (*folder != '/' || strlen(folder) > 200) {
				fprintf(stderr, "-o \"%s\": an absolute path is needed\n", folder);
				return EXIT_USAGE;
			}
			break;
		case 'e':
			end = true;
			break;
		default:
			usage(argv[0]);
		}
	if (argv[optind])
		usage(argv[0]);
	snprintf(plain, sizeof plain, "DC%d", dcid);
	dvs = dvs_open(&error);
	if (!dvs) {
		fprintf(stderr, "dvk_getdvsinfo error=%d: %s: %s\n", error, dvs_folder(),
			dvk_strerror(error));
		return dvk_exit_code(error);
	}
	error = end ? end_dc(dvs, dcid) : start_dc(dvs, dcid, name ? name : plain, folder);
	dvs_close(dvs, T_ALL);
	return dvk_exit_code(error);
}
