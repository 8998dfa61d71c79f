/* Says on which node an endpoint is; programs of this node then reach it there. */
#include "dvk.h"

#include <string.h>

int main(int argc, char *argv[])
{
	int dcid, endpoint, node, error;

	if (argc != 5) {
		fprintf(stderr, "Usage: %s <dcid> <p_nr> <nodeid> <name> \n", argv[0]);
		return EXIT_USAGE;
	}
	dcid = number_argument(argv[1], "dcid", 0, NR_DCS - 1);
	endpoint = number_argument(argv[2], "p_nr", -NR_TASKS, NR_PROCS - 1);
	node = number_argument(argv[3], "nodeid", 0, NR_NODES - 1);
	if (!*argv[4] || strlen(argv[4]) >= NAMELEN || strpbrk(argv[4], " \n")) {
		fprintf(stderr, "name: 1 to %d characters without spaces\n", NAMELEN - 1);
		return EXIT_USAGE;
	}
	printf(" dvk_rmtbind %s with p_nr=%d to DC%d on node=%d\n", argv[4], endpoint, dcid, node);
	error = dvk_rmtbind(dcid, argv[4], endpoint, node);
	dvk_keep();
	return dvk_exit_code(error);
}
