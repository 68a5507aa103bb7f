/* Sums of products of codes, four at a time: with the dual 16-bit multiplications of Cortex-M4 and M7 where there are any,
   in plain C elsewhere. Groups of four weights and four codes are met in the order 0, 2, 1, 3: that is how SXTB16 takes
   the bytes of a word apart. Pointers are to multiples of four bytes, but those to activations where it says "anywhere". */
#ifndef CODESIGN_MICROKERNELS_H
#define CODESIGN_MICROKERNELS_H

#include <stdint.h>

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)

static inline uint32_t word_at(const void *from)
{
    uint32_t word;

    (void)__builtin_memcpy(&word, from, sizeof word);
    return word;
}

static inline uint32_t bytes_0_2(uint32_t word)
{
    uint32_t halves;

    __asm__("sxtb16 %0, %1" : "=r"(halves) : "r"(word));
    return halves;
}

static inline uint32_t bytes_1_3(uint32_t word)
{
    uint32_t halves;

    __asm__("sxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(word));
    return halves;
}

/* Every group of four codes (anywhere) as two pairs of 16-bit numbers, so many pairs apart as there are pixels. */
static inline void expand_codes(int16_t *columns, const int8_t *codes, int32_t groups, int32_t pixels)
{
    uint32_t *to = (uint32_t *)(void *)columns;
    const int8_t *const end = codes + 4 * groups;

    for (; codes != end; codes += 4) {
        const uint32_t word = word_at(codes);
        to[0] = bytes_0_2(word);
        to[pixels] = bytes_1_3(word);
        to += 2 * pixels;
    }
}

/* Adds two products of 16-bit numbers to a sum. */
static inline int32_t multiply_pairs(int32_t sum, uint32_t w, uint32_t x)
{
    int32_t result;

    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(w), "r"(x), "r"(sum));
    return result;
}

/* Adds four products to the sum of a channel and a pixel: a group of weights (anywhere), a group of codes in pairs. */
static inline int32_t multiply_group(int32_t sum, const int8_t *weights, uint32_t x0, uint32_t x1)
{
    const uint32_t word = word_at(weights);

    return multiply_pairs(multiply_pairs(sum, bytes_0_2(word), x0), bytes_1_3(word), x1);
}

/* Adds the products of as many channels and pixels as the name says: sums of (channel 0, pixel 0), (0, 1), (1, 0), ... */
static inline void multiply_1x1(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    const uint32_t *x = (const uint32_t *)(const void *)columns;
    const int8_t *const end = weights + 4 * groups;
    int32_t a = sums[0];

    for (; weights != end; weights += 4) {
        a = multiply_group(a, weights, x[0], x[1]);
        x += 2;
    }
    sums[0] = a;
}

static inline void multiply_2x1(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    const uint32_t *x = (const uint32_t *)(const void *)columns;
    const int8_t *const end = weights + 8 * groups;
    int32_t a = sums[0];
    int32_t b = sums[1];

    for (; weights != end; weights += 8) {
        a = multiply_group(a, weights, x[0], x[1]);
        b = multiply_group(b, weights + 4, x[0], x[1]);
        x += 2;
    }
    sums[0] = a;
    sums[1] = b;
}

