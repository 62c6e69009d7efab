/* CRC32C (Castagnoli, RFC 3720 appendix B.4), by the processor where it can: SSE4.2's or ARMv8's instruction, three
 * cycles for eight bytes. Switched on for these functions only, and asked for at run time, so the rest of the build needs
 * no -msse4.2. Elsewhere by a table. */
#ifndef CPRO_CRC32C_H
#define CPRO_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t cpro_crc_table[256];
static int cpro_crc_by_processor;

/* `crc` goes in and out as it is between bytes: callers invert it at both ends. */
static inline uint32_t cpro_crc_by_table(uint32_t crc, const uint8_t *data, size_t size)
{
    while (size--)
        crc = cpro_crc_table[(crc ^ *data++) & 0xff] ^ (crc >> 8);
    return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#define CPRO_CRC_TARGET __attribute__((target("sse4.2")))
#define CPRO_CRC_8(crc, word) ((uint32_t)_mm_crc32_u64(crc, word))
#define CPRO_CRC_1(crc, byte) _mm_crc32_u8(crc, byte)
#define CPRO_CRC_HERE __builtin_cpu_supports("sse4.2")
#elif defined(__aarch64__)
#include <sys/auxv.h>
/* Assembly, because GCC and Clang name the builtins differently. */
#define CPRO_CRC_ARM(name, instruction, type, width) \
    static inline uint32_t name(uint32_t crc, type data) \
    { \
        __asm__(".arch_extension crc\n\t" instruction " %w0, %w0, %" width "1" : "+r"(crc) : "r"(data)); \
        return crc; \
    }
CPRO_CRC_ARM(cpro_crc_8, "crc32cx", uint64_t, "x")
CPRO_CRC_ARM(cpro_crc_1, "crc32cb", uint32_t, "w")
#define CPRO_CRC_TARGET
#define CPRO_CRC_8(crc, word) cpro_crc_8(crc, word)
#define CPRO_CRC_1(crc, byte) cpro_crc_1(crc, byte)
#define CPRO_CRC_HERE ((getauxval(AT_HWCAP) & (1 << 7)) != 0) /* HWCAP_CRC32 */
#endif

#if defined(CPRO_CRC_TARGET)
CPRO_CRC_TARGET static uint32_t cpro_crc_by_instruction(uint32_t crc, const uint8_t *data, size_t size)
{
    uint64_t word;
    for (; size >= 8; size -= 8, data += 8) {
        memcpy(&word, data, 8);
        crc = CPRO_CRC_8(crc, word);
    }
    while (size--)
        crc = CPRO_CRC_1(crc, *data++);
    return crc;
}
#else
#define CPRO_CRC_HERE 0
#define cpro_crc_by_instruction cpro_crc_by_table
#endif

/* Once, before the first use. */
static inline void cpro_crc_start(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
        cpro_crc_table[byte] = crc;
    }
    cpro_crc_by_processor = CPRO_CRC_HERE != 0;
}

/* Seed 0: the CRC32C everybody knows. */
static inline uint32_t cpro_crc32c(uint32_t seed, const uint8_t *data, size_t size)
{
    return ~(cpro_crc_by_processor ? cpro_crc_by_instruction(~seed, data, size) : cpro_crc_by_table(~seed, data, size));
}

#endif
