/* The queues of one tier: which block leaves it next, by each of the policies.
 *
 * A tier knows nothing of those beside it, nor of requests. Nothing here touches a Python object. _queues.py does the
 * same without a compiler.
 */
#ifndef KVBENCH_QUEUES_H
#define KVBENCH_QUEUES_H

#include "_blocks.h"
#include "_ghosts.h"

/* In the order of settings.POLICIES. */
enum { LRU, FIFO, LFU, S3_FIFO, TWO_Q, POLICY_COUNT };

enum { S3_MOST_USES = 3, S3_TO_MAIN = 2 };

/* Blocks that were asked for equally often, in the order in which they came to that number. */
typedef struct {
    uint64_t times;
    list_t list;
    uint32_t rarer, commoner;
} bucket_t;

typedef struct {
    int tier, policy, is_modelled;
    uint64_t capacity, held;
    uint64_t kept; /* places that are taken by what is in no queue */
    list_t queues[2]; /* lru, fifo: the first alone; s3-fifo: small and main; 2q: new and again */
    uint64_t most[2]; /* blocks of each of the two queues */
    int was_full;
    ghosts_t ghosts;
    bucket_t *buckets; /* from number 1 on */
    uint64_t bucket_room, buckets_begun, buckets_used;
    uint32_t spare_bucket, rarest; /* spare ones are linked by `commoner` */
} tier_t;

static void set_up_tier(tier_t *tier, int number, int policy, uint64_t capacity, int is_modelled)
{
    *tier = (tier_t){.tier = number, .policy = policy, .capacity = capacity, .is_modelled = is_modelled};
    tier->buckets_begun = 1;
    if (policy == S3_FIFO) {
        tier->most[0] = capacity / 10 > 1 ? capacity / 10 : 1;
        tier->most[1] = capacity > tier->most[0] ? capacity - tier->most[0] : 0;
        tier->ghosts.most = capacity * 9 / 10;
    } else if (policy == TWO_Q) {
        tier->most[0] = capacity / 4 > 1 ? capacity / 4 : 1;
        tier->ghosts.most = capacity / 2;
    }
}

static void free_tier(tier_t *tier)
{
    free(tier->ghosts.keys);
    free(tier->ghosts.table.slots);
    free(tier->buckets);
}

/* ---- buckets ----------------------------------------------------------------------------------------------------- */

/* Room for so many more buckets; there are never more than blocks. 0 without memory. */
static int reserve_buckets(tier_t *tier, uint64_t more)
{
    uint64_t wanted = tier->buckets_used + more;
    if (wanted > tier->capacity + 1)
        wanted = tier->capacity + 1;
    return wanted < UINT32_MAX &&
           grow_array((void **)&tier->buckets, &tier->bucket_room, wanted + 1, sizeof(bucket_t));
}

/* Right above `rarer`, or below all where that is none. */
static uint32_t add_bucket(tier_t *tier, uint64_t times, uint32_t rarer)
{
    uint32_t bucket = tier->spare_bucket;
    if (bucket != NONE)
        tier->spare_bucket = tier->buckets[bucket].commoner;
    else
        bucket = (uint32_t)tier->buckets_begun++;
    uint32_t commoner = rarer != NONE ? tier->buckets[rarer].commoner : tier->rarest;
    tier->buckets[bucket] = (bucket_t){.times = times, .rarer = rarer, .commoner = commoner};
    *(rarer != NONE ? &tier->buckets[rarer].commoner : &tier->rarest) = bucket;
    if (commoner != NONE)
        tier->buckets[commoner].rarer = bucket;
    tier->buckets_used++;
    return bucket;
}

static void drop_bucket(tier_t *tier, uint32_t bucket)
{
    uint32_t rarer = tier->buckets[bucket].rarer, commoner = tier->buckets[bucket].commoner;
    *(rarer != NONE ? &tier->buckets[rarer].commoner : &tier->rarest) = commoner;
    if (commoner != NONE)
        tier->buckets[commoner].rarer = rarer;
    tier->buckets[bucket].commoner = tier->spare_bucket;
    tier->spare_bucket = bucket;
    tier->buckets_used--;
}

static void put_in_bucket(const blocks_t *blocks, tier_t *tier, uint32_t block, uint32_t bucket)
{
    append_to(blocks, &tier->buckets[bucket].list, block, tier->tier);
    *bucket_of(blocks, block, tier->tier) = bucket;
}

static void take_from_bucket(const blocks_t *blocks, tier_t *tier, uint32_t block)
{
    uint32_t bucket = *bucket_of(blocks, block, tier->tier);
    take_from(blocks, &tier->buckets[bucket].list, block, tier->tier);
    if (!tier->buckets[bucket].list.count)
        drop_bucket(tier, bucket);
}

