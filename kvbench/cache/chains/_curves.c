/* What a whole trace comes to for many sizes at once, and at best: stack distances, and Belady's optimum.
 *
 * distances.py and optimum.py document the functions and check what they are given; _curves_python.py does the same
 * without a compiler. The arrays are looked at here once more, so that nothing is read out of bounds, and then read
 * without the GIL.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_table.h"

/* ---- keys become numbers ----------------------------------------------------------------------------------------- */

/* Different keys, from number 1 on, each with a time: that of a reference, from 1 on. */
typedef struct {
    uint64_t *keys;
    uint32_t *times;
    uint64_t key_room, time_room;
    table_t table;
} references_t;

static void free_references(references_t *references)
{
    free(references->keys);
    free(references->times);
    free(references->table.slots);
}

static inline uint32_t number_of(const references_t *references, uint64_t key)
{
    keys_t keys = {.base = (const char *)references->keys, .stride = sizeof(uint64_t)};
    slot_t *slot = find_slot(&references->table, keys, key, hash_of(key));
    return slot ? slot->number : NONE;
}

/* The number of a key, a new one with time 0; NONE without memory. */
static uint32_t number_for(references_t *references, uint64_t key)
{
    uint32_t number = number_of(references, key);
    if (number != NONE)
        return number;
    uint64_t next = references->table.count + 1;
    if (!reserve_slots(&references->table, next) ||
        !grow_array((void **)&references->keys, &references->key_room, next + 1, sizeof(uint64_t)) ||
        !grow_array((void **)&references->times, &references->time_room, next + 1, sizeof(uint32_t)))
        return NONE;
    references->keys[next] = key;
    references->times[next] = 0;
    add_slot(&references->table, hash_of(key), (uint32_t)next);
    return (uint32_t)next;
}

/* ---- stack distances --------------------------------------------------------------------------------------------- */

/* Fenwick's tree (Software: Practice and Experience 24, 1994): how many marks stand at times 1 to `time`. */
static uint32_t marks_until(const uint32_t *tree, uint32_t time)
{
    uint32_t sum = 0;
    for (; time; time &= time - 1)
        sum += tree[time];
    return sum;
}

static void mark(uint32_t *tree, uint64_t most, uint32_t time, uint32_t by)
{
    for (uint64_t at = time; at <= most; at += at & -at)
        tree[at] += by;
}

/* For each block of a request the most distance of it and those before it in the chain, or -1 from the first new one
 * on. 0 without memory. */
static int fill_distances(const uint64_t *keys, const int64_t *ends, int64_t requests, uint64_t count,
                          int64_t *distances)
{
    references_t references = {0};
    uint32_t *tree = calloc(count + 1, sizeof(uint32_t)), clock = 0;
    int64_t begin = 0;
    int done = tree != NULL;
    for (int64_t request = 0; done && request < requests; request++) {
        int64_t end = ends[request], most = 0, at = begin;
        for (; at < end; at++) {
            uint32_t number = number_of(&references, keys[at]);
            if (number == NONE)
                break;
            int64_t distance = (int64_t)references.table.count - marks_until(tree, references.times[number]);
            if (distance > most)
                most = distance;
            distances[at] = most;
        }
        for (; at < end; at++)
            distances[at] = -1;
        for (at = end - 1; done && at >= begin; at--) {
            uint32_t number = number_for(&references, keys[at]);
            done = number != NONE;
            if (!done)
                break;
            if (references.times[number])
                mark(tree, count, references.times[number], UINT32_MAX);
            references.times[number] = ++clock;
            mark(tree, count, clock, 1);
        }
        begin = end;
    }
    free(tree);
    free_references(&references);
    return done;
}

/* ---- the optimum ------------------------------------------------------------------------------------------------- */

enum { LEVELS = 6, WORD_BITS = 64 };

/* A set of numbers of which the greatest is found at once: a bit for each, and above it one for each word below. */
typedef struct {
    uint64_t *levels[LEVELS];
} ladder_t;

static int make_ladder(ladder_t *ladder, uint64_t most)
{
    int done = 1;
    for (int level = 0; level < LEVELS; level++) {
        most = most / WORD_BITS + 1;
        ladder->levels[level] = calloc(most, sizeof(uint64_t));
        done = done && ladder->levels[level];
    }
    return done;
}

static void free_ladder(ladder_t *ladder)
{
    for (int level = 0; level < LEVELS; level++)
        free(ladder->levels[level]);
}

static void put_on(ladder_t *ladder, uint64_t number)
{
    for (int level = 0; level < LEVELS; level++, number /= WORD_BITS)
        ladder->levels[level][number / WORD_BITS] |= UINT64_C(1) << number % WORD_BITS;
}

static void take_off(ladder_t *ladder, uint64_t number)
{
    for (int level = 0; level < LEVELS; level++, number /= WORD_BITS) {
        ladder->levels[level][number / WORD_BITS] &= ~(UINT64_C(1) << number % WORD_BITS);
        if (ladder->levels[level][number / WORD_BITS])
            return;
    }
}

