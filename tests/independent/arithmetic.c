/* docs/numerics.md, in its own order. C99 leaves the shift of a negative number to the compiler; floor_shift does not. */
#include "executor.h"

#include <math.h>

int64_t floor_shift(int64_t value, unsigned places)
{
    return value >= 0 ? value >> places : -((-value - 1) >> places) - 1;
}

int64_t saturate(int64_t value, int64_t limit)
{
    return value > limit ? limit : value < -limit ? -limit : value;
}

int32_t requantize(int32_t sum, int32_t bias, uint32_t multiplier, uint32_t shift, bool wide)
{
    unsigned places = 12 + 4 * shift;
    int64_t product = ((int64_t)sum + bias) * (int64_t)multiplier;
    return (int32_t)saturate(floor_shift(product + ((int64_t)1 << (places - 1)), places), wide ? 32767 : 127);
}

int32_t scaled(int32_t value, uint32_t multiplier)
{
    return (int32_t)floor_shift((int64_t)value * (int64_t)multiplier + (1 << 15), 16);
}

void softmax_begin(struct softmax_row *row)
{
    row->exponent = -4096;
    row->remainder = 1u << 15;
    row->sum = 0;
}

unsigned softmax_block(struct softmax_row *row, const int32_t *logits, const bool *valid, size_t count, uint8_t *to)
{
    int32_t before = row->exponent;
    for (size_t i = 0; i < count; i++) {
        int32_t whole = (int32_t)floor_shift(logits[i], 6);
        if (valid[i] && whole + 1 > row->exponent)
            row->exponent = whole + 1;
    }
    unsigned growth = (unsigned)(row->exponent - before);
    if (growth > 31)
        growth = 31;
    row->sum >>= growth;
    for (size_t i = 0; i < count; i++) {
        uint32_t fine = 0;
        if (valid[i]) {
            int32_t whole = (int32_t)floor_shift(logits[i], 6);
            uint32_t fraction = (uint32_t)(logits[i] - 64 * whole);
            uint32_t power = (uint32_t)round(exp2(fraction / 64.0) * 32768.0);
            int32_t places = row->exponent - 1 - whole;
            fine = (power << 8) >> (places > 31 ? 31 : places);
        }
        row->remainder += fine & 0xFFFF;
        to[i] = (uint8_t)((fine >> 16) + (row->remainder >> 16));
        row->remainder &= 0xFFFF;
        row->sum += (uint64_t)to[i] * 256;
    }
    return growth;
}

void softmax_end(const struct softmax_row *row, unsigned gain, uint32_t *multiplier, uint32_t *shift)
{
    *multiplier = *shift = 0;
    if (!row->sum)
        return;
    int highest = 0;
    while (row->sum >> (highest + 1))
        highest++;
    uint64_t index = (row->sum << 10 >> highest) - 1024;
    uint64_t mantissa = (uint64_t)round(65536.0 / (1.0 + ((double)index + 0.5) / 1024.0));
    int places = highest + 8 - (int)gain;
    int steps = (places - 12) / 4 > 7 ? 7 : (places - 12) / 4;
    *shift = (uint32_t)steps;
    *multiplier = (uint32_t)(((mantissa << 1 >> (places - 12 - 4 * steps)) + 1) >> 1);
}

void layer_norm(const int16_t *x, size_t width, uint64_t inverse, const struct norm_column *columns, size_t step,
                int16_t *wide, int8_t *narrow, int limit)
{
    int64_t sum = 0, squares = 0;
    for (size_t i = 0; i < width; i++) {
        sum += x[i * step];
        squares += (int64_t)x[i * step] * x[i * step];
    }
    int64_t variance = (int64_t)width * squares - sum * sum;
    uint64_t size = (uint64_t)(sum < 0 ? -sum : sum);
    int64_t mean = (int64_t)((size * inverse + (1ull << 31)) >> 32);
    if (sum < 0)
        mean = -mean;
    int64_t root = 0;
    int log_width = 0, places = 0;
    while (width >> (log_width + 1))
        log_width++;
    if (variance) {
        int highest = 0;
        while (variance >> (highest + 1))
            highest++;
        int64_t fraction = (highest >= 9 ? variance >> (highest - 9) : variance << (9 - highest)) & 511;
        double middle = (1.0 + ((double)fraction + 0.5) / 512.0) * (highest % 2 ? 2.0 : 1.0);
        root = (int64_t)round(65536.0 / sqrt(middle));
        places = highest / 2 + 5 - log_width;
        if (places < 0)
            places = 0;
    }
    for (size_t i = 0; i < width; i++) {
        int64_t half = places ? (int64_t)1 << (places - 1) : 0;
        int64_t normal = saturate(floor_shift((2 * x[i * step] - mean) * root + half, (unsigned)places), 131071);
        int64_t value = floor_shift(normal * columns[i].scale + (1 << 15), 16) + columns[i].shift;
        int16_t result = (int16_t)saturate(value, limit);
        wide[i * step] = result;
        narrow[i * step] = (int8_t)saturate(scaled(result, columns[i].multiplier), 127);
    }
}
