/* Double precision: Gaussian elimination with partial pivoting, column by column; loads and stores between the
 * multiply-adds. */
#include "bench.h"

#include <math.h>

enum { SIZE = 200, ROUNDS = 40 };

/* matrix[column][row]. */
static double matrix[SIZE][SIZE], right[SIZE];

static void fill(uint64_t *random)
{
	for (int i = 0; i < SIZE; i++)
		right[i] = 0.0;
	for (int column = 0; column < SIZE; column++) {
		for (int row = 0; row < SIZE; row++) {
			matrix[column][row] = (double)(int32_t)next_random(random) / 2147483648.0;
			right[row] += matrix[column][row];
		}
	}
}

/* y += a * x */
__attribute__((noinline))
static void add_scaled(int count, double a, const double *x, double *y)
{
	for (int i = 0; i < count; i++)
		y[i] += a * x[i];
}

static void swap(double *a, double *b)
{
	double saved = *a;

	*a = *b;
	*b = saved;
}

/* The solution takes the place of the right-hand side. */
static void solve(void)
{
	for (int k = 0; k < SIZE; k++) {
		double *pivots = matrix[k];
		int pivot = k;

		for (int i = k + 1; i < SIZE; i++)
			if (fabs(pivots[i]) > fabs(pivots[pivot]))
				pivot = i;
		swap(&pivots[k], &pivots[pivot]);
		swap(&right[k], &right[pivot]);
		for (int i = k + 1; i < SIZE; i++)
			pivots[i] /= -pivots[k];
		for (int j = k + 1; j < SIZE; j++) {
			swap(&matrix[j][k], &matrix[j][pivot]);
			add_scaled(SIZE - k - 1, matrix[j][k], &pivots[k + 1], &matrix[j][k + 1]);
		}
		add_scaled(SIZE - k - 1, right[k], &pivots[k + 1], &right[k + 1]);
	}
	for (int k = SIZE - 1; k >= 0; k--) {
		right[k] /= matrix[k][k];
		add_scaled(k, -right[k], matrix[k], right);
	}
}

int main(void)
{
	uint64_t random = 0xbe5466cf34e90c6c, sum = 0, bits;

	begin();
	for (int round = 0; round < ROUNDS; round++) {
		fill(&random);
		solve();
		for (int i = 0; i < SIZE; i++) {
			require(fabs(right[i] - 1.0) < 1e-6);
			memcpy(&bits, &right[i], sizeof bits);
			sum = sum * 31 + bits;
		}
	}
	end(sum);
	return 0;
}