static int is_on(const ladder_t *ladder, uint64_t number)
{
    return ladder->levels[0][number / WORD_BITS] >> number % WORD_BITS & 1;
}

/* Of a set that is not empty. */
static uint64_t greatest_on(const ladder_t *ladder)
{
    uint64_t number = 0;
    for (int level = LEVELS - 1; level >= 0; level--)
        number = number * WORD_BITS + (WORD_BITS - 1 - (uint64_t)__builtin_clzll(ladder->levels[level][number]));
    return number;
}

/* When each reference's key is asked for next, or 0; times are from 1 on. 0 without memory. */
static int fill_next_uses(const uint64_t *keys, uint64_t count, uint32_t *next)
{
    references_t references = {0};
    int done = 1;
    for (uint64_t at = count; done && at > 0; at--) {
        uint32_t number = number_for(&references, keys[at - 1]);
        done = number != NONE;
        if (done) {
            next[at] = references.times[number];
            references.times[number] = (uint32_t)at;
        }
    }
    free_references(&references);
    return done;
}

/* What is held is known by the time at which it is asked for next. -1 without memory. */
static int64_t count_optimum(const uint64_t *keys, uint64_t count, uint64_t capacity)
{
    ladder_t held = {{0}};
    uint32_t *next = malloc((count + 1) * sizeof(uint32_t));
    int64_t hits = -1;
    if (next && make_ladder(&held, count) && fill_next_uses(keys, count, next)) {
        uint64_t holds = 0;
        hits = 0;
        for (uint64_t at = 1; at <= count && capacity; at++) {
            if (is_on(&held, at)) {
                take_off(&held, at);
                holds--;
                hits++;
            }
            if (!next[at])
                continue;
            if (holds == capacity) {
                uint64_t last = greatest_on(&held);
                if (last <= next[at])
                    continue;
                take_off(&held, last);
                holds--;
            }
            put_on(&held, next[at]);
            holds++;
        }
    }
    free_ladder(&held);
    free(next);
    return hits;
}

/* ---- the Python functions ---------------------------------------------------------------------------------------- */

static int get_numbers(PyObject *object, Py_buffer *view, int flags)
{
    if (PyObject_GetBuffer(object, view, PyBUF_ND | flags) < 0)
        return 0;
    if (view->ndim == 1 && view->itemsize == sizeof(int64_t) && view->shape[0] < UINT32_MAX - 1)
        return 1;
    PyErr_SetString(PyExc_ValueError, "arrays have one dimension, elements of 8 bytes, and fewer than 2^32 of them");
    return 0;
}

static PyObject *prefix_distances(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    Py_buffer keys = {0}, ends = {0}, distances = {0};
    int done = 0, is_within = 1;
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "prefix_distances() takes keys, ends and distances");
        return NULL;
    }
    if (get_numbers(args[0], &keys, 0) && get_numbers(args[1], &ends, 0) &&
        get_numbers(args[2], &distances, PyBUF_WRITABLE)) {
        int64_t requests = ends.shape[0], begin = 0;
        const int64_t *end = ends.buf;
        for (int64_t request = 0; request < requests; begin = end[request++])
            is_within = is_within && end[request] >= begin && end[request] <= keys.shape[0];
        if (!is_within || distances.shape[0] != keys.shape[0]) {
            PyErr_SetString(PyExc_ValueError, "ends must not fall, and lie within keys; a distance is for each key");
        } else {
            Py_BEGIN_ALLOW_THREADS
            done = fill_distances(keys.buf, end, requests, (uint64_t)keys.shape[0], distances.buf);
            Py_END_ALLOW_THREADS
            if (!done)
                PyErr_NoMemory();
        }
    }
    PyBuffer_Release(&keys);
    PyBuffer_Release(&ends);
    PyBuffer_Release(&distances);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *optimal_hits(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    Py_buffer keys = {0};
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "optimal_hits() takes keys and a capacity");
        return NULL;
    }
    unsigned long long capacity = PyLong_AsUnsignedLongLong(args[1]);
    int64_t hits = -1;
    if (!PyErr_Occurred() && get_numbers(args[0], &keys, 0)) {
        Py_BEGIN_ALLOW_THREADS
        hits = count_optimum(keys.buf, (uint64_t)keys.shape[0], capacity);
        Py_END_ALLOW_THREADS
        if (hits < 0)
            PyErr_NoMemory();
    }
    PyBuffer_Release(&keys);
    return hits < 0 ? NULL : PyLong_FromLongLong(hits);
}

/* ---- the module -------------------------------------------------------------------------------------------------- */

#define FAST(name, function, text) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, text}

static PyMethodDef methods[] = {
    FAST("prefix_distances", prefix_distances, "Stack distances of chains."),
    FAST("optimal_hits", optimal_hits, "The most references that any policy can find."),
    {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvbench.cache.chains._curves",
    .m_doc = "Whole traces of chains: stack distances, and the optimum.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__curves(void)
{
    return PyModuleDef_Init(&definition);
}
