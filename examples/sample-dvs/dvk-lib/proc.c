/* Processes as /proc shows them: a pid alone may be another's by now, with its start it is not. */
#include "dvk.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* State letter and start time (field 22); the name may hold spaces and brackets, so from its end. */
static bool stat_of(int pid, char *state, uint64_t *started)
{
	char path[40], text[1024], *rest;
	unsigned long long ticks;
	ssize_t length;
	int fd;

	/* Three system calls: a DC's init looks at every proxy of its node once a second. */
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, text, sizeof text - 1);
	close(fd);
	if (length <= 0)
		return false;
	text[length] = 0;
	rest = strrchr(text, ')');
	if (!rest || sscanf(rest + 1,
			    " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
			    "%*s %*s %llu", state, &ticks) != 2)
		return false;
	*started = ticks;
	return true;
}

/* Inside a DC the caller's getpid() is the inner pid; /proc is the host's and tells the outer one. */
void owner_self(struct owner *owner)
{
	char text[24];
	ssize_t length = readlink("/proc/self", text, sizeof text - 1);

	memset(owner, 0, sizeof *owner);
	owner->inner = getpid();
	owner->pid = owner->inner;
	if (length > 0) {
		text[length] = 0;
		owner->pid = atoi(text);
	}
	char state;
	if (!stat_of(owner->pid, &state, &owner->started))
		owner->started = 0;
}

bool owner_of(int pid, struct owner *owner)
{
	char state;

	memset(owner, 0, sizeof *owner);
	owner->pid = pid;
	owner->inner = pid;
	return stat_of(pid, &state, &owner->started);
}

bool owner_alive(const struct owner *owner)
{
	uint64_t started;
	char state;

	return owner->pid > 0 && stat_of(owner->pid, &state, &started) &&
	       started == owner->started && state != 'Z' && state != 'X';
}
