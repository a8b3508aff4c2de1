/* Branches: recursive Fibonacci numbers, so calls, returns and stack traffic. */
#include "bench.h"

/* One compiler inlines more of the recursion than the next; the calls are the point. */
__attribute__((noinline, noclone, optimize("no-optimize-sibling-calls")))
static uint64_t fib(unsigned n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

int main(int argc, char **argv)
{
	uint64_t sum = 0;

	(void)argv;
	begin();
	for (unsigned i = 0; i < 3; i++)
		sum = sum * 31 + fib(33 + i + (unsigned)argc - 1);
	end(sum);
	return 0;
}
