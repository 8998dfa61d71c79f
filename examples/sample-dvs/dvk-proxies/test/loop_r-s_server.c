/* Messages: receives and answers. */
#include "loop.h"

int main(int argc, char *argv[])
{
	struct loop loop = { .kind = KIND_MSG, .size = MSG_SIZE };

	if (argc < 3 || argc > 5) {
		fprintf(stderr, "usage: %s <children> <loops> [<dcid> [<client's nodeid>]]\n", argv[0]);
		return EXIT_USAGE;
	}
	loop.children = number_argument(argv[1], "children", 1, MAXCHILDREN);
	loop.loops = number_argument(argv[2], "loops", 1, MAXLOOPS);
	loop_setup(&loop, argc, argv, 3, 1);
	return loop_server(&loop);
}
