/*
 * Endpoints. A program that ends by itself frees what it bound (dvk_unbind_mine); one that is
 * killed leaves it, and the next one on that endpoint gets 337 until test_unbind, as in the DVS.
 */
#include "dvk.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct { int pid, dcid, endpoint; } mine[NR_SLOTS];
static int nr_mine;

int dvk_check_endpoint(int dcid, int endpoint)
{
	if (dcid < 0 || dcid >= NR_DCS) {
		fprintf(stderr, "Invalid dcid [0-%d]\n", NR_DCS - 1);
		return EDVSBADDCID;
	}
	if (endpoint < -NR_TASKS || endpoint >= NR_PROCS) {
		fprintf(stderr, "Invalid endpoint [%d-%d]\n", -NR_TASKS, NR_PROCS - 1);
		return EDVSENDPOINT;
	}
	return 0;
}

/* Opens the state with a live DC in it; tells why it cannot. */
static struct dvs *open_dc(int dcid, int *error)
{
	struct dvs *dvs = dvs_open(error);

	if (!dvs) {
		fprintf(stderr, "dvk_getdvsinfo error=%d: %s: %s\n", *error, dvs_folder(),
			dvk_strerror(*error));
		return NULL;
	}
	if (!owner_alive(&dvs->dcs[dcid].init)) {
		*error = EDVSDCNOTRUN;
		fprintf(stderr, "dvk_getdcinfo error=%d: DC%d %s; start it with test_dc_init -d %d\n",
			*error, dcid, dvs->dcs[dcid].init.pid ? "has a dead init" : "is not running",
			dcid);
		dvs_close(dvs, T_NONE);
		return NULL;
	}
	return dvs;
}

static struct slot *find(struct dvs *dvs, int dcid, int endpoint)
{
	for (int i = 0; i < NR_SLOTS; i++)
		if (dvs->slots[i].used && dvs->slots[i].dcid == dcid &&
		    dvs->slots[i].endpoint == endpoint)
			return &dvs->slots[i];
	return NULL;
}

static void say_used(const struct dvs *dvs, const struct slot *slot)
{
	fprintf(stderr, "BIND ERROR ret=%d: endpoint %d of DC%d is already bound by %s, ", EDVSSLOTUSED,
		slot->endpoint, slot->dcid, slot->name);
	if (slot->node != dvs->nodeid)
		fprintf(stderr, "on node %d; ", slot->node);
	else if (owner_alive(&slot->owner))
		fprintf(stderr, "pid %d, which runs; end it, or ", slot->owner.pid);
	else
		fprintf(stderr, "pid %d, which died: stale; ", slot->owner.pid);
	fprintf(stderr, "test_unbind %d %d frees it\n", slot->dcid, slot->endpoint);
}

static int take(int dcid, int endpoint, int node, const char *name)
{
	struct slot *slot;
	struct dvs *dvs;
	int error = dvk_check_endpoint(dcid, endpoint);

	if (error)
		return error;
	dvs = open_dc(dcid, &error);
	if (!dvs)
		return error;
	slot = find(dvs, dcid, endpoint);
	if (slot) {
		say_used(dvs, slot);
		error = EDVSSLOTUSED;
	} else if (node == dvs->nodeid) {
		fprintf(stderr, "rmtbind: node %d is this node\n", node);
		error = EDVSBADNODEID;
	}
	for (int i = 0; i < NR_SLOTS && !error && !slot; i++)
		if (!dvs->slots[i].used)
			slot = &dvs->slots[i];
	if (!error && !slot) {
		fprintf(stderr, "BIND ERROR ret=%d: all %d slots are used\n", EDVSBUSY, NR_SLOTS);
		error = EDVSBUSY;
	}
	if (!error) {
		memset(slot, 0, sizeof *slot);
		slot->used = 1;
		slot->dcid = dcid;
		slot->endpoint = endpoint;
		slot->node = node < 0 ? dvs->nodeid : node;
		slot->owner.pid = -1;
		if (node < 0)
			owner_self(&slot->owner);
		snprintf(slot->name, NAMELEN, "%s", name);
	}
	dvs_close(dvs, error ? T_NONE : T_DCS);
	return error;
}

static int remember(int error, int dcid, int endpoint)
{
	if (!error && nr_mine < NR_SLOTS) {
		if (!nr_mine)
			atexit(dvk_unbind_mine);
		mine[nr_mine].pid = getpid();
		mine[nr_mine].dcid = dcid;
		mine[nr_mine++].endpoint = endpoint;
	}
	return error;
}

int dvk_bind(int dcid, int endpoint, const char *name)
{
	return remember(take(dcid, endpoint, -1, name), dcid, endpoint);
}

int dvk_rmtbind(int dcid, const char *name, int endpoint, int node)
{
	if (node < 0 || node >= NR_NODES) {
		fprintf(stderr, "Invalid nodeid [0-%d]\n", NR_NODES - 1);
		return EDVSBADNODEID;
	}
	return remember(take(dcid, endpoint, node, name), dcid, endpoint);
}

int dvk_unbind(int dcid, int endpoint)
{
	struct slot *slot;
	struct owner self;
	struct dvs *dvs;
	int error = dvk_check_endpoint(dcid, endpoint);

	if (error)
		return error;
	dvs = dvs_open(&error);
	if (!dvs) {
		fprintf(stderr, "dvk_getdvsinfo error=%d: %s: %s\n", error, dvs_folder(),
			dvk_strerror(error));
		return error;
	}
	owner_self(&self);
	slot = find(dvs, dcid, endpoint);
	if (!slot) {
		error = EDVSNOTBIND;
		fprintf(stderr, "UNBIND ERROR ret=%d: endpoint %d of DC%d is not bound\n", error,
			endpoint, dcid);
	} else if (slot->node == dvs->nodeid && owner_alive(&slot->owner) &&
		   slot->owner.pid != self.pid) {
		error = EDVSPROCRUN;
		fprintf(stderr, "UNBIND ERROR ret=%d: %s, pid %d, still runs on endpoint %d of DC%d; "
			"end it first\n", error, slot->name, slot->owner.pid, endpoint, dcid);
	} else {
		memset(slot, 0, sizeof *slot);
	}
	dvs_close(dvs, error ? T_NONE : T_DCS);
	return error;
}

void dvk_unbind_mine(void)
{
	while (nr_mine > 0) {
		nr_mine--;
		if (mine[nr_mine].pid == getpid())
			dvk_unbind(mine[nr_mine].dcid, mine[nr_mine].endpoint);
	}
}

/* What this process bound stays bound when it ends. */
void dvk_keep(void)
{
	nr_mine = 0;
}

int dvk_node_of(int dcid, int endpoint)
{
	struct slot *slot;
	struct dvs *dvs;
	int error = dvk_check_endpoint(dcid, endpoint), node = EDVSNOTBIND;

	if (error)
		return error;
	dvs = open_dc(dcid, &error);
	if (!dvs)
		return error;
	slot = find(dvs, dcid, endpoint);
	if (slot)
		node = slot->node;
	dvs_close(dvs, T_NONE);
	return node;
}
