/* Operating system: context switches around a ring of eight processes, each with a working set of 16 pages. */
#include "ring.h"

enum { PAGES = 16, PAGE_BYTES = 4096 };

static uint8_t pages[PAGES][PAGE_BYTES];

static void touch(uint8_t byte)
{
	for (int i = 0; i < PAGES; i++)
		pages[i][(byte * 64) % PAGE_BYTES] += byte;
}

int main(void)
{
	memset(pages, 1, sizeof pages);
	ring(8, 3 * 1000, touch);
	return 0;
}
