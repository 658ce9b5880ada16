/* ChainCache: a tiered cache of equal blocks, decided a request at a time.
 *
 * _core.pyi documents it; _python.py decides the same without a compiler. This file is the part that speaks Python: it
 * checks the arguments, releases the GIL and raises; _arrays.h holds the buffers. _decide.h and _prefetch.h carry a
 * request through, _queues.h is the policies, _blocks.h, _asked.h, _ghosts.h and _table.h keep what they need. Whether settings fit together is asked of
 * _python.py, and arrays are numpy's: both are imported when they are first needed.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_arrays.h"

typedef struct {
    PyObject_HEAD
    cache_t cache; /* of no tiers until it was told its settings */
    int is_busy;   /* while a thread decides without the GIL */
} chain_cache_t;

/* ---- the settings ------------------------------------------------------------------------------------------------ */

static int get_integer(PyObject *object, int64_t *value)
{
    *value = PyLong_AsLongLong(object);
    return *value != -1 || !PyErr_Occurred();
}

static int take_integer(PyObject *object, const char *name, int64_t *value)
{
    PyObject *attribute = PyObject_GetAttrString(object, name);
    int done = attribute && get_integer(attribute, value);
    Py_XDECREF(attribute);
    return done;
}

static int take_truth(PyObject *object, const char *name, int *value)
{
    PyObject *attribute = PyObject_GetAttrString(object, name);
    *value = attribute ? PyObject_IsTrue(attribute) : -1;
    Py_XDECREF(attribute);
    return *value >= 0;
}

/* The place of an attribute's text in a tuple of texts that the module of settings has. */
static int take_choice(PyObject *object, const char *name, const char *among, int *value)
{
    PyObject *module = PyImport_ImportModule("kvbench.cache.chains.settings");
    PyObject *choices = module ? PyObject_GetAttrString(module, among) : NULL;
    PyObject *attribute = choices ? PyObject_GetAttrString(object, name) : NULL;
    Py_ssize_t place = attribute ? PySequence_Index(choices, attribute) : -1;
    Py_XDECREF(attribute);
    Py_XDECREF(choices);
    Py_XDECREF(module);
    *value = (int)place;
    return place >= 0;
}

static int check_settings(PyObject *settings)
{
    PyObject *module = PyImport_ImportModule("kvbench.cache.chains._python");
    PyObject *done = module ? PyObject_CallMethod(module, "check", "O", settings) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(done);
    return done != NULL;
}

static int take_tiers(cache_t *cache, PyObject *settings)
{
    PyObject *tiers = PyObject_GetAttrString(settings, "tiers");
    Py_ssize_t count = tiers ? PySequence_Size(tiers) : -1;
    if (count < 0) {
        Py_XDECREF(tiers);
        return 0;
    }
    int done = count >= 1 && count <= MOST_TIERS ? 1 : is_refused("too many tiers, or none");
    for (Py_ssize_t tier = 0; done && tier < count; tier++) {
        PyObject *item = PySequence_GetItem(tiers, tier);
        int64_t capacity;
        int is_modelled;
        done = item && take_integer(item, "blocks", &capacity) && take_truth(item, "modelled", &is_modelled) &&
               (capacity >= 0 || is_refused("a tier has 0 blocks or more"));
        if (done)
            set_up_tier(&cache->tiers[tier], (int)tier, cache->policy, (uint64_t)capacity, is_modelled);
        Py_XDECREF(item);
    }
    Py_DECREF(tiers);
    cache->tier_count = (int)count;
    return done;
}

