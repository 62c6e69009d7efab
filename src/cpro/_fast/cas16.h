/* The few machine words the tables are made of: 16-byte compare-and-swap, tear-free 8-byte loads and stores.
 *
 * x86-64: cmpxchg16b, switched on for this one function, so that the rest of the build needs no -mcx16 and no libatomic
 * (GCC turns only the __sync builtins into the instruction; __atomic on 16 bytes calls libatomic, which may lock).
 * aarch64: the same builtin is LDXP/STXP or CASP. Both are full barriers. */
#ifndef CPRO_CAS16_H
#define CPRO_CAS16_H

#include <stdint.h>

#if defined(__x86_64__)
#define CPRO_CX16 __attribute__((target("cx16")))
#elif defined(__aarch64__)
#define CPRO_CX16
#else
#error "cpro needs a 16-byte compare-and-swap: x86-64 or aarch64"
#endif

typedef unsigned __int128 cpro_u128;

/* 1 if the 16-aligned pair at `at` held (tag, value) and now holds (new_tag, new_value); 0 if it held another. */
CPRO_CX16 static inline int cpro_cas16(void *at, uint64_t tag, int64_t value, uint64_t new_tag, int64_t new_value)
{
    cpro_u128 old = ((cpro_u128)(uint64_t)value << 64) | tag; /* little endian: the tag lies first */
    cpro_u128 fresh = ((cpro_u128)(uint64_t)new_value << 64) | new_tag;
    return __sync_val_compare_and_swap((cpro_u128 *)at, old, fresh) == old;
}

/* The same for one word; both are full barriers where they store. */
static inline int cpro_cas64(uint64_t *at, uint64_t old, uint64_t fresh)
{
    return __atomic_compare_exchange_n(at, &old, fresh, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline uint64_t cpro_swap64(uint64_t *at, uint64_t fresh)
{
    return __atomic_exchange_n(at, fresh, __ATOMIC_SEQ_CST);
}

/* What was stored before it is seen by others before what is loaded after it is read. */
static inline void cpro_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

static inline uint64_t cpro_load_u64(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline int64_t cpro_load_i64(const int64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline void cpro_store_u64(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
static inline uint64_t cpro_read_u64(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
static inline void cpro_write_u64(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }
static inline void cpro_count(uint64_t *at) { __atomic_fetch_add(at, 1, __ATOMIC_RELAXED); }
static inline void cpro_prefetch(const void *at) { __builtin_prefetch(at, 0, 3); }

/* floor(word / 2^64 * range): a uniform word becomes an index without a division (Lemire 2018). */
static inline uint64_t cpro_scale(uint64_t word, uint64_t range) { return (uint64_t)(((cpro_u128)word * range) >> 64); }

/* count * unit, at most 2^62: more than any bucket holds, and room to subtract from it without overflow. */
static inline int64_t cpro_saturated(int64_t count, int64_t unit)
{
    const int64_t most = INT64_C(1) << 62;
    int64_t product;
    return __builtin_mul_overflow(count, unit, &product) || product > most ? most : product;
}

/* ceil(part * whole / of), or `whole` where that is more; all of them positive. */
static inline int64_t cpro_share(int64_t part, int64_t whole, int64_t of)
{
    cpro_u128 share = ((cpro_u128)(uint64_t)part * (uint64_t)whole + (uint64_t)of - 1) / (uint64_t)of;
    return share > (cpro_u128)(uint64_t)whole ? whole : (int64_t)share;
}

#endif
