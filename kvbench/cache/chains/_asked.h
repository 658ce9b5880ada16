/* Keys that were asked for before, whether or not a tier holds them: a set that only grows.
 *
 * With second-use admission every key that was asked for is in it, with how often that was. Otherwise only those that
 * no tier holds (any more), as what a tier holds was asked for anyway: so that hits cost nothing. Nothing here touches
 * a Python object.
 */
#ifndef KVBENCH_ASKED_H
#define KVBENCH_ASKED_H

#include "_table.h"

enum { MOST_USES = 2 /* and more */ };
enum { ASKED_PARTS = 16 /* which grow one after the other, so that the memory of the old and the new is little */ };

/* Places as in a table, of the keys themselves: 0 is an empty one, and the key 0 has the place behind all others. */
typedef struct {
    uint64_t *keys; /* (size + 1) */
    uint8_t *uses;  /* (size + 1) of each, where they are counted */
    uint64_t size, count;
} asked_part_t;

typedef struct {
    asked_part_t parts[ASKED_PARTS];
    int counts_uses;
} asked_t;

static inline uint64_t asked_home(const asked_part_t *part, uint64_t key)
{
    return key ? (uint64_t)hash_of(key) * part->size >> 32 : part->size;
}

/* Where a key is, or would be. */
static inline uint64_t asked_place(const asked_part_t *part, uint64_t key)
{
    uint64_t at = asked_home(part, key);
    while (key && part->keys[at] && part->keys[at] != key)
        at = at + 1 < part->size ? at + 1 : 0;
    return at;
}

static inline const asked_part_t *asked_part(const asked_t *asked, uint64_t key)
{
    return &asked->parts[hash_of(key) % ASKED_PARTS];
}

static inline void expect_asked(const asked_t *asked, uint64_t key)
{
    const asked_part_t *part = asked_part(asked, key);
    if (part->keys)
        __builtin_prefetch(&part->keys[asked_home(part, key)]);
}

static inline int was_asked(const asked_t *asked, uint64_t key)
{
    const asked_part_t *part = asked_part(asked, key);
    return part->keys && part->keys[asked_place(part, key)];
}

static inline int is_asked_again(const asked_t *asked, uint64_t key)
{
    const asked_part_t *part = asked_part(asked, key);
    return part->uses && part->uses[asked_place(part, key)] >= MOST_USES;
}

static void free_asked_part(asked_part_t *part)
{
    free(part->keys);
    free(part->uses);
}

static void free_asked(asked_t *asked)
{
    for (int part = 0; part < ASKED_PARTS; part++)
        free_asked_part(&asked->parts[part]);
}

/* Room for one key more: at most three places of four are taken, and it grows by a quarter. 0 without memory. */
static int reserve_asked(asked_part_t *part, int counts_uses)
{
    if (part->count + 1 <= part->size - part->size / 4 && part->size)
        return 1;
    asked_part_t grown = {.size = part->size + part->size / 4 + 16, .count = part->count};
    if (grown.size > UINT32_MAX)
        return 0;
    grown.keys = new_zeros((grown.size + 1) * sizeof(uint64_t));
    grown.uses = counts_uses ? new_zeros(grown.size + 1) : NULL;
    if (!grown.keys || (counts_uses && !grown.uses)) {
        free_asked_part(&grown);
        return 0;
    }
    for (uint64_t at = 0; part->keys && at <= part->size; at++) {
        if (!part->keys[at])
            continue;
        uint64_t place = asked_place(&grown, at < part->size ? part->keys[at] : 0);
        grown.keys[place] = part->keys[at];
        if (grown.uses)
            grown.uses[place] = part->uses[at];
    }
    free_asked_part(part);
    *part = grown;
    return 1;
}

/* Remember a key, and count `uses` of it (0 or 1), where they are counted. 0 without memory. */
static inline int note_asked(asked_t *asked, uint64_t key, int uses)
{
    asked_part_t *part = &asked->parts[hash_of(key) % ASKED_PARTS];
    uint64_t place = part->keys ? asked_place(part, key) : 0;
    if (!part->keys || !part->keys[place]) {
        if (!reserve_asked(part, asked->counts_uses))
            return 0;
        place = asked_place(part, key);
        part->keys[place] = key ? key : 1;
        part->count++;
    }
    if (part->uses && uses && part->uses[place] < MOST_USES)
        part->uses[place]++;
    return 1;
}

#endif
