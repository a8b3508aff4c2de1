/* Memory: one pointer leads to the next, anywhere in 8 MiB; every step misses the soft MMU's nearest entries. */
#include "bench.h"

enum { STEPS = 5 * 1000 * 1000, CELLS = 1 << 17 };

/* One cache line each. */
struct cell {
	struct cell *next;
	uint64_t value;
	uint8_t padding[48];
};

static struct cell cells[CELLS];
static uint32_t order[CELLS];

int main(void)
{
	uint64_t random = 0x13198a2e03707344, sum = 0;
	struct cell *at = cells;

	for (uint32_t i = 0; i < CELLS; i++)
		order[i] = i;
	for (uint32_t i = CELLS - 1; i > 0; i--) {
		uint32_t other = (uint32_t)(next_random(&random) % (i + 1)), saved = order[i];

		order[i] = order[other];
		order[other] = saved;
	}
	for (uint32_t i = 0; i < CELLS; i++) {
		cells[order[i]].next = &cells[order[(i + 1) % CELLS]];
		cells[order[i]].value = i;
	}
	begin();
	for (int i = 0; i < STEPS; i++) {
		sum += at->value;
		at = at->next;
	}
	end(sum);
	return 0;
}
