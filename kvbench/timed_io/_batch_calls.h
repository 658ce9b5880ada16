/* The calls on batches, as Python sees them: checks the arguments, holds the buffers and releases the GIL.
 *
 * A part of _stopwatch.c, whose helpers it uses; _batch.h carries the batches out.
 */
#ifndef KVBENCH_BATCH_CALLS_H
#define KVBENCH_BATCH_CALLS_H

#include "_batch.h"

static const char BAD_ENDS[] = "ends must be an int64 buffer that rises to the number of extents, one for each object";

/* Rows `first` to `first + count` lie within the buffer. */
static int get_rows(call_t *call, PyObject *rows, PyObject *first, int64_t count)
{
    if (!get_row(call, rows, first))
        return 0;
    int64_t room = ((char *)call->rows.buf + call->rows.len - call->row_at) / ROW_BYTES;
    return count <= room || is_refused("the rows of the batch lie outside rows");
}

/* Numbers of 64 bits, as bytes of a buffer. */
static int get_numbers(PyObject *object, Py_buffer *view, int64_t *count)
{
    if (PyObject_GetBuffer(object, view, PyBUF_SIMPLE) < 0)
        return 0;
    *count = view->len / 8;
    return (view->len % 8 == 0 && (uintptr_t)view->buf % 8 == 0) || is_refused("expected aligned numbers of 64 bits");
}

static int get_ends(regions_t *regions, PyObject *object, Py_buffer *view, int64_t count)
{
    int64_t given, before = 0;
    if (!get_numbers(object, view, &given))
        return 0;
    if (given != count)
        return is_refused(BAD_ENDS);
    regions->ends = view->buf;
    for (int64_t i = 0; i < count; i++) {
        if (regions->ends[i] < before)
            return is_refused(BAD_ENDS);
        before = regions->ends[i];
    }
    return before == regions->all.count || is_refused(BAD_ENDS);
}

static PyObject *told_end(const batch_end_t *end)
{
    return Py_BuildValue("(Lii)", (long long)end->begun, end->error, end->unprepared);
}

typedef struct {
    call_t call;
    Py_buffer keys, ends, src_ends, places, descriptors;
} batch_call_t;

static void release_batch(batch_call_t *held)
{
    release_call(&held->call);
    PyBuffer_Release(&held->keys);
    PyBuffer_Release(&held->ends);
    PyBuffer_Release(&held->src_ends);
    PyBuffer_Release(&held->places);
    PyBuffer_Release(&held->descriptors);
}

static int get_names(file_batch_t *batch, PyObject *const *args)
{
    if (!get_name(args[0], &batch->prefix) || !get_name(args[1], &batch->suffix) ||
        !get_integer(args[2], &batch->levels) || !get_integer(args[3], &batch->width))
        return 0;
    if (batch->levels < 0 || batch->levels > MOST_LEVELS || batch->width < 1 || batch->width > MOST_WIDTH)
        return is_refused("levels must be from 0 to 4, and width from 1 to 4");
    size_t most = batch->flags & (RENAME | FOLDERS) ? MOST_NAME_BYTES - sizeof TEMPORARY : NAME_BYTES;
    size_t folders = (size_t)(batch->levels * (batch->width + 1));
    return strlen(batch->prefix) + folders + KEY_DIGITS + strlen(batch->suffix) < most ||
           is_refused("the names of the objects are too long");
}

/* A number for each object, none of them negative; None: NULL. */
static int get_of_each(PyObject *object, Py_buffer *view, int64_t count, const int64_t **values)
{
    static const char wrong[] =
        "places and descriptors must be int64 buffers, with a number that is not negative for each object";
    int64_t given;
    if (object == Py_None)
        return 1;
    if (!get_numbers(object, view, &given))
        return 0;
    *values = view->buf;
    for (int64_t i = 0; i < given; i++)
        if ((*values)[i] < 0)
            return is_refused(wrong);
    return given == count || is_refused(wrong);
}

/* The arguments of run_files; those of a batch on a ring begin alike. */
static int get_file_batch(batch_call_t *held, file_batch_t *batch, PyObject *const *args)
{
    call_t *call = &held->call;
    if (!get_int(args[2], &batch->does) || !get_int(args[3], &batch->dirfd) || !get_int(args[13], &batch->flags) ||
        !get_names(batch, args + 4) || !get_numbers(args[8], &held->keys, &batch->count) ||
        !get_rows(call, args[0], args[1], batch->count) || !get_size(args[12], &batch->io_bytes, 1, BAD_IO_BYTES) ||
        !get_stop(call, args[14]) || !get_integer(args[15], &batch->until_ns))
        return 0;
    if (batch->does != READ_OP && batch->does != WRITE_OP && batch->does != DELETE_OP)
        return is_refused("a batch reads, writes or deletes");
    batch->keys = held->keys.buf;
    batch->rows = call->row_at;
    batch->stop = call->stop;
    if (!get_of_each(args[16], &held->places, batch->count, &batch->places) ||
        !get_of_each(args[17], &held->descriptors, batch->count, &batch->descriptors))
        return 0;
    if (batch->descriptors && !batch->places)
        return is_refused("descriptors go with places");
    if (batch->does == DELETE_OP)
        return !batch->places || is_refused("what has a place in a file is not removed by a call");
    return get_region(&batch->memory.all, args[9], &call->memory, batch->does == READ_OP, args[10], &call->extents) &&
           get_ends(&batch->memory, args[11], &held->ends, batch->count);
}

