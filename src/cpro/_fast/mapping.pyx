"""The base of tables in mapped files. Whoever inherits points into the pages, and no longer does once it has let go.

Ownership. The pages stay mapped until the last hold on them is gone, whichever object it is of; the open file, if it is
kept (for its lock, or to be synced), is ours.
"""

import os

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer


cdef extern from "<unistd.h>" nogil:
    int close_fd "close"(int)


cdef class Mapping:

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)  # of nothing: harmless
        if self.fd >= 0:
            close_fd(self.fd)

    cdef char* hold(self, pages, int fd) except NULL:
        """Their first byte. Takes the descriptor, if it is one."""
        self.fd = fd
        self.pages = pages
        PyObject_GetBuffer(pages, &self.buffer, PyBUF_WRITABLE)
        return <char*>self.buffer.buf

    cdef int let_go(self) except -1:
        """Once more is harmless."""
        PyBuffer_Release(&self.buffer)
        self.pages = None
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
        return 0
