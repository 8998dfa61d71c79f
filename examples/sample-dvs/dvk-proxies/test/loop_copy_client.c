/* Blocks: receives them and checks every byte; number and size are the server's. */
#include "loop.h"

int main(int argc, char *argv[])
{
	struct loop loop = { .kind = KIND_COPY };

	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: %s <children> [<dcid> [<server's nodeid>]]\n", argv[0]);
		return EXIT_USAGE;
	}
	loop.children = number_argument(argv[1], "children", 1, MAXCHILDREN);
	loop_setup(&loop, argc, argv, 2, 0);
	return loop_client(&loop);
}
