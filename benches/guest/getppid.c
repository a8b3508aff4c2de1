/* Operating system: the shortest system call, so traps into the kernel and back. */
#include "bench.h"

#include <sys/syscall.h>

enum { CALLS = 1500 * 1000 };

int main(void)
{
	uint64_t sum = 0;

	begin();
	for (int i = 0; i < CALLS; i++)
		sum += (uint64_t)syscall(SYS_getppid);
	/* The parent's number is not the same on every machine, only on every call. */
	end(sum % CALLS == 0);
	return 0;
}
