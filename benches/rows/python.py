"""What the python row runs: permutations, n queens, strings and dictionaries, classes, generators; no modules."""


def flips(size):
    """The most flips of any permutation, as in the fannkuch benchmark, and a checksum."""
    order, count, most, checksum, sign = list(range(size)), list(range(size)), 0, 0, 1
    while True:
        if order[0]:
            stack, steps = order[:], 0
            while stack[0]:
                top = stack[0] + 1
                stack[:top] = stack[:top][::-1]
                steps += 1
            most = max(most, steps)
            checksum += sign * steps
        if sign > 0:
            order[0], order[1] = order[1], order[0]
        else:
            order[1], order[2] = order[2], order[1]
            for place in range(2, size):
                if count[place]:
                    count[place] -= 1
                    break
                count[place] = place
                if place == size - 1:
                    return most, checksum
                order.insert(place + 1, order.pop(0))
        sign = -sign


def queens(size, row=0, columns=0, left=0, right=0):
    """How many ways there are to place queens."""
    if row == size:
        return 1
    free, ways = ~(columns | left | right) & ((1 << size) - 1), 0
    while free:
        place = free & -free
        free ^= place
        ways += queens(size, row + 1, columns | place, (left | place) << 1, (right | place) >> 1)
    return ways


def words(count):
    """Words counted in a dictionary."""
    seen, number = {}, 12345
    for _ in range(count):
        number = (number * 1103515245 + 12345) & 0x7FFFFFFF
        word = "w%x" % (number >> 20)
        seen[word] = seen.get(word, 0) + 1
    common = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
    return len(seen), ",".join(word for word, _ in common[:3])


class Vector:
    """Two floating-point numbers with operators."""

    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)

    def __mul__(self, factor):
        return Vector(self.x * factor, self.y * factor)


def vectors(steps):
    """A body on a spring."""
    place, speed = Vector(1.0, 0.0), Vector(0.0, 1.0)
    for _ in range(steps):
        speed = speed + place * -0.01
        place = place + speed * 0.01
    return "%.9f %.9f" % (place.x, place.y)


def generated(limit):
    """Squares through a generator and a comprehension."""
    squares = (number * number for number in range(limit) if number % 3)
    return sum(square % 7 for square in squares)


print(flips(7), queens(6), words(8000), vectors(6000), generated(20000))
