/* The arrays that Python hands over: what each request of them is, or why it is none. */
#ifndef KVBENCH_ARRAYS_H
#define KVBENCH_ARRAYS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_prefetch.h"

static const char BAD_PARTS[] = "lookup and store are 0 to the number of keys of the request";
static const char BAD_TIMES[] = "the time is 0 ns or more and never falls";
static const char BAD_ENDS[] = "ends must not fall, and lie within keys";

enum { PREFETCH = -1 /* in the place of what is stored */ };

static int is_refused(const char *reason)
{
    PyErr_SetString(PyExc_ValueError, reason);
    return 0;
}

static inline int counts_of(int tier_count)
{
    return 4 * tier_count + MISS_KINDS + 1;
}

static inline int has_parts(const request_t *request)
{
    return request->lookup >= 0 && request->lookup <= request->key_count && request->store >= 0 &&
           request->store <= request->key_count;
}

/* numpy calls an integer of 8 bytes "l" or "L" here; other exporters may say "q" or "Q". */
static int get_array(PyObject *object, Py_buffer *view, const char *name, const char *kinds, int dimensions, int flags)
{
    if (PyObject_GetBuffer(object, view, PyBUF_STRIDES | PyBUF_FORMAT | flags) < 0) {
        if (flags & PyBUF_WRITABLE && PyErr_ExceptionMatches(PyExc_BufferError))
            return is_refused("counts must be writable, and of shape (requests, 4 x tiers + 4)");
        return 0;
    }
    const char *format = view->format ? view->format : "B";
    if (*format == '<' || *format == '=' || *format == '@')
        format++;
    if (view->ndim == dimensions && view->itemsize == sizeof(int64_t) && *format && strchr(kinds, *format) &&
        !format[1] && PyBuffer_IsContiguous(view, 'C') && (uintptr_t)view->buf % sizeof(int64_t) == 0)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s must be a C-contiguous %s array of %d dimension(s)", name,
                 *kinds == 'L' ? "uint64" : "int64", dimensions);
    return 0;
}

enum { KEYS, ENDS, LOOKUPS, STORES, TIMES, COUNTS, ARRAY_COUNT };

typedef struct {
    Py_buffer views[ARRAY_COUNT];
} arrays_t;

static void release_arrays(arrays_t *arrays)
{
    for (int number = 0; number < ARRAY_COUNT; number++)
        PyBuffer_Release(&arrays->views[number]);
}

static int get_arrays(arrays_t *arrays, PyObject *const *args, int tier_count)
{
    static const char *const names[] = {"keys", "ends", "lookups", "stores", "times_ns", "counts"};
    for (int number = 0; number < ARRAY_COUNT; number++) {
        int is_counts = number == COUNTS;
        if (!get_array(args[number], &arrays->views[number], names[number], number == KEYS ? "LQ" : "lq",
                       is_counts ? 2 : 1, is_counts ? PyBUF_WRITABLE : 0))
            return 0;
        if (number > KEYS && !is_counts && arrays->views[number].shape[0] != arrays->views[ENDS].shape[0]) {
            PyErr_Format(PyExc_ValueError, "%s must have one element for each request", names[number]);
            return 0;
        }
    }
    const Py_ssize_t *shape = arrays->views[COUNTS].shape;
    return (shape[0] == arrays->views[ENDS].shape[0] && shape[1] == counts_of(tier_count)) ||
           is_refused("counts must be writable, and of shape (requests, 4 x tiers + 4)");
}

static inline int64_t number_in(const arrays_t *arrays, int array, Py_ssize_t at)
{
    return __atomic_load_n((const int64_t *)arrays->views[array].buf + at, __ATOMIC_RELAXED);
}

/* Request number `at`, whose keys begin at `begin`, or why it is none. */
static const char *get_request(const arrays_t *arrays, Py_ssize_t at, int64_t begin, int64_t least_ns,
                               request_t *request)
{
    int64_t end = number_in(arrays, ENDS, at);
    if (end < begin || end > arrays->views[KEYS].shape[0])
        return BAD_ENDS;
    *request = (request_t){.keys = (const uint64_t *)arrays->views[KEYS].buf + begin,
                           .key_count = end - begin,
                           .lookup = number_in(arrays, LOOKUPS, at),
                           .store = number_in(arrays, STORES, at),
                           .now_ns = number_in(arrays, TIMES, at)};
    request->is_prefetch = !request->lookup && request->store == PREFETCH;
    if (!request->is_prefetch && !has_parts(request))
        return BAD_PARTS;
    return request->now_ns < least_ns ? BAD_TIMES : NULL;
}

static const char *check_requests(const arrays_t *arrays, int64_t least_ns)
{
    int64_t begin = 0;
    for (Py_ssize_t at = 0; at < arrays->views[ENDS].shape[0]; at++) {
        request_t request;
        const char *reason = get_request(arrays, at, begin, least_ns, &request);
        if (reason)
            return reason;
        begin += request.key_count;
        least_ns = request.now_ns;
    }
    return NULL;
}

#endif
