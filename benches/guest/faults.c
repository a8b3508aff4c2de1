/* Operating system: anonymous memory mapped, touched page by page, unmapped; so page faults and flushes of the TLB. */
#include "bench.h"

#include <sys/mman.h>

enum { ROUNDS = 20, PAGES = 2048, PAGE_BYTES = 4096 };

int main(void)
{
	uint64_t sum = 0;

	begin();
	for (int round = 0; round < ROUNDS; round++) {
		uint8_t *pages = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		require(pages != MAP_FAILED);
		/* Single pages are the point. */
		madvise(pages, PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
		for (int i = 0; i < PAGES; i++) {
			pages[i * PAGE_BYTES] = (uint8_t)i;
			sum += pages[i * PAGE_BYTES + 1] + pages[i * PAGE_BYTES];
		}
		require(munmap(pages, PAGES * PAGE_BYTES) == 0);
	}
	end(sum);
	return 0;
}
