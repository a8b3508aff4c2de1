/* Double precision: products of 128 x 128 matrices, the inner loop a chain of fused multiply-adds. */
#include "bench.h"

enum { ROUNDS = 60, SIZE = 128 };

static double left[SIZE][SIZE], right[SIZE][SIZE], product[SIZE][SIZE];

int main(void)
{
	uint64_t random = 0xa4093822299f31d0, sum = 0, bits;

	for (int i = 0; i < SIZE; i++) {
		for (int j = 0; j < SIZE; j++) {
			left[i][j] = (double)(int32_t)next_random(&random) / 65536.0;
			right[i][j] = (double)(int32_t)next_random(&random) / 65536.0;
		}
	}
	begin();
	for (int round = 0; round < ROUNDS; round++) {
		left[round][round] += 0.1;
		for (int i = 0; i < SIZE; i++) {
			for (int j = 0; j < SIZE; j++) {
				double cell = 0.0;

				for (int k = 0; k < SIZE; k++)
					cell += left[i][k] * right[k][j];
				product[i][j] = cell;
			}
		}
		memcpy(&bits, &product[round][SIZE - 1], sizeof bits);
		sum = sum * 31 + bits;
	}
	end(sum);
	return 0;
}
