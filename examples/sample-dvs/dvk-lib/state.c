/*
 * The state folder: one file, .dvk, holds what the DVS's kernel part would hold, and the tables
 * beside it are written from it. Whoever opens it has it alone (a lock on .lock) until the close.
 */
#include "dvk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC "sample-dvs 1"
#define LOCK_MS 5000    /* a holder is done in well under a millisecond, unless it was stopped */

static int lock_fd = -1;
static ino_t kept_file;         /* of what dvs_keep has mapped */

const char *dvs_folder(void)
{
	const char *folder = getenv("DVS_STATE");

	if (!folder || !*folder)
		return "/run/sample-dvs";
	if (*folder != '/') {
		fprintf(stderr, "DVS_STATE=%s: an absolute path is needed\n", folder);
		exit(EXIT_USAGE);
	}
	return folder;
}

int dvs_library_flag(void)
{
#ifdef CONFIG_DVKIPC
	return 1;
#else
	return 2;
#endif
}

long env_number(const char *name, long otherwise, long min, long max)
{
	const char *text = getenv(name);
	char *end;
	long value;

	if (!text || !*text)
		return otherwise;
	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || *end || value < min || value > max) {
		fprintf(stderr, "%s=%s: a number from %ld to %ld is needed\n", name, text, min, max);
		exit(EXIT_USAGE);
	}
	return value;
}

static void in_folder(char *out, size_t room, const char *name)
{
	if ((size_t)snprintf(out, room, "%s/%s", dvs_folder(), name) >= room) {
		fprintf(stderr, "DVS_STATE: too long a path: %s\n", dvs_folder());
		exit(EXIT_USAGE);
	}
}

/* The state of before a reboot is no state. */
static void boot_id(char *out, size_t room)
{
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	memset(out, 0, room);
	if (file) {
		if (!fgets(out, (int)room, file))
			out[0] = 0;
		fclose(file);
	}
	out[strcspn(out, "\n")] = 0;
}

static int lock(bool create)
{
	struct timespec pause = { 0, 2000000 };
	char path[512];
	int waited = 0;

	in_folder(path, sizeof path, ".lock");
	lock_fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0644);
	if (lock_fd < 0)
		return errno == ENOENT ? EDVSDVSINIT : -errno;
	while (flock(lock_fd, LOCK_EX | LOCK_NB)) {
		if (waited >= LOCK_MS) {
			close(lock_fd);
			return EDVSBUSY;
		}
		nanosleep(&pause, NULL);
		waited += 2;
	}
	return 0;
}

static struct dvs *map_state(int *error)
{
	char path[512], boot[40];
	struct dvs *dvs;
	struct stat st;
	int fd;

	in_folder(path, sizeof path, ".dvk");
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		*error = errno == ENOENT ? EDVSDVSINIT : -errno;
		return NULL;
	}
	if (fstat(fd, &st) || st.st_size != (off_t)sizeof *dvs) {
		close(fd);
		*error = EDVSBADFILE;
		return NULL;
	}
	dvs = mmap(NULL, sizeof *dvs, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (dvs == MAP_FAILED) {
		*error = -errno;
		return NULL;
	}
	boot_id(boot, sizeof boot);
	if (strcmp(dvs->magic, MAGIC) || strcmp(dvs->boot, boot)) {
		*error = strcmp(dvs->magic, MAGIC) ? EDVSBADFILE : EDVSDVSINIT;
		munmap(dvs, sizeof *dvs);
		return NULL;
	}
	return dvs;
}

struct dvs *dvs_open(int *error)
{
	struct dvs *dvs;

	*error = lock(false);
	if (*error)
		return NULL;
	dvs = map_state(error);
	if (!dvs)
		close(lock_fd);
	else if (dvs_sweep(dvs))
		tables_write(dvs, T_NODES | T_PROXIES);
	return dvs;
}

void dvs_close(struct dvs *dvs, int tables)
{
	if (tables)
		tables_write(dvs, tables);
	munmap(dvs, sizeof *dvs);
	close(lock_fd);
}

/*
 * For who only counts: a proxy beats all the time, and a lab of many nodes has many proxies. Each
 * counter has one process that adds to it.
 */
struct dvs *dvs_keep(int *error)
{
	char path[512];
	struct dvs *dvs;
	struct stat st;

	*error = lock(false);
	if (*error)
		return NULL;
	dvs = map_state(error);
	in_folder(path, sizeof path, ".dvk");
	kept_file = dvs && !stat(path, &st) ? st.st_ino : 0;
	close(lock_fd);
	return dvs;
}

/* The table shows the counters of this second, whoever of all that count comes first in it. */
void dvs_tell_counters(struct dvs *kept)
{
	uint32_t second = (uint32_t)now_monotonic() + 1;
	char path[512];
	struct stat st;

	if (kept->told == second || lock(false))
		return;
	in_folder(path, sizeof path, ".dvk");
	/* Not from a state that was made anew meanwhile. */
	if (kept->told != second && !stat(path, &st) && st.st_ino == kept_file) {
		kept->told = second;
		tables_write(kept, T_NODES);
	}
	close(lock_fd);
}

