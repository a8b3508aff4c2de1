/* Operating system: two processes and two pipes, a byte back and forth. */
#include "ring.h"

static void nothing(uint8_t byte)
{
	(void)byte;
}

int main(void)
{
	ring(2, 12 * 1000, nothing);
	return 0;
}
