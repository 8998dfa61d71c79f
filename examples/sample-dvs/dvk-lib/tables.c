/* The tables, in the shape of /proc/dvs as the procedure's captures show it. */
#include "dvk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BITS "10987654321098765432109876543210"
#define NOBODY 27342    /* what the DVS prints where no endpoint is meant */

/* Never half a file: written beside, then renamed. Callers hold the state's lock. */
int write_beside(const char *path, const char *text, size_t length)
{
	char beside[560];
	int fd, error = 0;

	snprintf(beside, sizeof beside, "%s.new", path);
	fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < length && !error;) {
		ssize_t got = write(fd, text + done, length - done);

		if (got > 0)
			done += (size_t)got;
		else if (errno != EINTR)
			error = got ? -errno : -EIO;
	}
	if (close(fd) && !error)
		error = -errno;
	if (!error && rename(beside, path))
		error = -errno;
	if (error)
		unlink(beside);
	return error;
}

bool row_exists(const struct node *node)
{
	return node->flags != 0;
}

static void bits(char *out, uint32_t map)
{
	for (int i = 0; i < 32; i++)
		out[i] = map >> (31 - i) & 1 ? 'X' : '-';
	out[32] = 0;
}

static void info(FILE *out, const struct dvs *dvs)
{
	fprintf(out, "name=%s\nnodeid=%d\nnr_dcs=%d\nnr_nodes=%d\n", dvs->name, dvs->nodeid, NR_DCS,
		NR_NODES);
	fprintf(out, "max_nr_procs=%d\nmax_nr_tasks=%d\nmax_sys_procs=%d\n", NR_PROCS, NR_TASKS,
		NR_SYSPROCS);
	fprintf(out, "max_copy_buf=%d\nmax_copy_len=%d\n", MAXCOPY, MAXCOPY);
	fprintf(out, "dbglvl=%X\nversion=%d\nflags=%X\n", dvs->debug, DVS_VERSION, dvs->flags);
	fprintf(out, "sizeof(proc)=%zu\nsizeof(node)=%zu\n", sizeof(struct slot),
		sizeof(struct node));
}

static void nodes(FILE *out, const struct dvs *dvs)
{
	char map[33];

	fprintf(out, "ID Flags Proxies -pxsent- -pxrcvd- " BITS " Name\n");
	for (int id = 0; id < NR_NODES; id++) {
		const struct node *node = &dvs->nodes[id];

		if (!row_exists(node))
			continue;
		bits(map, node->dcs);
		fprintf(out, "%2d %5X %7d %8llu %8llu %s %-16.16s\n", id, node->flags, node->proxy,
			(unsigned long long)node->sent, (unsigned long long)node->received, map,
			node->name);
	}
}

static void proxies(FILE *out, const struct dvs *dvs)
{
	char map[33];

	fprintf(out, "Proxies Flags Sender Receiver --Proxies_Name- " BITS " \n");
	for (int id = 0; id < NR_NODES; id++) {
		const struct proxy *proxy = &dvs->proxies[id];

		if (!proxy->flags)
			continue;
		bits(map, 1u << id);
		fprintf(out, "%7d %5X %6d %8d %15s %s\n", id, proxy->flags, proxy->sender,
			proxy->receiver, proxy->name, map);
	}
}

static void dc_info(FILE *out, const struct dvs *dvs, int dcid)
{
	const struct dc *dc = &dvs->dcs[dcid];
	uint32_t map = 0;
	char text[33];

	for (int id = 0; id < NR_NODES; id++)
		if (row_exists(&dvs->nodes[id]) && dvs->nodes[id].dcs >> dcid & 1)
			map |= 1u << id;
	bits(text, map);
	fprintf(out, "dcid=%d\nflags=0\nnr_procs=%d\nnr_tasks=%d\nnr_sysprocs=%d\nnr_nodes=%d\n",
		dcid, NR_PROCS, NR_TASKS, NR_SYSPROCS, NR_NODES);
	fprintf(out, "dc_nodes=%X\ndc_pid=%d\nwarn2proc=%d\nwarnmsg=1\ndc_name=%s\n", map,
		dc->init.pid, NOBODY, dc->name);
	fprintf(out, "nodes 33222222222211111111110000000000\n      %s\n      %s\n", BITS, text);
}

static void dc_procs(FILE *out, const struct dvs *dvs, int dcid)
{
	fprintf(out, "DC pnr -endp -lpid/vpid- nd flag misc -getf -sndt -wmig -prxy name\n");
	for (int i = 0; i < NR_SLOTS; i++) {
		const struct slot *slot = &dvs->slots[i];
		bool here = slot->node == dvs->nodeid;

		if (!slot->used || slot->dcid != dcid)
			continue;
		fprintf(out, "%2d %3d %5d %5d/%-5d %2d %4X %4X %5d %5d %5d %5d %-15.15s\n", dcid,
			slot->endpoint, slot->endpoint, here ? slot->owner.pid : -1,
			here ? slot->owner.inner : -1, slot->node, here ? 0 : 0x1000,
			here ? 0x20 : 0, NOBODY, NOBODY, NOBODY, NOBODY, slot->name);
	}
}

static void put(const char *name, char *text, size_t length)
{
	char path[560];
	int error;

	snprintf(path, sizeof path, "%s/%s", dvs_folder(), name);
	error = write_beside(path, text, length);
	if (error)
		fprintf(stderr, "%s: %s\n", path, strerror(-error));
	free(text);
}

static void write_table(const char *name, void (*print)(FILE *, const struct dvs *),
			const struct dvs *dvs)
{
	char *text;
	size_t length;
	FILE *stream = open_memstream(&text, &length);

	if (!stream)
		return;
	print(stream, dvs);
	fclose(stream);         /* text and length are set now */
	put(name, text, length);
}

static void write_dc(const char *file, void (*print)(FILE *, const struct dvs *, int),
		     const struct dvs *dvs, int dcid)
{
	char *text, name[32];
	size_t length;
	FILE *stream = open_memstream(&text, &length);

	if (!stream)
		return;
	print(stream, dvs, dcid);
	snprintf(name, sizeof name, "DC%d/%s", dcid, file);
	fclose(stream);         /* text and length are set now */
	put(name, text, length);
}

void tables_write(const struct dvs *dvs, int tables)
{
	char path[560];

	if (tables & T_INFO)
		write_table("info", info, dvs);
	if (tables & T_NODES)
		write_table("nodes", nodes, dvs);
	if (tables & T_PROXIES)
		write_table("proxies/info", proxies, dvs);
	for (int dcid = 0; dcid < NR_DCS && tables & T_DCS; dcid++) {
		snprintf(path, sizeof path, "%s/DC%d", dvs_folder(), dcid);
		if (dvs->dcs[dcid].init.pid) {
			mkdir(path, 0755);
			write_dc("info", dc_info, dvs, dcid);
			write_dc("procs", dc_procs, dvs, dcid);
		} else if (!access(path, F_OK)) {
			char file[600];

			snprintf(file, sizeof file, "%s/info", path);
			unlink(file);
			snprintf(file, sizeof file, "%s/procs", path);
			unlink(file);
			rmdir(path);
		}
	}
}
