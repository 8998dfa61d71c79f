/* Messages: sends and waits for the answer, which is what is measured. */
#include "loop.h"

int main(int argc, char *argv[])
{
	struct loop loop = { .kind = KIND_MSG, .size = MSG_SIZE };

	if (argc < 3 || argc > 5) {
		fprintf(stderr, "usage: %s <children> <loops> [<dcid> [<server's nodeid>]]\n", argv[0]);
		return EXIT_USAGE;
	}
	loop.children = number_argument(argv[1], "children", 1, MAXCHILDREN);
	loop.loops = number_argument(argv[2], "loops", 1, MAXLOOPS);
	loop_setup(&loop, argc, argv, 3, 0);
	return loop_client(&loop);
}
