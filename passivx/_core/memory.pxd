# Buffers that grow while a kernel runs, header only.
from libc.stdlib cimport realloc


cdef inline void* with_room(
    void* items, Py_ssize_t n, Py_ssize_t* room, size_t size
) noexcept nogil:
    # The buffer with room for one more item of that size after its n, moved if need be; NULL, and
    # the old one as it was, when there is no memory. Growth is geometric.
    cdef Py_ssize_t more
    cdef void* grown
    if n < room[0]:
        return items
    more = 2 * room[0] if room[0] else 1024
    grown = realloc(items, more * size)
    if grown is not NULL:
        room[0] = more
    return grown
