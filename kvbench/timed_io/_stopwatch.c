/* The stopwatch: one call moves the bytes of one operation and fills one row of the records.
 *
 * Every timestamp is taken with the GIL released, right around the system calls: a timestamp taken in Python includes
 * the wait to get the GIL back. The functions and their meaning are documented in _stopwatch.pyi; _python.py does the
 * same without a compiler. This file is the part that speaks Python: it checks the arguments, holds the buffers,
 * releases the GIL and raises; _operations.h moves the bytes and _meter.h takes the time. It decides nothing: what to
 * read, where to, and what a row means beyond its stopwatch part is the caller's.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_operations.h"

/* ---- the arguments ----------------------------------------------------------------------------------------------- */

/* The buffers that one call holds; all released by release_call, taken or not. */
typedef struct {
    Py_buffer rows, memory, extents, src, src_extents, stop_buffer;
    char *row_at;
    const int32_t *stop;
} call_t;

static void release_call(call_t *call)
{
    PyBuffer_Release(&call->rows);
    PyBuffer_Release(&call->memory);
    PyBuffer_Release(&call->extents);
    PyBuffer_Release(&call->src);
    PyBuffer_Release(&call->src_extents);
    PyBuffer_Release(&call->stop_buffer);
}

static int has_count(const char *function, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return 1;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", function, wanted, given);
    return 0;
}

static int is_refused(const char *reason)
{
    PyErr_SetString(PyExc_ValueError, reason);
    return 0;
}

static int get_integer(PyObject *object, int64_t *value)
{
    *value = PyLong_AsLongLong(object);
    return *value != -1 || !PyErr_Occurred();
}

/* Descriptors and flags: an int that does not fit raises OverflowError rather than being cut. */
static int get_int(PyObject *object, int *value)
{
    int64_t wide;
    if (!get_integer(object, &wide))
        return 0;
    *value = (int)wide;
    if (*value == wide)
        return 1;
    PyErr_SetString(PyExc_OverflowError, "a descriptor or flag is out of range");
    return 0;
}

static int get_size(PyObject *object, int64_t *value, int64_t least, const char *reason)
{
    return get_integer(object, value) && (*value >= least || is_refused(reason));
}

static int get_name(PyObject *object, const char **name)
{
    Py_ssize_t length;
    *name = PyUnicode_AsUTF8AndSize(object, &length);
    return *name && (strlen(*name) == (size_t)length || is_refused("name holds a null character"));
}

static int get_row(call_t *call, PyObject *rows, PyObject *index)
{
    int64_t row;
    if (PyObject_GetBuffer(rows, &call->rows, PyBUF_WRITABLE) < 0 || !get_integer(index, &row))
        return 0;
    if (row < 0 || row >= call->rows.len / ROW_BYTES)
        return is_refused("row lies outside rows");
    call->row_at = (char *)call->rows.buf + row * ROW_BYTES;
    return 1;
}

static int get_stop(call_t *call, PyObject *stop)
{
    if (PyObject_GetBuffer(stop, &call->stop_buffer, PyBUF_SIMPLE) < 0)
        return 0;
    call->stop = call->stop_buffer.buf;
    if (call->stop_buffer.len < (Py_ssize_t)sizeof(int32_t) || (uintptr_t)call->stop % sizeof(int32_t) != 0)
        return is_refused("stop must be an int32 buffer of one element or more");
    return 1;
}

/* numpy calls int64 "l" here; other exporters may say "q". */
static int is_extent_array(const Py_buffer *view)
{
    const char *format = view->format ? view->format : "B";
    if (*format == '<' || *format == '=' || *format == '@')
        format++;
    return view->ndim == 2 && view->shape[1] == 2 && view->itemsize == sizeof(int64_t) && strchr("lq", *format) &&
           (uintptr_t)view->buf % sizeof(int64_t) == 0;
}

/* Every extent is checked here, with the GIL held: the operations do not look again. */
static int check_extents(region_t *region, int64_t memory_bytes)
{
    for (int64_t i = 0; i < region->count; i++) {
        int64_t offset = region->extents[i][0], length = region->extents[i][1];
        if (offset < 0 || length < 0 || offset > memory_bytes || length > memory_bytes - offset)
            return is_refused("an extent lies outside memory");
        if (__builtin_add_overflow(region->nbytes, length, &region->nbytes))
            return is_refused("extents are longer than a file can be");
    }
    return 1;
}

