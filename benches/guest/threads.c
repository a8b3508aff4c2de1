/* Operating system: two threads take turns through a mutex and a condition variable, so futexes and atomics. */
#include "bench.h"

#include <pthread.h>

enum { TURNS = 16 * 1000, UNCONTENDED = 4000 * 1000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t turn;

static void *play(void *parity)
{
	uint64_t mine = (uint64_t)(uintptr_t)parity;

	for (int i = 0; i < TURNS; i++) {
		pthread_mutex_lock(&mutex);
		while (turn % 2 != mine)
			pthread_cond_wait(&changed, &mutex);
		turn++;
		pthread_cond_signal(&changed);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

int main(void)
{
	pthread_t other;

	begin();
	require(pthread_create(&other, NULL, play, (void *)1) == 0);
	play(NULL);
	require(pthread_join(other, NULL) == 0);
	for (int i = 0; i < UNCONTENDED; i++) {
		pthread_mutex_lock(&mutex);
		turn += 3;
		pthread_mutex_unlock(&mutex);
	}
	end(turn);
	return 0;
}
