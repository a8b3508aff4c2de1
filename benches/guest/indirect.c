/* Branches: calls through a table of functions in an order without a pattern. */
#include "bench.h"

enum { CALLS = 24 * 1000 * 1000, ORDER_LEN = 1 << 12 };

typedef uint64_t function(uint64_t);

#define FUNCTION(number) \
	__attribute__((noinline)) static uint64_t f##number(uint64_t x) \
	{ \
		return (x ^ (x >> (number + 3))) * (2 * number + 3); \
	}
FUNCTION(0) FUNCTION(1) FUNCTION(2) FUNCTION(3) FUNCTION(4) FUNCTION(5) FUNCTION(6) FUNCTION(7)
FUNCTION(8) FUNCTION(9) FUNCTION(10) FUNCTION(11) FUNCTION(12) FUNCTION(13) FUNCTION(14) FUNCTION(15)

static function *const table[16] = { f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15 };
static uint8_t order[ORDER_LEN];

int main(void)
{
	uint64_t random = 0x3f84d5b5b5470917, x = 1;

	for (int i = 0; i < ORDER_LEN; i++)
		order[i] = next_random(&random) >> 60;
	begin();
	for (int i = 0; i < CALLS; i++)
		x = table[order[i % ORDER_LEN]](x);
	end(x);
	return 0;
}
