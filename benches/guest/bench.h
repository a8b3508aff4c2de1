/* What every benchmark program shares: the two marker lines on standard output that `cargo xtask bench` times.
 *
 * The host takes its own CPU time when a marker arrives, so each marker is drained to the device before the program
 * goes on: what comes after BEGIN costs nothing before it. RESULT carries a checksum of the work, which has to be the
 * same on every machine. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static void mark(const char *line)
{
	size_t len = strlen(line);

	if (write(STDOUT_FILENO, line, len) != (ssize_t)len)
		exit(1);
	tcdrain(STDOUT_FILENO);
}

static void begin(void)
{
	mark("BENCH BEGIN\n");
}

static void end(uint64_t checksum)
{
	char line[40];

	mark("BENCH END\n");
	snprintf(line, sizeof line, "BENCH RESULT %016llx\n", (unsigned long long)checksum);
	mark(line);
}

/* Ends the program, and the row with it, when the system refuses something. */
static inline void require(int condition)
{
	if (condition)
		return;
	mark("BENCH RESULT error: a system call failed\n");
	exit(1);
}

/* xorshift64: the same numbers everywhere. */
static inline uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
