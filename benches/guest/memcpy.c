/* Memory: copies of 8 MiB by the C library, larger than a host's second-level cache and the soft MMU's reach. */
#include "bench.h"

enum { ROUNDS = 100, BYTES = 8 << 20 };

static uint8_t source[BYTES], copy[BYTES];

int main(void)
{
	uint64_t random = 0x243f6a8885a308d3, sum = 0;

	for (size_t i = 0; i < BYTES; i++)
		source[i] = (uint8_t)next_random(&random);
	memcpy(copy, source, BYTES); /* every page is there before the clock starts */
	begin();
	for (int i = 0; i < ROUNDS; i++) {
		source[i * 4099] ^= (uint8_t)i;
		memcpy(copy, source, BYTES);
		sum = sum * 31 + copy[i * 4099];
	}
	end(sum);
	return 0;
}
