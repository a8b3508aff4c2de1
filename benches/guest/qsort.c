/* Integer: the C library's sort of a million words through a comparison function. */
#include "bench.h"

enum { COUNT = 1 << 19, ROUNDS = 2 };

static uint64_t words[COUNT];

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

int main(void)
{
	uint64_t random = 0x452821e638d01377, sum = 0;

	for (int i = 0; i < COUNT; i++)
		words[i] = next_random(&random);
	begin();
	for (int round = 0; round < ROUNDS; round++) {
		qsort(words, COUNT, sizeof words[0], compare);
		for (int i = 0; i < COUNT; i += 1024)
			sum = sum * 31 + words[i];
		for (int i = 0; i < COUNT; i++)
			words[i] = next_random(&random) ^ words[i] << 7;
	}
	end(sum);
	return 0;
}
