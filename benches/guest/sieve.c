/* The sieve of Eratosthenes: short loops, byte stores, one well predicted branch a number. */
#include "bench.h"

enum { ROUNDS = 20, LIMIT = 1 << 20 };

static uint8_t composite[LIMIT];

static unsigned count_primes(void)
{
	unsigned count = 0;

	memset(composite, 0, sizeof composite);
	for (unsigned n = 2; n < LIMIT; n++) {
		if (composite[n])
			continue;
		count++;
		for (unsigned multiple = 2 * n; multiple < LIMIT; multiple += n)
			composite[multiple] = 1;
	}
	return count;
}

int main(void)
{
	uint64_t sum = 0;

	begin();
	for (int i = 0; i < ROUNDS; i++)
		sum = sum * 31 + count_primes();
	end(sum);
	return 0;
}