static int take_settings(cache_t *cache, PyObject *settings)
{
    if (!check_settings(settings) || !take_choice(settings, "policy", "POLICIES", &cache->policy) ||
        !take_choice(settings, "admission", "ADMISSIONS", &cache->second_use) || !take_tiers(cache, settings) ||
        !take_truth(settings, "write_through", &cache->write_through) ||
        !take_truth(settings, "promote", &cache->promote) || !take_integer(settings, "ttl_ns", &cache->ttl_ns))
        return 0;
    if (cache->policy >= POLICY_COUNT)
        return is_refused("a policy that this extension does not know");
    cache->has_ttl = cache->ttl_ns < INT64_C(1) << 62;
    cache->first_real = cache->tiers[0].is_modelled;
    cache->asked.counts_uses = cache->second_use;
    lay_out_blocks(&cache->blocks, cache->tier_count, cache->has_ttl, cache->policy == LFU);
    return 1;
}

static int is_free(const chain_cache_t *self)
{
    if (self->is_busy)
        PyErr_SetString(PyExc_RuntimeError, "another thread uses this cache: one at a time may");
    else if (!self->cache.tier_count)
        PyErr_SetString(PyExc_RuntimeError, "this cache was not told its settings");
    return !PyErr_Occurred();
}

static int chain_cache_init(PyObject *object, PyObject *args, PyObject *named)
{
    static char *names[] = {"settings", NULL};
    chain_cache_t *self = (chain_cache_t *)object;
    PyObject *settings;
    if (!PyArg_ParseTupleAndKeywords(args, named, "O:ChainCache", names, &settings))
        return -1;
    if (self->cache.tier_count) {
        PyErr_SetString(PyExc_RuntimeError, "this cache was told its settings");
        return -1;
    }
    cache_t cache = {0};
    if (!take_settings(&cache, settings))
        return -1;
    self->cache = cache;
    return 0;
}

static void chain_cache_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_cache(&((chain_cache_t *)object)->cache);
    free_object(object);
    Py_DECREF(type);
}

/* ---- the methods ------------------------------------------------------------------------------------------------- */

/* Every request is looked at again when its turn comes: another thread may have changed the arrays. */
static const char *play_all(cache_t *cache, const arrays_t *arrays)
{
    int64_t *counts = arrays->views[COUNTS].buf, begin = 0;
    int columns = counts_of(cache->tier_count);
    const char *reason = NULL;
    memset(counts, 0, (size_t)arrays->views[COUNTS].len);
    for (Py_ssize_t at = 0; at < arrays->views[ENDS].shape[0] && !reason && !cache->is_out_of_memory; at++) {
        request_t request;
        reason = get_request(arrays, at, begin, cache->now_ns, &request);
        if (reason)
            break;
        cache->counts = counts + at * columns;
        if (!(request.is_prefetch ? prefetch_request(cache, &request) : serve_request(cache, &request)))
            cache->is_out_of_memory = 1;
        begin += request.key_count;
    }
    cache->counts = NULL;
    return reason;
}

static int is_out_of_memory(cache_t *cache)
{
    int lacked = cache->is_out_of_memory;
    cache->is_out_of_memory = 0;
    if (lacked)
        PyErr_NoMemory();
    return lacked;
}

static int has_count(const char *function, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return 1;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", function, wanted, given);
    return 0;
}

static PyObject *play(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    chain_cache_t *self = (chain_cache_t *)object;
    arrays_t arrays = {0};
    const char *reason = NULL;
    if (!has_count("play", nargs, ARRAY_COUNT) || !is_free(self))
        return NULL;
    /* From here on no other thread begins: to get a buffer can run Python. */
    self->is_busy = 1;
    int begun = get_arrays(&arrays, args, self->cache.tier_count);
    if (begun) {
        Py_BEGIN_ALLOW_THREADS
        reason = check_requests(&arrays, self->cache.now_ns);
        if (!reason)
            reason = play_all(&self->cache, &arrays);
        Py_END_ALLOW_THREADS
    }
    self->is_busy = 0;
    release_arrays(&arrays);
    if (!begun || is_out_of_memory(&self->cache) || (reason && !is_refused(reason)))
        return NULL;
    Py_RETURN_NONE;
}

