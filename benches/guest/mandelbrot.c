/* Double precision: the Mandelbrot set, all in registers, a comparison of doubles in every step. */
#include "bench.h"

enum { WIDTH = 480, HEIGHT = 360, LIMIT = 600 };

static int steps(double re, double im)
{
	double x = 0.0, y = 0.0;
	int n = 0;

	while (n < LIMIT && x * x + y * y <= 4.0) {
		double next = x * x - y * y + re;

		y = 2.0 * x * y + im;
		x = next;
		n++;
	}
	return n;
}

int main(void)
{
	uint64_t sum = 0;

	begin();
	for (int row = 0; row < HEIGHT; row++)
		for (int column = 0; column < WIDTH; column++)
			sum = sum * 31 + (uint64_t)steps(-2.0 + 2.6 * column / WIDTH, -1.2 + 2.4 * row / HEIGHT);
	end(sum);
	return 0;
}
