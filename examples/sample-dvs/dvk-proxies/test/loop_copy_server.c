/* Blocks: sends blocks of maxbuf bytes, each acknowledged once its bytes were checked. */
#include "loop.h"

int main(int argc, char *argv[])
{
	struct loop loop = { .kind = KIND_COPY };

	if (argc < 4 || argc > 6) {
		fprintf(stderr, "usage: %s <children> <loops> <maxbuf> [<dcid> [<client's nodeid>]]\n",
			argv[0]);
		return EXIT_USAGE;
	}
	loop.children = number_argument(argv[1], "children", 1, MAXCHILDREN);
	loop.loops = number_argument(argv[2], "loops", 1, MAXLOOPS);
	loop.size = number_argument(argv[3], "maxbuf", 1, MAXCOPY);
	loop_setup(&loop, argc, argv, 4, 1);
	return loop_server(&loop);
}