/* An int8 array of so many bytes, for which nothing has to be copied; or NULL. */
static PyObject *as_array(PyObject *bytes)
{
    PyObject *numpy = PyImport_ImportModule("numpy");
    PyObject *array = numpy ? PyObject_CallMethod(numpy, "frombuffer", "Os", bytes, "int8") : NULL;
    Py_XDECREF(numpy);
    return array;
}

#include "_kinds.h"

/* The answer is made while the cache is busy still: to make Python objects can run Python, and that begin a request. */
static PyObject *serve_one(cache_t *cache, request_t *request, PyObject *(*told)(const cache_t *))
{
    PyObject *found = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)request->lookup);
    if (!found)
        return NULL;
    request->found_on = (int8_t *)PyByteArray_AsString(found);
    cache->keeps_steps = 1;
    if (!serve_request(cache, request))
        cache->is_out_of_memory = 1;
    cache->keeps_steps = 0;
    PyObject *answer = NULL;
    if (!is_out_of_memory(cache) && PyByteArray_Resize(found, (Py_ssize_t)request->found) == 0) {
        PyObject *array = as_array(found), *steps = array ? told(cache) : NULL;
        if (steps)
            answer = PyTuple_Pack(2, array, steps);
        Py_XDECREF(array);
        Py_XDECREF(steps);
    }
    Py_DECREF(found);
    return answer;
}

static PyObject *serve_and_tell(const char *name, PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *(*told)(const cache_t *))
{
    chain_cache_t *self = (chain_cache_t *)object;
    Py_buffer view = {0};
    request_t request = {0};
    PyObject *answer = NULL;
    if (!has_count(name, nargs, 4) || !get_integer(args[1], &request.lookup) ||
        !get_integer(args[2], &request.store) || !get_integer(args[3], &request.now_ns) || !is_free(self))
        return NULL;
    self->is_busy = 1;
    if (get_array(args[0], &view, "keys", "LQ", 1, 0)) {
        request.keys = view.buf;
        request.key_count = view.shape[0];
        if (!has_parts(&request))
            is_refused(BAD_PARTS);
        else if (request.now_ns < self->cache.now_ns)
            is_refused(BAD_TIMES);
        else
            answer = serve_one(&self->cache, &request, told);
    }
    self->is_busy = 0;
    PyBuffer_Release(&view);
    return answer;
}

static PyObject *serve(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    return serve_and_tell("serve", object, args, nargs, list_of_steps);
}

static PyObject *serve_kinds(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    return serve_and_tell("serve_kinds", object, args, nargs, list_of_kinds);
}

static PyObject *last_steps(PyObject *object, PyObject *unused)
{
    (void)unused;
    chain_cache_t *self = (chain_cache_t *)object;
    return is_free(self) ? list_of_steps(&self->cache) : NULL;
}

static PyObject *prefetch(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    chain_cache_t *self = (chain_cache_t *)object;
    cache_t *cache = &self->cache;
    Py_buffer view = {0};
    request_t request = {0};
    PyObject *steps = NULL;
    if (!has_count("prefetch", nargs, 2) || !get_integer(args[1], &request.now_ns) || !is_free(self))
        return NULL;
    self->is_busy = 1;
    if (get_array(args[0], &view, "keys", "LQ", 1, 0)) {
        request.keys = view.buf;
        request.key_count = view.shape[0];
        cache->keeps_steps = 1;
        if (request.now_ns < cache->now_ns)
            is_refused(BAD_TIMES);
        else if (!prefetch_request(cache, &request))
            cache->is_out_of_memory = 1;
        cache->keeps_steps = 0;
        if (!PyErr_Occurred() && !is_out_of_memory(cache))
            steps = list_of_steps(cache);
    }
    self->is_busy = 0;
    PyBuffer_Release(&view);
    return steps;
}

