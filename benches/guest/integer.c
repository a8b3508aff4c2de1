/* Integer code as in embedded programs: list processing, small matrices, a state machine, a CRC over all results. */
#include "bench.h"

enum { ROUNDS = 4800, NODES = 256, SIZE = 24, TEXT_LEN = 512 };

struct node {
	struct node *next;
	int16_t value;
	uint16_t index;
};

static struct node nodes[NODES];
static int16_t left[SIZE][SIZE], right[SIZE][SIZE];
static int32_t product[SIZE][SIZE];
static char text[TEXT_LEN + 1];

static uint16_t crc16(uint16_t crc, uint32_t word)
{
	for (int bit = 0; bit < 32; bit++) {
		unsigned carry = (crc ^ word) & 1;

		crc >>= 1;
		word >>= 1;
		if (carry)
			crc ^= 0xa001;
	}
	return crc;
}

/* Lists. */

static int by_value(const struct node *a, const struct node *b)
{
	return a->value - b->value;
}

static int by_index(const struct node *a, const struct node *b)
{
	return a->index - b->index;
}

static struct node *merge(struct node *a, struct node *b, int (*compare)(const struct node *, const struct node *))
{
	struct node head, *tail = &head;

	while (a && b) {
		struct node **smaller = compare(a, b) <= 0 ? &a : &b;

		tail->next = *smaller;
		tail = *smaller;
		*smaller = tail->next;
	}
	tail->next = a ? a : b;
	return head.next;
}

static struct node *sort(struct node *list, int (*compare)(const struct node *, const struct node *))
{
	struct node *slow = list, *fast, *half;

	if (!list || !list->next)
		return list;
	for (fast = list->next; fast && fast->next; fast = fast->next->next)
		slow = slow->next;
	half = slow->next;
	slow->next = NULL;
	return merge(sort(list, compare), sort(half, compare), compare);
}

static struct node *reverse(struct node *list)
{
	struct node *done = NULL;

	while (list) {
		struct node *next = list->next;

		list->next = done;
		done = list;
		list = next;
	}
	return done;
}

static uint16_t lists(uint16_t crc, uint64_t *random)
{
	struct node *list = NULL;

	for (int i = 0; i < NODES; i++) {
		nodes[i] = (struct node){ list, (int16_t)next_random(random), (uint16_t)i };
		list = &nodes[i];
	}
	list = reverse(sort(list, by_value));
	for (int wanted = 0; wanted < 16; wanted++) {
		const struct node *at = list;

		while (at && (at->value & 0xff) != wanted)
			at = at->next;
		crc = crc16(crc, at ? at->index : 0xffff);
	}
	list = sort(list, by_index);
	return crc16(crc, (uint16_t)list->next->value);
}

/* Matrices. */

static uint16_t matrices(uint16_t crc, int16_t bias)
{
	int32_t sum = 0;

	for (int i = 0; i < SIZE; i++)
		for (int j = 0; j < SIZE; j++)
			left[i][j] = (int16_t)(left[i][j] + bias);
	for (int i = 0; i < SIZE; i++) {
		for (int j = 0; j < SIZE; j++) {
			int32_t cell = 0;

			for (int k = 0; k < SIZE; k++)
				cell += left[i][k] * right[k][j];
			product[i][j] = cell;
		}
	}
	for (int i = 0; i < SIZE; i++)
		for (int j = 0; j < SIZE; j++)
			sum += ((product[i][j] >> 2) & 15) * ((product[i][j] >> 5) & 127);
	return crc16(crc, (uint32_t)sum);
}

/* A state machine that tells the numbers in a text apart. */

enum state { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, SCIENTIFIC, INVALID, STATES };

static enum state step(enum state state, char c)
{
	int digit = c >= '0' && c <= '9';

	switch (state) {
	case START:
		return digit ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : INVALID;
	case SIGN:
		return digit ? INTEGER : c == '.' ? POINT : INVALID;
	case INTEGER:
		return digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : INVALID;
	case POINT:
		return digit ? FRACTION : INVALID;
	case FRACTION:
		return digit ? FRACTION : c == 'e' ? EXPONENT : INVALID;
	case EXPONENT:
		return digit ? SCIENTIFIC : c == '+' || c == '-' ? EXPONENT_SIGN : INVALID;
	case EXPONENT_SIGN:
	case SCIENTIFIC:
		return digit ? SCIENTIFIC : INVALID;
	default:
		return INVALID;
	}
}

static uint16_t states(uint16_t crc)
{
	uint32_t ended[STATES] = { 0 }, visits[STATES] = { 0 };
	enum state state = START;

	for (const char *c = text; *c; c++) {
		if (*c == ',') {
			ended[state]++;
			state = START;
		} else {
			state = step(state, *c);
			visits[state]++;
		}
	}
	for (int i = 0; i < STATES; i++)
		crc = crc16(crc, ended[i] << 16 | visits[i]);
	return crc;
}

static void prepare(uint64_t *random)
{
	static const char letters[] = "0123456789012345678901+-..ee,,,,,x";

	for (int i = 0; i < TEXT_LEN; i++)
		text[i] = letters[next_random(random) % (sizeof letters - 1)];
	for (int i = 0; i < SIZE; i++) {
		for (int j = 0; j < SIZE; j++) {
			left[i][j] = (int16_t)next_random(random);
			right[i][j] = (int16_t)next_random(random);
		}
	}
}

int main(void)
{
	uint64_t random = 0x9e3779b97f4a7c15;
	uint16_t crc = 0xffff;

	prepare(&random);
	begin();
	for (int i = 0; i < ROUNDS; i++) {
		crc = lists(crc, &random);
		crc = matrices(crc, (int16_t)crc);
		crc = states(crc);
		text[crc % TEXT_LEN] = "0123456789+-.e,"[crc % 15];
	}
	end(crc);
	return 0;
}
