/* Double precision: five bodies under gravity, so square roots, divisions and short chains of multiply-adds. */
#include "bench.h"

#include <math.h>

enum { STEPS = 800 * 1000, BODIES = 5 };

struct body {
	double x[3], v[3], mass;
};

/* A star and four planets: astronomical units, days; the star's mass is one. */
static struct body bodies[BODIES] = {
	{ { 0.0, 0.0, 0.0 }, { 0.0, 0.0, 0.0 }, 1.0 },
	{ { 4.84, -1.16, -0.10 }, { 0.00166, 0.00770, -0.00007 }, 9.55e-4 },
	{ { 8.34, 4.12, -0.40 }, { -0.00277, 0.00500, 0.00002 }, 2.86e-4 },
	{ { 12.89, -15.11, -0.22 }, { 0.00297, 0.00238, -0.00003 }, 4.37e-5 },
	{ { 15.38, -25.92, 0.18 }, { 0.00268, 0.00163, -0.00010 }, 5.15e-5 },
};
static const double gravity = 2.959122082855911e-4, step_days = 0.5;

__attribute__((noinline))
static void step(void)
{
	for (int i = 0; i < BODIES; i++) {
		for (int j = i + 1; j < BODIES; j++) {
			struct body *a = &bodies[i], *b = &bodies[j];
			double d[3], square = 0.0, pull;

			for (int k = 0; k < 3; k++) {
				d[k] = a->x[k] - b->x[k];
				square += d[k] * d[k];
			}
			pull = gravity * step_days / (square * sqrt(square));
			for (int k = 0; k < 3; k++) {
				a->v[k] -= d[k] * b->mass * pull;
				b->v[k] += d[k] * a->mass * pull;
			}
		}
	}
	for (int i = 0; i < BODIES; i++)
		for (int k = 0; k < 3; k++)
			bodies[i].x[k] += step_days * bodies[i].v[k];
}

int main(void)
{
	uint64_t sum = 0, bits;

	begin();
	for (int i = 0; i < STEPS; i++)
		step();
	for (int i = 0; i < BODIES; i++) {
		memcpy(&bits, &bodies[i].x[0], sizeof bits);
		sum = sum * 31 + bits;
	}
	end(sum);
	return 0;
}