static PyObject *tiers_of(PyObject *object, PyObject *number)
{
    const chain_cache_t *self = (const chain_cache_t *)object;
    PyObject *index = PyNumber_Index(number);
    uint64_t key = index ? PyLong_AsUnsignedLongLong(index) : 0;
    Py_XDECREF(index);
    if (PyErr_Occurred() || !is_free(self))
        return NULL;
    const blocks_t *blocks = &self->cache.blocks;
    uint32_t block = find_block(blocks, key);
    PyObject *found = PyList_New(0);
    for (int tier = 0; found && block != NONE && tier < blocks->tiers; tier++) {
        if (*state_of(blocks, block, tier) == ABSENT)
            continue;
        PyObject *item = PyLong_FromLong(tier);
        if (!item || PyList_Append(found, item) < 0)
            Py_CLEAR(found);
        Py_XDECREF(item);
    }
    PyObject *answer = found ? PyList_AsTuple(found) : NULL;
    Py_XDECREF(found);
    return answer;
}

static PyObject *get_held(PyObject *object, void *unused)
{
    (void)unused;
    const chain_cache_t *self = (const chain_cache_t *)object;
    PyObject *list = is_free(self) ? PyList_New(self->cache.tier_count) : NULL;
    for (int tier = 0; list && tier < self->cache.tier_count; tier++) {
        PyObject *item = PyLong_FromUnsignedLongLong(self->cache.tiers[tier].held);
        if (!item || PyList_SetItem(list, tier, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *get_blocks(PyObject *object, void *unused)
{
    (void)unused;
    const chain_cache_t *self = (const chain_cache_t *)object;
    return is_free(self) ? PyLong_FromUnsignedLongLong(self->cache.blocks.count) : NULL;
}

static PyObject *get_missed(PyObject *object, void *unused)
{
    (void)unused;
    chain_cache_t *self = (chain_cache_t *)object;
    if (!is_free(self))
        return NULL;
    self->is_busy = 1;
    PyObject *bytes =
        PyByteArray_FromStringAndSize((const char *)self->cache.missed, (Py_ssize_t)self->cache.missed_count);
    PyObject *array = bytes ? as_array(bytes) : NULL;
    Py_XDECREF(bytes);
    self->is_busy = 0;
    return array;
}

/* ---- the module -------------------------------------------------------------------------------------------------- */

#define FAST(name, function, text) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, text}

static PyMethodDef methods[] = {
    FAST("serve", serve, "One request: the tiers of what was found, and the steps that have to be done."),
    FAST("play", play, "Many requests, and what each comes to."),
    FAST("serve_kinds", serve_kinds, "One request: the tiers of what was found, and the keys of each kind of step."),
    {"last_steps", last_steps, METH_NOARGS, "The steps of the last request, one after the other."},
    FAST("prefetch", prefetch, "Bring up what is there of a chain: the steps that have to be done."),
    {"tiers_of", tiers_of, METH_O, "The tiers that hold a key, fastest first."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef getters[] = {{"held", get_held, NULL, "Blocks on each tier.", NULL},
                                {"blocks", get_blocks, NULL, "Different blocks that any tier holds.", NULL},
                                {"missed", get_missed, NULL, "Why the last request did not find the rest.", NULL},
                                {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot type_slots[] = {{Py_tp_doc, "Decides one request after the other. One thread at a time."},
                                   {Py_tp_init, chain_cache_init},
                                   {Py_tp_dealloc, chain_cache_dealloc},
                                   {Py_tp_methods, methods},
                                   {Py_tp_getset, getters},
                                   {0, NULL}};

static PyType_Spec type_spec = {.name = "kvbench.cache.chains._core.ChainCache",
                                .basicsize = sizeof(chain_cache_t),
                                .flags = Py_TPFLAGS_DEFAULT,
                                .slots = type_slots};

static int fill_module(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&type_spec);
    int done = type ? PyModule_AddObjectRef(module, "ChainCache", type) : -1;
    Py_XDECREF(type);
    return done;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill_module}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvbench.cache.chains._core",
    .m_doc = "A tiered cache of equal blocks that are found by chains, decided without the interpreter.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
