/* Frees an endpoint: a remote one, or a local one whose program is gone. */
#include "dvk.h"

int main(int argc, char *argv[])
{
	int dcid, endpoint;

	if (argc != 3) {
		fprintf(stderr, "Usage: %s <dcid> <p_nr>\n", argv[0]);
		return EXIT_USAGE;
	}
	dcid = number_argument(argv[1], "dcid", 0, NR_DCS - 1);
	endpoint = number_argument(argv[2], "p_nr", -NR_TASKS, NR_PROCS - 1);
	printf(" dvk_unbind p_nr=%d to DC%d\n", endpoint, dcid);
	return dvk_exit_code(dvk_unbind(dcid, endpoint));
}