static void count_in_bucket(const blocks_t *blocks, tier_t *tier, uint32_t block)
{
    uint32_t bucket = *bucket_of(blocks, block, tier->tier), commoner = tier->buckets[bucket].commoner;
    uint64_t times = tier->buckets[bucket].times + 1;
    int is_next = commoner != NONE && tier->buckets[commoner].times == times;
    if (!is_next && tier->buckets[bucket].list.count == 1) {
        /* Alone in its bucket: that counts for it. */
        tier->buckets[bucket].times = times;
        return;
    }
    if (!is_next)
        commoner = add_bucket(tier, times, bucket);
    take_from_bucket(blocks, tier, block);
    put_in_bucket(blocks, tier, block, commoner);
}

/* ---- a tier ------------------------------------------------------------------------------------------------------ */

static inline int is_renewing(const tier_t *tier)
{
    return tier->policy == LRU;
}

/* Whether a ghost of the key was there, which then is no longer. Asked before room is made for the key. */
static inline int came_back(tier_t *tier, uint64_t key)
{
    return tier->ghosts.most && take_ghost(&tier->ghosts, key);
}

static void insert_block(const blocks_t *blocks, tier_t *tier, uint32_t block, int back)
{
    int second = back;
    tier->held++;
    if (tier->policy == LFU) {
        uint32_t rarest = tier->rarest;
        int is_first = rarest != NONE && tier->buckets[rarest].times == 1;
        put_in_bucket(blocks, tier, block, is_first ? rarest : add_bucket(tier, 1, NONE));
        *state_of(blocks, block, tier->tier) = FIRST_QUEUE;
        return;
    }
    if (tier->policy == S3_FIFO && !tier->was_full && tier->queues[0].count >= tier->most[0])
        second = 1;
    append_to(blocks, &tier->queues[second], block, tier->tier);
    *state_of(blocks, block, tier->tier) = second ? SECOND_QUEUE : FIRST_QUEUE;
}

static inline void hit_block(const blocks_t *blocks, tier_t *tier, uint32_t block)
{
    uint8_t *state = state_of(blocks, block, tier->tier);
    switch (tier->policy) {
    case LRU:
        renew_in(blocks, &tier->queues[0], block, tier->tier);
        break;
    case LFU:
        count_in_bucket(blocks, tier, block);
        break;
    case S3_FIFO:
        if (*state / USE < S3_MOST_USES)
            *state += USE;
        break;
    case TWO_Q:
        if (*state == SECOND_QUEUE)
            renew_in(blocks, &tier->queues[1], block, tier->tier);
        break;
    default:
        break;
    }
}

static void remove_block(const blocks_t *blocks, tier_t *tier, uint32_t block)
{
    uint8_t *state = state_of(blocks, block, tier->tier);
    if (tier->policy == LFU)
        take_from_bucket(blocks, tier, block);
    else
        take_from(blocks, &tier->queues[(*state & QUEUE_MASK) == SECOND_QUEUE], block, tier->tier);
    *state = ABSENT;
    tier->held--;
}

static uint32_t s3_victim(const blocks_t *blocks, tier_t *tier, int *is_new)
{
    list_t *small = &tier->queues[0], *main = &tier->queues[1];
    tier->was_full = 1;
    if (main->count <= tier->most[1]) {
        while (small->count) {
            uint32_t block = small->oldest;
            if (*state_of(blocks, block, tier->tier) / USE < S3_TO_MAIN) {
                *is_new = 1;
                return block;
            }
            take_from(blocks, small, block, tier->tier);
            append_to(blocks, main, block, tier->tier);
            *state_of(blocks, block, tier->tier) = SECOND_QUEUE;
        }
    }
    while (*state_of(blocks, main->oldest, tier->tier) >= USE) {
        *state_of(blocks, main->oldest, tier->tier) -= USE;
        renew_in(blocks, main, main->oldest, tier->tier);
    }
    return main->oldest;
}

/* The block that leaves next, of a tier that holds one; `*is_new` where it is to be remembered as a ghost. Asked again
 * before anything else is done to the tier, it is the same. */
static uint32_t next_victim(const blocks_t *blocks, tier_t *tier, int *is_new)
{
    *is_new = 0;
    switch (tier->policy) {
    case LFU:
        return tier->buckets[tier->rarest].list.oldest;
    case S3_FIFO:
        return s3_victim(blocks, tier, is_new);
    case TWO_Q:
        *is_new = tier->queues[0].count > tier->most[0] || !tier->queues[1].count;
        return tier->queues[!*is_new].oldest;
    default:
        return tier->queues[0].oldest;
    }
}

/* That block, taken out of the tier; `*is_forgotten` where memory was lacking to remember it as a ghost. */
static uint32_t evict_block(const blocks_t *blocks, tier_t *tier, int *is_forgotten)
{
    int is_new;
    uint32_t block = next_victim(blocks, tier, &is_new);
    remove_block(blocks, tier, block);
    if (is_new && !add_ghost(&tier->ghosts, block_key(blocks, block)))
        *is_forgotten = 1;
    return block;
}

#endif
