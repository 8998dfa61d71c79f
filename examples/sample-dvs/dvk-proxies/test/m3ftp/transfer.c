/* The bytes of a file, from one side or to the other, and the files themselves. */
#include "m3ftp.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *transfer_error(int error)
{
	return error == SHORT_TRANSFER ? "short transfer" : dvk_strerror(error);
}

int transfer_exit_code(int error)
{
	if (error == SHORT_TRANSFER)
		return EXIT_SHORT;
	return error == EDVSBADFILE ? EXIT_BYTES : dvk_exit_code(error);
}

/* The folder of path, opened one name after the other, so that no link leads out of it. */
int open_beneath(int directory, const char *path, int *parent, const char **name)
{
	int at = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *slash;
	char part[PATHLEN];

	if (at < 0)
		return -errno;
	for (;; path = slash + 1) {
		size_t length = strcspn(path, "/");
		int next;

		slash = path[length] ? path + length : NULL;
		if (!length || !strncmp(path, "..", length) || length >= sizeof part) {
			close(at);
			return -EACCES;
		}
		if (!slash)
			break;
		snprintf(part, sizeof part, "%.*s", (int)length, path);
		next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(at);
		if (next < 0)
			return errno == ELOOP || errno == ENOTDIR ? -EACCES : -errno;
		at = next;
	}
	*parent = at;
	*name = path;
	return 0;
}

int open_regular(int directory, const char *name, uint64_t *size)
{
	int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return errno == ELOOP ? -EACCES : -errno;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return -EINVAL;
	}
	*size = (uint64_t)st.st_size;
	return fd;
}

static struct beside *current;

/* Ended by a signal: half a file does not stay. */
static void on_signal(int number)
{
	unlinkat(current->directory, current->temporary, 0);
	signal(number, SIG_DFL);
	raise(number);
}

int beside_open(struct beside *beside, int directory, const char *name)
{
	struct stat st;

	if (strlen(name) >= sizeof beside->name)
		return -ENAMETOOLONG;
	if (!fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) && !S_ISREG(st.st_mode))
		return S_ISLNK(st.st_mode) ? -EACCES : -EINVAL;
	beside->directory = directory;
	snprintf(beside->name, sizeof beside->name, "%s", name);
	snprintf(beside->temporary, sizeof beside->temporary, ".%.200s.m3ftp.%d", name,
		 (int)getpid());
	beside->fd = openat(directory, beside->temporary,
			    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (beside->fd < 0)
		return -errno;
	current = beside;
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	return 0;
}

int beside_commit(struct beside *beside)
{
	int error = close(beside->fd) ? -errno : 0;

	if (!error && renameat(beside->directory, beside->temporary, beside->directory,
			       beside->name))
		error = -errno;
	if (error)
		unlinkat(beside->directory, beside->temporary, 0);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	return error;
}

void beside_drop(struct beside *beside)
{
	close(beside->fd);
	unlinkat(beside->directory, beside->temporary, 0);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
}

/* A whole buffer, except at the end of the file: the sum needs that. */
static ssize_t read_buffer(int file, char *to, size_t room)
{
	size_t done = 0;

	while (done < room) {
		ssize_t got = read(file, to + done, room - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

static int write_buffer(int file, const char *from, size_t length)
{
	while (length) {
		ssize_t put = write(file, from, length);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		from += put;
		length -= (size_t)put;
	}
	return 0;
}

/* Answers each NEXT with a DATA, and with END where the file ends or its announced size does. */
int transfer_send(int fd, struct transfer *transfer, int file)
{
	struct frame frame;

	for (uint64_t seq = 0;; seq++) {
		uint64_t left = transfer->announced - transfer->bytes;
		int error = net_receive(fd, &frame, NULL, 0);
		ssize_t got;

		if (!error && (frame.type != F_NEXT || (!frame.status && frame.seq != seq)))
			error = EDVSBADFILE;
		if (!error)
			error = frame.status;   /* the other side could not write, say */
		if (error)
			return error;
		got = read_buffer(file, transfer->data,
				  left < transfer->buffer ? (size_t)left : transfer->buffer);
		frame = (struct frame){ .type = got > 0 ? F_DATA : F_END, .seq = seq };
		if (got > 0) {
			frame.length = (uint32_t)got;
			frame.check = data_check(seq, transfer->data, (size_t)got);
			transfer->bytes += (uint64_t)got;
		} else {
			frame.status = (int32_t)got;
			frame.seq = transfer->bytes;
		}
		error = net_send(fd, &frame, transfer->data);
		if (error || got < 0)
			return error ? error : (int)got;
		if (!got)
			return transfer->bytes < transfer->announced ? SHORT_TRANSFER : 0;
	}
}

static int data(struct transfer *transfer, const struct frame *frame, uint64_t seq, int file)
{
	if (frame->type != F_DATA || frame->seq != seq ||
	    frame->check != data_check(seq, transfer->data, frame->length)) {
		fprintf(stderr, "wrong bytes in buffer %llu (from byte %llu)\n",
			(unsigned long long)seq, (unsigned long long)transfer->bytes);
		return EDVSBADFILE;
	}
	transfer->bytes += frame->length;
	return write_buffer(file, transfer->data, frame->length);
}

int transfer_receive(int fd, struct transfer *transfer, int file)
{
	int error = 0;

	for (uint64_t seq = 0;; seq++) {
		struct frame frame = { .type = F_NEXT, .status = error, .seq = seq };
		int sent = net_send(fd, &frame, NULL);

		if (error || sent)
			return error ? error : sent;
		error = net_receive(fd, &frame, transfer->data, transfer->buffer);
		if (error)
			break;
		if (frame.type == F_END) {
			if (!frame.status && frame.seq != transfer->bytes)
				return EDVSBADFILE;
			error = frame.status;
			break;
		}
		error = data(transfer, &frame, seq, file);
	}
	/* However it ended: the announced number of bytes, or it is short. */
	if ((!error || error == EDVSDSTDIED) && transfer->bytes != transfer->announced)
		error = SHORT_TRANSFER;
	return error;
}