static inline void multiply_4x1(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    const uint32_t *x = (const uint32_t *)(const void *)columns;
    const int8_t *const end = weights + 16 * groups;
    int32_t a = sums[0];
    int32_t b = sums[1];
    int32_t c = sums[2];
    int32_t d = sums[3];

    for (; weights != end; weights += 16) {
        a = multiply_group(a, weights, x[0], x[1]);
        b = multiply_group(b, weights + 4, x[0], x[1]);
        c = multiply_group(c, weights + 8, x[0], x[1]);
        d = multiply_group(d, weights + 12, x[0], x[1]);
        x += 2;
    }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

static inline void multiply_1x2(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    const uint32_t *x = (const uint32_t *)(const void *)columns;
    const int8_t *const end = weights + 4 * groups;
    int32_t a = sums[0];
    int32_t b = sums[1];

    for (; weights != end; weights += 4) {
        a = multiply_group(a, weights, x[0], x[2]);
        b = multiply_group(b, weights, x[1], x[3]);
        x += 4;
    }
    sums[0] = a;
    sums[1] = b;
}

/* Adds the products of two channels and two pixels: sums of (channel 0, pixel 0), (0, 1), (1, 0), (1, 1). */
static inline void multiply_2x2(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    const int8_t *const end = weights + 8 * groups;
    int32_t a = sums[0];
    int32_t b = sums[1];
    int32_t c = sums[2];
    int32_t d = sums[3];
    uint32_t x0;
    uint32_t x1;
    uint32_t w0;
    uint32_t w1;
    uint32_t h;

    __asm__ volatile(
        "1:\n\t"
        "ldrd %[w0], %[w1], [%[w]], #8\n\t"
        "ldrd %[x0], %[x1], [%[x]], #8\n\t"
        "sxtb16 %[h], %[w0]\n\t"
        "smlad %[a], %[h], %[x0], %[a]\n\t"
        "smlad %[b], %[h], %[x1], %[b]\n\t"
        "sxtb16 %[h], %[w1]\n\t"
        "smlad %[c], %[h], %[x0], %[c]\n\t"
        "smlad %[d], %[h], %[x1], %[d]\n\t"
        "ldrd %[x0], %[x1], [%[x]], #8\n\t"
        "sxtb16 %[w0], %[w0], ror #8\n\t"
        "smlad %[a], %[w0], %[x0], %[a]\n\t"
        "smlad %[b], %[w0], %[x1], %[b]\n\t"
        "sxtb16 %[w1], %[w1], ror #8\n\t"
        "smlad %[c], %[w1], %[x0], %[c]\n\t"
        "smlad %[d], %[w1], %[x1], %[d]\n\t"
        "cmp %[w], %[end]\n\t"
        "bne 1b"
        : [x] "+r"(columns), [w] "+r"(weights), [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [x0] "=&r"(x0),
          [x1] "=&r"(x1), [w0] "=&r"(w0), [w1] "=&r"(w1), [h] "=&r"(h)
        : [end] "r"(end)
        : "cc", "memory");
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

/* Adds the products of four channels' codes (anywhere) with their weights. */
static inline void multiply_4(int32_t *sums, const int8_t *weights, const int8_t *codes)
{
    typedef struct {
        int8_t bytes[4];
    } four_t;
    uint32_t x;
    uint32_t w;
    uint32_t h;
    uint32_t g;

    /* Volatile, so that the loads of many taps are not all done first, which no processor has the registers for. */
    __asm__ volatile(
        "ldr %[x], %[codes]\n\t"
        "ldr %[w], %[weights]\n\t"
        "sxtb16 %[h], %[x]\n\t"
        "sxtb16 %[g], %[w]\n\t"
        "sxtb16 %[x], %[x], ror #8\n\t"
        "sxtb16 %[w], %[w], ror #8\n\t"
        "smlabb %[a], %[h], %[g], %[a]\n\t"
        "smlatt %[c], %[h], %[g], %[c]\n\t"
        "smlabb %[b], %[x], %[w], %[b]\n\t"
        "smlatt %[d], %[x], %[w], %[d]"
        : [x] "=&r"(x), [w] "=&r"(w), [h] "=&r"(h), [g] "=&r"(g), [a] "+r"(sums[0]), [b] "+r"(sums[1]),
          [c] "+r"(sums[2]), [d] "+r"(sums[3])
        : [codes] "m"(*(const four_t *)(const void *)codes), [weights] "m"(*(const four_t *)(const void *)weights));
}

/* The nearest codes an int8 and a ReLU have. */
static inline int32_t saturated_8(int32_t value)
{
    int32_t result;

    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(value));
    return result;
}

static inline int32_t saturated_7(int32_t value)
{
    int32_t result;

    __asm__("usat %0, #7, %1" : "=r"(result) : "r"(value));
    return result;
}

#else

static inline void expand_codes(int16_t *columns, const int8_t *codes, int32_t groups, int32_t pixels)
{
    for (int32_t group = 0; group < groups; ++group) {
        int16_t *const to = columns + 4 * pixels * group;
        to[0] = codes[4 * group];
        to[1] = codes[4 * group + 2];
        to[2 * pixels] = codes[4 * group + 1];
        to[2 * pixels + 1] = codes[4 * group + 3];
    }
}

/* Adds four products to the sum of a channel and a pixel: a group of weights, the first pair of codes, how far the
   second is. */
static inline int32_t multiply_group(int32_t sum, const int8_t *weights, const int16_t *codes, int32_t second)
{
    return sum + (int32_t)weights[0] * (int32_t)codes[0] + (int32_t)weights[2] * (int32_t)codes[1]
        + (int32_t)weights[1] * (int32_t)codes[second] + (int32_t)weights[3] * (int32_t)codes[second + 1];
}

static inline void multiply_block(
    int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups, int32_t channels, int32_t pixels)
{
    for (int32_t group = 0; group < groups; ++group) {
        for (int32_t channel = 0; channel < channels; ++channel) {
            const int8_t *const own = weights + 4 * (group * channels + channel);
            for (int32_t pixel = 0; pixel < pixels; ++pixel) {
                const int16_t *const codes = columns + 4 * group * pixels + 2 * pixel;
                sums[channel * pixels + pixel] = multiply_group(sums[channel * pixels + pixel], own, codes, 2 * pixels);
            }
        }
    }
}

static inline void multiply_1x1(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    multiply_block(sums, weights, columns, groups, 1, 1);
}

static inline void multiply_2x1(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    multiply_block(sums, weights, columns, groups, 2, 1);
}

static inline void multiply_4x1(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    multiply_block(sums, weights, columns, groups, 4, 1);
}

static inline void multiply_1x2(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    multiply_block(sums, weights, columns, groups, 1, 2);
}

static inline void multiply_2x2(int32_t *sums, const int8_t *weights, const int16_t *columns, int32_t groups)
{
    multiply_block(sums, weights, columns, groups, 2, 2);
}

static inline void multiply_4(int32_t *sums, const int8_t *weights, const int8_t *codes)
{
    for (int32_t at = 0; at < 4; ++at) {
        sums[at] += (int32_t)weights[at] * (int32_t)codes[at];
    }
}

static inline int32_t saturated_8(int32_t value)
{
    const int32_t low = (value < -128) ? -128 : value;

    return (low > 127) ? 127 : low;
}

static inline int32_t saturated_7(int32_t value)
{
    const int32_t low = (value < 0) ? 0 : value;

    return (low > 127) ? 127 : low;
}

#endif

/* A product added to a sum: in one instruction, rounded once, where the processor has it. */
static inline float multiply_add(float sum, float a, float b)
{
#if defined(__GNUC__) && (defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMAF))
    return __builtin_fmaf(a, b, sum);
#else
    return sum + (a * b);
#endif
}

/* A sum to which half of 2^shift was added, divided by 2^shift (shift: 1 to 31) and rounded half to even: only where no
   bit is left below was the half one too many for an odd result. */
static inline int32_t rounded_shift(int32_t sum, int32_t shift)
{
    const int32_t whole = sum >> shift;
    const uint32_t left = (uint32_t)sum << (32 - shift);

    return (left == 0U) ? (whole & ~1) : whole;
}

#endif