static int get_region(region_t *region, PyObject *memory, Py_buffer *memory_view, int writable, PyObject *extents,
                      Py_buffer *extents_view)
{
    if (PyObject_GetBuffer(memory, memory_view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0 ||
        PyObject_GetBuffer(extents, extents_view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0)
        return 0;
    if (!is_extent_array(extents_view))
        return is_refused("extents must be a C-contiguous int64 array of shape (n, 2)");
    region->base = memory_view->buf;
    region->extents = extents_view->buf;
    region->count = extents_view->shape[0];
    return check_extents(region, memory_view->len);
}

/* The last byte of the file that the operation asks for must have an offset. */
static int fits_file(const file_op_t *op)
{
    int64_t end;
    return !__builtin_add_overflow(op->offset, op->region.nbytes, &end) ||
           is_refused("file_offset and extents reach beyond what a file can be");
}

/* With the GIL again: the error that the row already holds, under the object's name. */
static int is_raised(int error, PyObject *name)
{
    if (!error)
        return 0;
    errno = error;
    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name);
    return 1;
}

/* ---- the Python functions ---------------------------------------------------------------------------------------- */

static const char BAD_IO_BYTES[] = "io_bytes must be positive";
static const char BAD_OFFSET[] = "file_offset must not be negative";

static int get_file_op(call_t *call, file_op_t *op, PyObject *const *args, int writing)
{
    if (!get_row(call, args[0], args[1]) || !get_int(args[2], &op->dirfd) || !get_name(args[3], &op->name) ||
        !get_int(args[4], &op->fd) || !get_size(args[5], &op->offset, 0, BAD_OFFSET) ||
        !get_region(&op->region, args[6], &call->memory, !writing, args[7], &call->extents) ||
        !get_size(args[8], &op->io_bytes, 1, BAD_IO_BYTES) || !get_int(args[9], &op->flags) ||
        !get_stop(call, args[10]) || !fits_file(op))
        return 0;
    op->stop = call->stop;
    if ((op->flags & FIRST && !(op->flags & IN_PLACE)) ? op->fd != -1 : op->fd < 0)
        return is_refused("fd must be -1 with FIRST, and an open descriptor without or with IN_PLACE");
    if (op->flags & (RENAME | FOLDERS) && strlen(op->name) >= MOST_NAME_BYTES - sizeof TEMPORARY)
        return is_refused("the name is too long to be renamed or to have its folders made");
    return 1;
}

static PyObject *time_file_op(const char *function, PyObject *const *args, Py_ssize_t nargs, int writing)
{
    call_t call = {0};
    file_op_t op = {0};
    outcome_t outcome = {0};
    if (!has_count(function, nargs, 11))
        return NULL;
    if (!get_file_op(&call, &op, args, writing)) {
        release_call(&call);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    row_t row = load_row(call.row_at);
    meter_t meter;
    outcome.error = start_meter(&meter);
    if (op.flags & FIRST)
        start_row(&row, meter.start_ns);
    run_file_op(&op, writing, &outcome);
    stop_meter(&meter, &row, &outcome);
    store_row(call.row_at, &row);
    Py_END_ALLOW_THREADS
    release_call(&call);
    return is_raised(outcome.error, args[3]) ? NULL : PyLong_FromLong(op.fd);
}

static PyObject *read_file(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    return time_file_op("read_file", args, nargs, 0);
}

static PyObject *write_file(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    return time_file_op("write_file", args, nargs, 1);
}

static int get_mmap_op(call_t *call, file_op_t *op, PyObject *const *args)
{
    int64_t nbytes;
    if (!get_row(call, args[0], args[1]) || !get_int(args[2], &op->dirfd) || !get_name(args[3], &op->name) ||
        !get_size(args[4], &op->offset, 0, BAD_OFFSET) || !get_size(args[5], &nbytes, 0, "nbytes must not be negative"))
        return 0;
    if (args[6] != Py_None && !get_region(&op->region, args[6], &call->memory, 1, args[7], &call->extents))
        return 0;
    if (args[6] != Py_None && op->region.nbytes != nbytes)
        return is_refused("extents must hold nbytes");
    op->region.nbytes = nbytes;
    if (!get_int(args[8], &op->flags) || !get_stop(call, args[9]) || !fits_file(op))
        return 0;
    op->stop = call->stop;
    op->fd = -1;
    return 1;
}

static PyObject *mmap_read(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    call_t call = {0};
    file_op_t op = {0};
    outcome_t outcome = {0};
    if (!has_count("mmap_read", nargs, 10))
        return NULL;
    if (!get_mmap_op(&call, &op, args)) {
        release_call(&call);
        return NULL;
    }
    watch_for_bad_pages();
    Py_BEGIN_ALLOW_THREADS
    row_t row = load_row(call.row_at);
    meter_t meter;
    outcome.error = start_meter(&meter);
    if (op.flags & FIRST)
        start_row(&row, meter.start_ns);
    run_mmap_op(&op, &outcome);
    stop_meter(&meter, &row, &outcome);
    store_row(call.row_at, &row);
    Py_END_ALLOW_THREADS
    release_call(&call);
    if (is_raised(outcome.error, args[3]))
        return NULL;
    Py_RETURN_NONE;
}

static int get_copy(call_t *call, region_t *to, region_t *from, int64_t *io_bytes, int *flags, PyObject *const *args)
{
    if (!get_row(call, args[0], args[1]) || !get_region(to, args[2], &call->memory, 1, args[3], &call->extents) ||
        !get_region(from, args[4], &call->src, 0, args[5], &call->src_extents) ||
        !get_size(args[6], io_bytes, 1, BAD_IO_BYTES) || !get_int(args[7], flags) || !get_stop(call, args[8]))
        return 0;
    return to->nbytes == from->nbytes || is_refused("dst_extents and src_extents must hold the same number of bytes");
}

static PyObject *copy(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    call_t call = {0};
    region_t to = {0}, from = {0};
    outcome_t outcome = {.copy_ns = SAME, .span_ns = SAME};
    int64_t io_bytes;
    int flags;
    if (!has_count("copy", nargs, 9))
        return NULL;
    if (!get_copy(&call, &to, &from, &io_bytes, &flags, args)) {
        release_call(&call);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    row_t row = load_row(call.row_at);
    meter_t meter;
    outcome.error = start_meter(&meter);
    if (flags & FIRST)
        start_row(&row, meter.start_ns);
    if (!outcome.error)
        outcome.error = copy_chunks(&to, &from, io_bytes, call.stop, &outcome.nbytes);
    stop_meter(&meter, &row, &outcome);
    store_row(call.row_at, &row);
    Py_END_ALLOW_THREADS
    release_call(&call);
    if (is_raised(outcome.error, NULL))
        return NULL;
    Py_RETURN_NONE;
}

/* Those that know an object by its name alone. */
static PyObject *time_name(const char *function, PyObject *const *args, Py_ssize_t nargs,
                           int (*carry_out)(int dirfd, const char *name))
{
    call_t call = {0};
    outcome_t outcome = {.span_ns = SAME};
    const char *name;
    int dirfd;
    if (!has_count(function, nargs, 4))
        return NULL;
    if (!get_row(&call, args[0], args[1]) || !get_int(args[2], &dirfd) || !get_name(args[3], &name)) {
        release_call(&call);
        return NULL;
    }
    int found = 1;
    Py_BEGIN_ALLOW_THREADS
    row_t row = load_row(call.row_at);
    meter_t meter;
    outcome.error = start_meter(&meter);
    start_row(&row, meter.start_ns);
    if (!outcome.error)
        outcome.error = carry_out(dirfd, name);
    if (outcome.error == ENOENT && carry_out == look_for_object) {
        outcome.error = 0; /* an answer like any other */
        found = 0;
    }
    stop_meter(&meter, &row, &outcome);
    store_row(call.row_at, &row);
    Py_END_ALLOW_THREADS
    release_call(&call);
    return is_raised(outcome.error, args[3]) ? NULL : PyBool_FromLong(found);
}

static PyObject *unlink_object(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    PyObject *done = time_name("unlink", args, nargs, remove_object);
    if (!done)
        return NULL;
    Py_DECREF(done);
    Py_RETURN_NONE;
}

static PyObject *look_up(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    return time_name("look_up", args, nargs, look_for_object);
}

static PyObject *sync_filesystem(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    call_t call = {0};
    outcome_t outcome = {.span_ns = SAME};
    int fd;
    if (!has_count("sync_filesystem", nargs, 3))
        return NULL;
    if (!get_row(&call, args[0], args[1]) || !get_int(args[2], &fd)) {
        release_call(&call);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    row_t row = load_row(call.row_at);
    meter_t meter;
    outcome.error = start_meter(&meter);
    start_row(&row, meter.start_ns);
    if (!outcome.error && syncfs(fd) < 0)
        outcome.error = errno;
    stop_meter(&meter, &row, &outcome);
    store_row(call.row_at, &row);
    Py_END_ALLOW_THREADS
    release_call(&call);
    if (is_raised(outcome.error, NULL))
        return NULL;
    Py_RETURN_NONE;
}

/* Between begin and end the row itself keeps the start readings, in slots that end overwrites; so several operations
 * may be open at once, and nothing has to be allocated. */
static PyObject *begin(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    call_t call = {0};
    if (!has_count("begin", nargs, 2))
        return NULL;
    if (!get_row(&call, args[0], args[1])) {
        release_call(&call);
        return NULL;
    }
    row_t row = load_row(call.row_at);
    meter_t meter;
    int error = start_meter(&meter);
    start_row(&row, meter.start_ns);
    row.error = error;
    if (!error) {
        row.host_ns = meter.cpu_ns;
        row.runq_ns = meter.runq_ns;
        row.device_ns = meter.blocks;
        row.span_ns = meter.preemptions;
        row.minor_faults = meter.minor_faults;
        row.major_faults = meter.major_faults;
    }
    store_row(call.row_at, &row);
    release_call(&call);
    if (is_raised(error, NULL))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *end(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    call_t call = {0};
    outcome_t outcome = {0};
    if (!has_count("end", nargs, 5))
        return NULL;
    if (!get_row(&call, args[0], args[1]) || !get_integer(args[2], &outcome.span_ns) ||
        !get_integer(args[3], &outcome.copy_ns) || !get_integer(args[4], &outcome.nbytes)) {
        release_call(&call);
        return NULL;
    }
    row_t row = load_row(call.row_at);
    meter_t meter = {.start_ns = row.t_start_ns,
                     .cpu_ns = row.host_ns,
                     .runq_ns = row.runq_ns,
                     .blocks = row.device_ns,
                     .preemptions = row.span_ns,
                     .minor_faults = row.minor_faults,
                     .major_faults = row.major_faults};
    row_t filled = {.t_start_ns = row.t_start_ns, .queue_ns = row.queue_ns, .error = row.error};
    stop_meter(&meter, &filled, &outcome);
    store_row(call.row_at, &filled);
    release_call(&call);
    if (is_raised(outcome.error, NULL))
        return NULL;
    Py_RETURN_NONE;
}

#include "_batch_calls.h"
#if __has_include(<linux/io_uring.h>)
#include "_ring_calls.h"
#else
static PyObject *no_ring(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module, (void)args, (void)nargs;
    is_raised(ENOSYS, NULL);
    return NULL;
}
#define open_ring no_ring
#define close_ring no_ring
#define ring_workers_ns no_ring
#define run_ring no_ring
#endif

static PyObject *page_cache(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    const char *name;
    int dirfd, drop, fd, error, percent = 0;
    int64_t offset = 0, nbytes = 0;
    if (nargs != 5 && !has_count("page_cache", nargs, 3))
        return NULL;
    if (!get_int(args[0], &dirfd) || !get_name(args[1], &name) || (drop = PyObject_IsTrue(args[2])) < 0)
        return NULL;
    if (nargs == 5 && (!get_size(args[3], &offset, 0, BAD_OFFSET) || !get_size(args[4], &nbytes, 0, BAD_OFFSET)))
        return NULL;
    if (offset % page_bytes) {
        is_refused("offset must be a multiple of the page");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = open_object(dirfd, name, O_RDONLY, &fd);
    if (!error) {
        error = measure_residency(fd, drop, offset, nbytes, &percent);
        close(fd);
    }
    Py_END_ALLOW_THREADS
    return is_raised(error, args[1]) ? NULL : PyLong_FromLong(percent);
}

static PyObject *now_ns(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLongLong(clock_ns(CLOCK_MONOTONIC));
}

static PyObject *thread_cpu_ns(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLongLong(clock_ns(CLOCK_THREAD_CPUTIME_ID));
}

/* Beside everything that is timed. Between two looks at the clock little is done, so that hardly more is spent. */
static PyObject *spend_cpu(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    int64_t wanted_ns, begin_ns, spent_ns;
    if (!has_count("spend_cpu", nargs, 1) || !get_size(args[0], &wanted_ns, 0, "the time must not be negative"))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    begin_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    do
        spent_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin_ns;
    while (spent_ns < wanted_ns);
    Py_END_ALLOW_THREADS
    return PyLong_FromLongLong(spent_ns);
}

/* ---- the module -------------------------------------------------------------------------------------------------- */

#define FAST(name, function, text) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, text}

static PyMethodDef methods[] = {
    FAST("read_file", read_file, "Read from a file into extents of memory, timed."),
    FAST("write_file", write_file, "Write extents of memory to a file, timed."),
    FAST("mmap_read", mmap_read, "Map a file and touch its pages or copy them into extents of memory, timed."),
    FAST("copy", copy, "Copy between extents of two memories, timed."),
    FAST("unlink", unlink_object, "Remove a file, timed."),
    FAST("look_up", look_up, "Ask whether a file is there, timed."),
    FAST("sync_filesystem", sync_filesystem, "Have a filesystem write all that it holds back, timed."),
    FAST("begin", begin, "Start timing an operation that Python code carries out."),
    FAST("end", end, "Stop timing an operation that Python code carried out."),
    FAST("run_files", run_files, "Read, write or remove several files one after the other, each timed into its row."),
    FAST("run_copies", run_copies, "Copy several objects one after the other, each timed into its row."),
    FAST("open_ring", open_ring, "A ring of the kernel for the calling thread."),
    FAST("close_ring", close_ring, "Close a ring."),
    FAST("ring_workers_ns", ring_workers_ns, "Processor time of the kernel's workers of the calling thread."),
    FAST("run_ring", run_ring, "Read or write several objects that are in flight together, each timed into its row."),
    FAST("sync_files", sync_files, "Make durable what was written to several files, timed as one operation."),
    FAST("sum_rows", sum_rows, "What the rows of a batch add up to."),
    FAST("page_cache", page_cache, "Optionally drop a file from the page cache; the percentage of it that is cached."),
    FAST("spend_cpu", spend_cpu, "Keep a processor busy for so many ns of the calling thread's time."),
    {"now_ns", now_ns, METH_NOARGS, "CLOCK_MONOTONIC in ns."},
    {"thread_cpu_ns", thread_cpu_ns, METH_NOARGS, "CPU time of the calling thread in ns."},
    {NULL, NULL, 0, NULL}};

/* Once a process, however often the module is made: a key and a fork handler cannot be given back. */
static int set_up_process(void)
{
    static int done;
    int error = 0;
    if (!done) {
        page_bytes = sysconf(_SC_PAGESIZE);
        schedstat_works = probe_schedstat();
        error = pthread_key_create(&schedstat_key, close_at_thread_exit);
        if (!error)
            error = pthread_atfork(NULL, NULL, forget_after_fork);
        done = !error;
    }
    errno = error;
    return error;
}

static int fill_module(PyObject *module)
{
    if (set_up_process()) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    PyObject *works = schedstat_works ? Py_True : Py_False;
    if (PyModule_AddObjectRef(module, "SCHEDSTAT", works) < 0 || PyModule_AddIntMacro(module, FIRST) < 0 ||
        PyModule_AddIntMacro(module, LAST) < 0 || PyModule_AddIntMacro(module, DIRECT) < 0 ||
        PyModule_AddIntMacro(module, LOOK) < 0 || PyModule_AddIntMacro(module, DROP) < 0 ||
        PyModule_AddIntMacro(module, RESIDENT_OFFSET) < 0 ||
        PyModule_AddIntMacro(module, NO_SYNC) < 0 || PyModule_AddIntMacro(module, RENAME) < 0 ||
        PyModule_AddIntMacro(module, FOLDERS) < 0 || PyModule_AddIntMacro(module, IN_PLACE) < 0 ||
        PyModule_AddIntMacro(module, ASK_FIRST) < 0 ||
        PyModule_AddIntMacro(module, ROW_BYTES) < 0 || PyModule_AddIntMacro(module, STOPWATCH_BYTES) < 0)
        return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill_module}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvbench.timed_io._stopwatch",
    .m_doc = "The stopwatch of kvbench.timed_io: GIL-free, timed file and memory operations.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__stopwatch(void)
{
    return PyModuleDef_Init(&definition);
}
