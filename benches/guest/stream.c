/* Memory: copy, scale, add and triad over arrays of 4 MiB, eight bytes at a time. Integers, so that the row measures
 * memory and not the floating-point unit. */
#include "bench.h"

enum { WORDS = 1 << 19, ROUNDS = 16 };

static uint64_t a[WORDS], b[WORDS], c[WORDS];

__attribute__((noinline))
static void round_of_four(uint64_t scale)
{
	for (int i = 0; i < WORDS; i++)
		c[i] = a[i];
	for (int i = 0; i < WORDS; i++)
		b[i] = scale * c[i];
	for (int i = 0; i < WORDS; i++)
		c[i] = a[i] + b[i];
	for (int i = 0; i < WORDS; i++)
		a[i] = b[i] + scale * c[i];
}

int main(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < WORDS; i++)
		a[i] = b[i] = c[i] = (uint64_t)i;
	begin();
	for (uint64_t round = 0; round < ROUNDS; round++) {
		round_of_four(2 * round + 3);
		sum = sum * 31 + a[round * 17];
	}
	end(sum);
	return 0;
}
