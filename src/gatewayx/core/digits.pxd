"""Decimal numbers into buffers: printf was 5 % of the instructions of a small request."""

cdef enum:
    # Of an unsigned 64-bit number.
    MAX_DIGITS = 20


cdef inline char* put_decimal(char* end, unsigned long long number) noexcept:
    """Write number at end, which has room for MAX_DIGITS bytes; returns what follows it."""
    cdef char[MAX_DIGITS] digits
    cdef int count = 0
    while True:
        digits[count] = <char> (c"0" + number % 10)
        count += 1
        number //= 10
        if number == 0:
            break
    while count:
        count -= 1
        end[0] = digits[count]
        end += 1
    return end
