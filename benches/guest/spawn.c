/* Operating system: fork, exec of this same program, exit, wait. */
#include "bench.h"

#include <sys/wait.h>

enum { CHILDREN = 300 };

int main(int argc, char **argv)
{
	char *const arguments[] = { argv[0], "child", NULL };
	uint64_t sum = 0;

	if (argc > 1)
		return 7;
	begin();
	for (int i = 0; i < CHILDREN; i++) {
		pid_t child = fork();
		int status;

		require(child >= 0);
		if (child == 0) {
			execv("/proc/self/exe", arguments);
			_exit(1);
		}
		require(waitpid(child, &status, 0) == child);
		require(WIFEXITED(status) && WEXITSTATUS(status) == 7);
		sum = sum * 31 + (uint64_t)WEXITSTATUS(status);
	}
	end(sum);
	return 0;
}
