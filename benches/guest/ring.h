/* Processes in a ring of pipes, each handing one byte to the next. */
#ifndef RING_H
#define RING_H

#include "bench.h"

#include <sys/wait.h>

enum { RING_MAX = 16 };

/* Called by each process whenever it has the byte. */
typedef void ring_work(uint8_t byte);

/* Sends the byte around `laps` times; the sum of what came back. */
static uint64_t ring(int processes, int laps, ring_work *work)
{
	int pipes[RING_MAX][2];
	uint64_t sum = 0;
	uint8_t byte = 0;

	for (int i = 0; i < processes; i++)
		require(pipe(pipes[i]) == 0);
	/* Process 0 is this one; process i reads pipe i and writes the one after it. */
	for (int i = 1; i < processes; i++) {
		pid_t child = fork();

		require(child >= 0);
		if (child)
			continue;
		for (int other = 0; other < processes; other++) {
			if (other != i)
				close(pipes[other][0]);
			if (other != (i + 1) % processes)
				close(pipes[other][1]);
		}
		while (read(pipes[i][0], &byte, 1) == 1) {
			work(byte);
			byte++;
			if (write(pipes[(i + 1) % processes][1], &byte, 1) != 1)
				break;
		}
		_exit(0);
	}
	begin();
	for (int lap = 0; lap < laps; lap++) {
		work(byte);
		require(write(pipes[1][1], &byte, 1) == 1);
		require(read(pipes[0][0], &byte, 1) == 1);
		sum = sum * 31 + byte;
	}
	end(sum);
	for (int i = 0; i < processes; i++) {
		close(pipes[i][0]);
		close(pipes[i][1]);
	}
	while (wait(NULL) > 0)
		;
	return sum;
}

#endif
