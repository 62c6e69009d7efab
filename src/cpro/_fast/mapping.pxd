"""What every mapped file has: its pages, held for as long as it is in use."""

from cpython.buffer cimport Py_buffer


cdef class Mapping:
    cdef object pages               # mmap; unmapped when its last buffer is released
    cdef Py_buffer buffer           # our hold on them
    cdef int fd                     # -1: the mapping needs no open file

    cdef char* hold(self, pages, int fd) except NULL
    cdef int let_go(self) except -1