int dvs_nodeid(void)
{
	int error, node;
	struct dvs *dvs = dvs_open(&error);

	if (!dvs)
		return error;
	node = dvs->nodeid;
	dvs_close(dvs, T_NONE);
	return node;
}

void dvs_drop_proxy(struct dvs *dvs, int id)
{
	memset(&dvs->proxies[id], 0, sizeof dvs->proxies[id]);
	dvs->nodes[id].proxy = -1;
	dvs->nodes[id].flags = 0;
	if (dvs->nodes[id].dcs)         /* still a node of a DC: its row stays, not connected */
		dvs->nodes[id].flags = NODE_ATTACHED;
}

/* What a kernel does when a process exits: rows of proxies that died without a word go. */
bool dvs_sweep(struct dvs *dvs)
{
	bool changed = false;

	for (int id = 0; id < NR_NODES; id++) {
		struct proxy *proxy = &dvs->proxies[id];

		if (proxy->flags && !owner_alive(&proxy->main)) {
			dvs_drop_proxy(dvs, id);
			changed = true;
		}
	}
	return changed;
}

/* Name of what is alive in this state, or NULL. */
static const char *in_use(const struct dvs *dvs)
{
	static char text[64];

	for (int i = 0; i < NR_DCS; i++)
		if (dvs->dcs[i].init.pid && owner_alive(&dvs->dcs[i].init)) {
			snprintf(text, sizeof text, "DC%d runs (init is pid %d)", i,
				 dvs->dcs[i].init.pid);
			return text;
		}
	for (int i = 0; i < NR_NODES; i++)
		if (dvs->proxies[i].flags) {
			snprintf(text, sizeof text, "the proxy of node %d runs (pid %d)", i,
				 dvs->proxies[i].main.pid);
			return text;
		}
	return NULL;
}

/* Takes the lock and makes sure that nothing lives in the state that is there, if any. */
static int lock_unused(bool create)
{
	const char *user = NULL;
	struct dvs *old;
	int error = lock(create);

	if (error)
		return error;
	old = map_state(&error);
	if (old) {
		dvs_sweep(old);
		user = in_use(old);
		munmap(old, sizeof *old);
	}
	if (!user)
		return 0;
	fprintf(stderr, "the DVS is in use: %s\n", user);
	close(lock_fd);
	return EDVSBUSY;
}

static void remove_file(const char *name)
{
	char path[512];

	in_folder(path, sizeof path, name);
	unlink(path);
}

static void remove_tables(void)
{
	char name[32], path[512];

	remove_file("info");
	remove_file("nodes");
	remove_file("proxies/info");
	for (int i = 0; i < NR_DCS; i++) {
		snprintf(name, sizeof name, "DC%d/info", i);
		remove_file(name);
		snprintf(name, sizeof name, "DC%d/procs", i);
		remove_file(name);
		snprintf(name, sizeof name, "DC%d", i);
		in_folder(path, sizeof path, name);
		rmdir(path);
	}
}

static int make_folder(const char *path)
{
	char part[512];

	for (size_t i = 1; path[i - 1]; i++) {
		if (path[i] != '/' && path[i])
			continue;
		snprintf(part, sizeof part, "%.*s", (int)i, path);
		if (mkdir(part, 0755) && errno != EEXIST)
			return -errno;
	}
	return 0;
}

int dvs_init(int nodeid, const char *name, uint32_t debug, int more_flags)
{
	struct dvs *dvs = calloc(1, sizeof *dvs);
	char path[512];
	int error;

	in_folder(path, sizeof path, "proxies");
	error = dvs ? make_folder(path) : -ENOMEM;
	if (!error)
		error = lock_unused(true);
	if (error) {
		free(dvs);
		return error;
	}
	remove_tables();
	strcpy(dvs->magic, MAGIC);
	boot_id(dvs->boot, sizeof dvs->boot);
	snprintf(dvs->name, sizeof dvs->name, "%s", name);
	dvs->nodeid = nodeid;
	dvs->flags = dvs_library_flag() | more_flags;
	dvs->debug = debug;
	for (int i = 0; i < NR_NODES; i++)
		dvs->nodes[i].proxy = -1;
	dvs->nodes[nodeid].flags = NODE_SELF;
	snprintf(dvs->nodes[nodeid].name, NAMELEN, "node%d", nodeid);
	in_folder(path, sizeof path, ".dvk");
	error = write_beside(path, (const char *)dvs, sizeof *dvs);
	if (!error)
		tables_write(dvs, T_ALL);
	close(lock_fd);
	free(dvs);
	return error;
}

int dvs_end(void)
{
	int error = lock_unused(false);
	char path[512];

	if (error)
		return error;
	remove_tables();
	remove_file(".dvk");
	in_folder(path, sizeof path, "proxies");
	rmdir(path);
	remove_file(".lock");
	close(lock_fd);
	return rmdir(dvs_folder()) ? -errno : 0;
}
