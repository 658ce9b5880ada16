/* The steps of a request as Python lists: one after the other, or the keys of each kind of step.
 *
 * A part of _core.c, which decides nothing either; the steps are those of the request that was decided last.
 */
#ifndef KVBENCH_CHAINS_KINDS_H
#define KVBENCH_CHAINS_KINDS_H

enum { MOST_KINDS = 256 };

typedef struct {
    step_t like; /* any step of the kind: its key says nothing */
    uint64_t count;
    PyObject *keys;
    Py_ssize_t filled;
} kind_t;

static PyObject *list_of_steps(const cache_t *cache)
{
    PyObject *list = PyList_New((Py_ssize_t)cache->step_count);
    for (uint64_t at = 0; list && at < cache->step_count; at++) {
        const step_t *step = &cache->steps[at];
        PyObject *tuple = Py_BuildValue("(iKii)", step->op, (unsigned long long)step->key, step->source, step->target);
        if (!tuple || PyList_SetItem(list, (Py_ssize_t)at, tuple) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static int is_of_kind(const step_t *step, const step_t *like)
{
    return step->op == like->op && step->source == like->source && step->target == like->target;
}

/* The kind of a step: mostly that of the step before, whose number is `last`. There are few. */
static int kind_of(kind_t *kinds, int *count, const step_t *step, int last)
{
    if (*count && is_of_kind(step, &kinds[last].like))
        return last;
    for (int kind = 0; kind < *count; kind++)
        if (is_of_kind(step, &kinds[kind].like))
            return kind;
    if (*count == MOST_KINDS)
        return -1;
    kinds[*count] = (kind_t){.like = *step};
    return (*count)++;
}

static int count_kinds(const cache_t *cache, kind_t *kinds)
{
    int count = 0, last = 0;
    for (uint64_t at = 0; at < cache->step_count; at++) {
        last = kind_of(kinds, &count, &cache->steps[at], last);
        if (last < 0) {
            PyErr_SetString(PyExc_OverflowError, "a request does more kinds of steps than there are");
            return -1;
        }
        kinds[last].count++;
    }
    return count;
}

static int fill_kinds(const cache_t *cache, kind_t *kinds, int count)
{
    int last = 0;
    for (int kind = 0; kind < count; kind++)
        if (!(kinds[kind].keys = PyList_New((Py_ssize_t)kinds[kind].count)))
            return 0;
    for (uint64_t at = 0; at < cache->step_count; at++) {
        last = kind_of(kinds, &count, &cache->steps[at], last);
        PyObject *key = PyLong_FromUnsignedLongLong(cache->steps[at].key);
        if (!key || PyList_SetItem(kinds[last].keys, kinds[last].filled++, key) < 0)
            return 0;
    }
    return 1;
}

/* [(op, source, target, keys)], in the order in which the kinds come up, and the keys in that of the steps. */
static PyObject *list_of_kinds(const cache_t *cache)
{
    kind_t kinds[MOST_KINDS];
    int count = count_kinds(cache, kinds);
    PyObject *list = count < 0 || !fill_kinds(cache, kinds, count) ? NULL : PyList_New(count);
    for (int kind = 0; list && kind < count; kind++) {
        const step_t *like = &kinds[kind].like;
        PyObject *tuple = Py_BuildValue("(iiiO)", like->op, like->source, like->target, kinds[kind].keys);
        if (!tuple || PyList_SetItem(list, kind, tuple) < 0)
            Py_CLEAR(list);
    }
    for (int kind = 0; kind < count; kind++)
        Py_XDECREF(kinds[kind].keys);
    return list;
}

#endif
