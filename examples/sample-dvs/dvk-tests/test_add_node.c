/* Puts a connected node into a DC: its bit in the bitmap of its row in the nodes table. */
#include "dvk.h"

int main(int argc, char *argv[])
{
	int dcid, node, error;
	struct dvs *dvs;

	if (argc != 3) {
		fprintf(stderr, "Usage: %s <dcid> <nodeid>\n", argv[0]);
		return EXIT_USAGE;
	}
	dcid = number_argument(argv[1], "dcid", 0, NR_DCS - 1);
	node = number_argument(argv[2], "nodeid", 0, NR_NODES - 1);
	printf("Adding node %d to DC %d... \n", node, dcid);
	dvs = dvs_open(&error);
	if (dvs) {
		if (!owner_alive(&dvs->dcs[dcid].init))
			error = EDVSDCNOTRUN;
		else if (node == dvs->nodeid)
			error = EDVSBADNODEID;
		else if (dvs->nodes[node].flags != NODE_UP)
			error = EDVSNONODE;
		else
			dvs->nodes[node].dcs |= 1u << dcid;
		dvs_close(dvs, error ? T_NONE : T_NODES | T_DCS);
	}
	if (error)
		fprintf(stderr, "dvk_add_node error=%d: DC%d, node %d: %s\n", error, dcid, node,
			dvk_strerror(error));
	return dvk_exit_code(error);
}
