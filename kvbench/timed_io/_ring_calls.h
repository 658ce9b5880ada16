/* Rings and batches on them as Python sees them. A part of _stopwatch.c, whose helpers it uses. */
#ifndef KVBENCH_RING_CALLS_H
#define KVBENCH_RING_CALLS_H

#include "_ring_batch.h"

static const char RING_NAME[] = "kvbench.timed_io.ring";

static void free_ring(PyObject *capsule)
{
    ring_t *ring = PyCapsule_GetPointer(capsule, RING_NAME);
    if (ring->fd >= 0)
        ring_close(ring);
    free(ring);
}

static PyObject *open_ring(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    int64_t depth;
    int fixed_error = 0, error = 0;
    Py_buffer memory = {0};
    if (!has_count("open_ring", nargs, 2) || !get_size(args[0], &depth, 1, "depth must be from 1 to 4096"))
        return NULL;
    if (depth > MOST_DEPTH) {
        is_refused("depth must be from 1 to 4096");
        return NULL;
    }
    if (args[1] != Py_None && PyObject_GetBuffer(args[1], &memory, PyBUF_WRITABLE) < 0)
        return NULL;
    ring_t *ring = malloc(sizeof *ring);
    PyObject *capsule = ring ? PyCapsule_New(ring, RING_NAME, free_ring) : PyErr_NoMemory();
    if (!capsule) {
        free(ring);
        PyBuffer_Release(&memory);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = ring_open(ring, (unsigned)(2 * depth), memory.buf, memory.len, &fixed_error);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&memory);
    if (is_raised(error, NULL)) {
        Py_DECREF(capsule);
        return NULL;
    }
    return Py_BuildValue("(Ni)", capsule, fixed_error);
}

static ring_t *get_ring(PyObject *capsule)
{
    ring_t *ring = PyCapsule_GetPointer(capsule, RING_NAME);
    if (ring && ring->fd < 0) {
        is_refused("the ring is closed");
        return NULL;
    }
    return ring;
}

static PyObject *close_ring(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    ring_t *ring;
    if (!has_count("close_ring", nargs, 1) || !(ring = PyCapsule_GetPointer(args[0], RING_NAME)))
        return NULL;
    if (ring->fd >= 0)
        ring_close(ring);
    Py_RETURN_NONE;
}

static PyObject *ring_workers_ns(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    ring_t *ring;
    int64_t since_ns;
    if (!has_count("ring_workers_ns", nargs, 1) || !(ring = get_ring(args[0])))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    since_ns = workers_since(&ring->workers);
    Py_END_ALLOW_THREADS
    return PyLong_FromLongLong(since_ns);
}

static int get_ring_batch(batch_call_t *held, ring_batch_t *batch, const ring_t *ring, PyObject *const *args)
{
    if (!get_file_batch(held, &batch->files, args) || !get_size(args[18], &batch->depth, 1, "depth must be positive"))
        return 0;
    if (batch->files.does == DELETE_OP)
        return is_refused("a batch on a ring reads or writes");
    if (2 * batch->depth > ring->entries)
        return is_refused("the ring was opened for less depth");
    return 1;
}

static PyObject *run_ring(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    batch_call_t held = {0};
    ring_batch_t batch = {0};
    ring_end_t end = {0};
    ring_t *ring;
    if (!has_count("run_ring", nargs, 20) || !(ring = get_ring(args[0])))
        return NULL;
    if (!get_ring_batch(&held, &batch, ring, args + 1)) {
        release_batch(&held);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    run_ring_batch(ring, &batch, &end);
    if (end.broken)
        ring_close(ring);
    Py_END_ALLOW_THREADS
    release_batch(&held);
    const row_t *split = &end.split;
    return Py_BuildValue("(LLii(LLLLLLLLL))", (long long)end.begun, (long long)end.failed, end.unprepared, end.broken,
                         (long long)split->t_start_ns, (long long)split->wall_ns, (long long)split->host_ns,
                         (long long)split->runq_ns, (long long)split->device_ns, (long long)split->copy_ns,
                         (long long)split->nbytes, (long long)end.helper_ns, (long long)end.depth);
}

#endif