static PyObject *run_files(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    batch_call_t held = {0};
    file_batch_t batch = {0};
    batch_end_t end = {0};
    if (!has_count("run_files", nargs, 18))
        return NULL;
    if (!get_file_batch(&held, &batch, args)) {
        release_batch(&held);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    run_file_batch(&batch, &end);
    Py_END_ALLOW_THREADS
    release_batch(&held);
    return told_end(&end);
}

/* The names in a tuple, which holds them for as long as the array is used; NULL with an exception. */
static const char **get_listed(PyObject *object)
{
    if (!PyTuple_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "names must be a tuple");
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(object);
    const char **names = PyMem_Calloc((size_t)count + 1, sizeof *names);
    if (!names)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; names && i < count; i++)
        if (!get_name(PyTuple_GetItem(object, i), &names[i])) {
            PyMem_Free(names);
            names = NULL;
        }
    return names;
}

static PyObject *sync_files(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    call_t call = {0};
    outcome_t outcome = {0};
    int dirfd;
    const char **names = NULL;
    if (!has_count("sync_files", nargs, 5))
        return NULL;
    if (!get_row(&call, args[0], args[1]) || !get_int(args[2], &dirfd) || !(names = get_listed(args[3])) ||
        !get_stop(&call, args[4])) {
        PyMem_Free(names);
        release_call(&call);
        return NULL;
    }
    int64_t count = PyTuple_Size(args[3]);
    Py_BEGIN_ALLOW_THREADS
    row_t row = load_row(call.row_at);
    meter_t meter;
    outcome.error = start_meter(&meter);
    start_row(&row, meter.start_ns);
    if (!outcome.error)
        outcome.error = sync_names(dirfd, names, count, call.stop, &outcome.span_ns);
    stop_meter(&meter, &row, &outcome);
    store_row(call.row_at, &row);
    Py_END_ALLOW_THREADS
    PyMem_Free(names);
    release_call(&call);
    if (is_raised(outcome.error, NULL))
        return NULL;
    Py_RETURN_NONE;
}

/* Each object holds as many bytes on both sides: copies end where the target does. */
static int have_same_sizes(const copy_batch_t *batch)
{
    for (int64_t number = 0; number < batch->count; number++) {
        region_t to = region_of(&batch->to, number), from = region_of(&batch->from, number);
        int64_t difference = 0;
        for (int64_t i = 0; i < to.count; i++)
            difference += to.extents[i][1];
        for (int64_t i = 0; i < from.count; i++)
            difference -= from.extents[i][1];
        if (difference)
            return is_refused("both sides of an object must hold the same number of bytes");
    }
    return 1;
}

static int get_copy_batch(batch_call_t *held, copy_batch_t *batch, PyObject *const *args)
{
    call_t *call = &held->call;
    int64_t given;
    if (!get_numbers(args[4], &held->ends, &batch->count))
        return 0;
    PyBuffer_Release(&held->ends);
    if (!get_rows(call, args[0], args[1], batch->count) ||
        !get_region(&batch->to.all, args[2], &call->memory, 1, args[3], &call->extents) ||
        !get_ends(&batch->to, args[4], &held->ends, batch->count) ||
        !get_region(&batch->from.all, args[5], &call->src, 0, args[6], &call->src_extents) ||
        !get_ends(&batch->from, args[7], &held->src_ends, batch->count) ||
        !get_size(args[8], &batch->io_bytes, 1, BAD_IO_BYTES) || !get_integer(args[9], &given) ||
        !get_stop(call, args[10]) || !get_integer(args[11], &batch->until_ns) || !have_same_sizes(batch))
        return 0;
    batch->counts = given != 0;
    batch->rows = call->row_at;
    batch->stop = call->stop;
    return 1;
}

static PyObject *run_copies(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    batch_call_t held = {0};
    copy_batch_t batch = {0};
    batch_end_t end = {0};
    if (!has_count("run_copies", nargs, 12))
        return NULL;
    if (!get_copy_batch(&held, &batch, args)) {
        release_batch(&held);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    run_copy_batch(&batch, &end);
    Py_END_ALLOW_THREADS
    release_batch(&held);
    return told_end(&end);
}

static PyObject *sum_rows(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    call_t call = {0};
    int64_t count;
    if (!has_count("sum_rows", nargs, 3))
        return NULL;
    if (!get_size(args[2], &count, 0, "count must not be negative") || !get_rows(&call, args[0], args[1], count)) {
        release_call(&call);
        return NULL;
    }
    sums_t sums = add_rows(call.row_at, count);
    release_call(&call);
    return Py_BuildValue("(LLLLLLLL)", (long long)sums.start_ns, (long long)sums.end_ns, (long long)sums.wall_ns,
                         (long long)sums.host_ns, (long long)sums.runq_ns, (long long)sums.device_ns,
                         (long long)sums.copy_ns, (long long)sums.nbytes);
}

#endif
