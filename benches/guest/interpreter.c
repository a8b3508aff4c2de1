/* Branches: a stack machine's interpreter, so a jump through a table, hard to predict, every few instructions. */
#include "bench.h"

enum { LIMIT = 30 * 1000 };

enum op { LOAD, STORE, PUSH, ADD, MULTIPLY, HALVE, IS_ODD, IS_LESS, JUMP, JUMP_IF_ZERO, EMIT, HALT };

enum { START, N, LENGTH, VARIABLES };

struct instruction {
	int32_t op, operand;
};

/* For each start below the limit, how many steps of the 3n+1 rule lead to one. */
static const struct instruction code[] = {
	/*  0 */ { PUSH, 1 }, { STORE, START },
	/*  2 */ { LOAD, START }, { STORE, N }, { PUSH, 0 }, { STORE, LENGTH },
	/*  6 */ { PUSH, 1 }, { LOAD, N }, { IS_LESS, 0 }, { JUMP_IF_ZERO, 27 },
	/* 10 */ { LOAD, LENGTH }, { PUSH, 1 }, { ADD, 0 }, { STORE, LENGTH },
	/* 14 */ { LOAD, N }, { IS_ODD, 0 }, { JUMP_IF_ZERO, 23 },
	/* 17 */ { LOAD, N }, { PUSH, 3 }, { MULTIPLY, 0 }, { PUSH, 1 }, { ADD, 0 }, { JUMP, 25 },
	/* 23 */ { LOAD, N }, { HALVE, 0 },
	/* 25 */ { STORE, N }, { JUMP, 6 },
	/* 27 */ { LOAD, LENGTH }, { EMIT, 0 },
	/* 29 */ { LOAD, START }, { PUSH, 1 }, { ADD, 0 }, { STORE, START },
	/* 33 */ { LOAD, START }, { PUSH, LIMIT }, { IS_LESS, 0 }, { JUMP_IF_ZERO, 38 },
	/* 37 */ { JUMP, 2 },
	/* 38 */ { HALT, 0 },
};

__attribute__((noinline))
static uint64_t run(const struct instruction *code)
{
	int64_t stack[16], variables[VARIABLES] = { 0 }, *top = stack;
	uint64_t sum = 0;

	for (const struct instruction *at = code;; at++) {
		switch ((enum op)at->op) {
		case LOAD:
			*top++ = variables[at->operand];
			break;
		case STORE:
			variables[at->operand] = *--top;
			break;
		case PUSH:
			*top++ = at->operand;
			break;
		case ADD:
			top--;
			top[-1] += top[0];
			break;
		case MULTIPLY:
			top--;
			top[-1] *= top[0];
			break;
		case HALVE:
			top[-1] >>= 1;
			break;
		case IS_ODD:
			top[-1] &= 1;
			break;
		case IS_LESS:
			top--;
			top[-1] = top[-1] < top[0];
			break;
		case JUMP:
			at = code + at->operand - 1;
			break;
		case JUMP_IF_ZERO:
			if (!*--top)
				at = code + at->operand - 1;
			break;
		case EMIT:
			sum = sum * 31 + (uint64_t)*--top;
			break;
		case HALT:
			return sum;
		}
	}
}

int main(void)
{
	uint64_t sum;

	begin();
	sum = run(code);
	end(sum);
	return 0;
}
