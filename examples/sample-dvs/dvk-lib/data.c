/* The bytes that are sent, how they are checked, the clock, and the figures as they are printed. */
#include "dvk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Eight bytes that depend on their block and their place in it (splitmix64). */
static uint64_t word(uint64_t block, uint64_t index)
{
	uint64_t x = (block << 32 ^ index) + 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

void pattern_fill(void *data, size_t length, uint64_t block)
{
	unsigned char *to = data;

	for (size_t at = 0; at < length; at += 8) {
		uint64_t value = word(block, at / 8);

		memcpy(to + at, &value, length - at < 8 ? length - at : 8);
	}
}

/* Position of the first byte that is not the pattern's, or -1. */
ptrdiff_t pattern_check(const void *data, size_t length, uint64_t block)
{
	const unsigned char *from = data;

	for (size_t at = 0; at < length; at += 8) {
		size_t part = length - at < 8 ? length - at : 8;
		uint64_t value = word(block, at / 8);

		if (!memcmp(from + at, &value, part))
			continue;
		for (size_t i = 0; i < part; i++)
			if (from[at + i] != ((unsigned char *)&value)[i])
				return (ptrdiff_t)(at + i);
	}
	return -1;
}

/* A sum over data, eight bytes at a step; every part but the last must be a multiple of eight. */
uint64_t data_check(uint64_t seed, const void *data, size_t length)
{
	const unsigned char *from = data;

	for (size_t at = 0; at < length; at += 8) {
		uint64_t value = 0;

		memcpy(&value, from + at, length - at < 8 ? length - at : 8);
		seed = (seed ^ value) * 0x9e3779b97f4a7c15ull;
		seed ^= seed >> 32;
	}
	return seed ^ length;
}

static double clock_of(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double now_monotonic(void)
{
	return clock_of(CLOCK_MONOTONIC);
}

double now_wall(void)
{
	return clock_of(CLOCK_REALTIME);
}

/* start is the wall clock's, total the monotonic one's: never negative, whatever ntp does. */
void figures_times(FILE *out, double start, double total)
{
	fprintf(out, "t_start=%.6f t_stop=%.6f t_total=%.6f\n", start, start + total, total);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts the seconds of all exchanges; p99 is the nearest rank. */
void figures_exchanges(double *seconds, size_t count)
{
	double median;

	if (!count)
		return;
	qsort(seconds, count, sizeof *seconds, by_value);
	median = (seconds[(count - 1) / 2] + seconds[count / 2]) / 2;
	printf("exchange_ms: n=%zu min=%.6f median=%.6f p99=%.6f max=%.6f\n", count,
	       1e3 * seconds[0], 1e3 * median, 1e3 * seconds[(count * 99 + 99) / 100 - 1],
	       1e3 * seconds[count - 1]);
}

const char *dvk_strerror(int error)
{
	switch (error) {
	case EDVSBUSY: return "busy";
	case EDVSCONNREFUSED: return "connection refused";
	case EDVSTIMEDOUT: return "timed out";
	case EDVSDSTDIED: return "the other side died";
	case EDVSBADNODEID: return "bad node";
	case EDVSBADDCID: return "bad dcid";
	case EDVSDCNOTRUN: return "the DC is not running";
	case EDVSENDPOINT: return "bad endpoint";
	case EDVSNOTBIND: return "the endpoint is not bound";
	case EDVSNONODE: return "the node is not connected, or not in the DC";
	case EDVSDVSINIT: return "the DVS is not initialised; start test_dvs_init";
	case EDVSSLOTUSED: return "the endpoint is already bound";
	case EDVSBADFILE: return "not what this program writes or expects";
	default: return strerror(error < 0 ? -error : error);
	}
}

int dvk_exit_code(int error)
{
	switch (error) {
	case 0: return EXIT_OK;
	case EDVSBADNODEID:
	case EDVSBADDCID:
	case EDVSENDPOINT: return EXIT_USAGE;
	case EDVSSLOTUSED:
	case EDVSPROCRUN:
	case EDVSNOTBIND: return EXIT_BIND;
	case EDVSCONNREFUSED:
	case EDVSTIMEDOUT:
	case EDVSNONODE:
	case EDVSDSTDIED: return EXIT_PEER;
	case EDVSDVSINIT:
	case EDVSDCNOTRUN: return EXIT_NODVS;
	default: return EXIT_FAILED;
	}
}

int number_argument(const char *text, const char *what, long min, long max)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || !*text || *end || value < min || value > max) {
		fprintf(stderr, "%s \"%s\": a number from %ld to %ld is needed\n", what, text, min, max);
		exit(EXIT_USAGE);
	}
	return (int)value;
}
