/* Initialises the DVS on this node: makes the state folder, the stand-in for /proc/dvs. */
#include "dvk.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Noreturn void usage(const char *program)
{
	fprintf(stderr, "usage: %s [-u] -n nodeid [-D dbglvl] [-C dvs_name]\n"
		"       %s -e     ends the DVS: removes its state folder\n", program, program);
	exit(EXIT_USAGE);
}

static int report(int error, const char *what)
{
	if (error)
		fprintf(stderr, "%s error=%d: %s: %s\n", what, error, dvs_folder(),
			dvk_strerror(error));
	return dvk_exit_code(error);
}

int main(int argc, char *argv[])
{
	const char *name = "DEFAULT";
	int option, nodeid = -1, flags = 0, error;
	unsigned long debug = 0;
	char *end;

	while ((option = getopt(argc, argv, "un:D:C:e")) != -1)
		switch (option) {
		case 'u':
			flags = 4;
			break;
		case 'n':
			nodeid = number_argument(optarg, "nodeid", 0, NR_NODES - 1);
			break;
		case 'D':
			debug = strtoul(optarg, &end, 0);
			if (*end || !*optarg || debug > 0xffffffff) {
				fprintf(stderr, "dbglvl \"%s\": a number up to 32 bits is needed\n", optarg);
				return EXIT_USAGE;
			}
			break;
		case 'C':
			name = optarg;
			if (strlen(name) >= NAMELEN || strpbrk(name, "\n=")) {
				fprintf(stderr, "DVS cluster name: at most %d characters, no =\n", NAMELEN - 1);
				return EXIT_USAGE;
			}
			break;
		case 'e':
			return report(dvs_end(), "dvk_dvs_end");
		default:
			usage(argv[0]);
		}
	if (argv[optind] || nodeid < 0)
		usage(argv[0]);
	printf("Initializing DVS. Local node ID %d... \n", nodeid);
	error = dvs_init(nodeid, name, (uint32_t)debug, flags);
	if (!error)
		printf("d_name=%s d_nr_dcs=%d d_nr_nodes=%d d_nr_procs=%d d_nr_tasks=%d d_nr_sysprocs=%d \n"
		       "d_dbglvl=%lX version=%d flags=%X state=%s\n", name, NR_DCS, NR_NODES, NR_PROCS,
		       NR_TASKS, NR_SYSPROCS, debug, DVS_VERSION, flags | dvs_library_flag(),
		       dvs_folder());
	return report(error, "dvk_dvs_init");
}
