/* A second executor of programs, in C99, from the documents alone: docs/isa.md, docs/numerics.md, docs/format.md and
 * docs/image.md. It shares nothing with sta_hw: what both compute alike, the documents say. */
#ifndef EXECUTOR_H
#define EXECUTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* docs/registers.md, "Errors". */
enum error { NONE, HEADER, HARDWARE, OPCODE, ADDRESS, READ, WRITE, ENGINE };

/* docs/isa.md, "Fields", and the codes below it. */
enum opcode { HALT = 1, LOAD, PRODUCT, SCORES, CONTEXT, NORM, SET, LOOP, NEXT };
enum result { STORE8, STORE16, ACTIVATE, RESIDUAL, TRANSPOSE };
enum target { VALUES, POSITIONS, PARAMETERS, TABLE, SHORT_PARAMETERS };
enum encoding { DENSE, INDEX, BITMAP };

/* What the image's JSON says of the hardware. */
struct hardware {
    uint32_t rows, groups, window, bus, drain_lanes, columns;
    uint32_t weight_words, position_words, parameter_words, window_words;
    bool has_index, has_bitmap, has_digits, has_blocks;
    uint64_t hash;
};

/* An instruction as it is issued: its words' lower parts, registers added, and their upper parts. */
struct instruction {
    uint32_t number, opcode;
    uint32_t low[8], high[8];
};

/* description.c: a number of the image's JSON by its path, "hardware.rows"; exits if there is none. */
uint64_t json_number(const char *text, const char *path);
/* Whether the list at that path has this string; no list has none. */
bool json_lists(const char *text, const char *path, const char *wanted);

/* arithmetic.c: docs/numerics.md. */
int64_t floor_shift(int64_t value, unsigned places);
int64_t saturate(int64_t value, int64_t limit);
int32_t requantize(int32_t sum, int32_t bias, uint32_t multiplier, uint32_t shift, bool wide);
int32_t scaled(int32_t value, uint32_t multiplier);

/* One row of the softmax, block after block. */
struct softmax_row {
    int32_t exponent;
    uint32_t remainder;
    uint64_t sum;
};
void softmax_begin(struct softmax_row *row);
/* A block's probabilities, and by how much it raised the exponent (at most 31). */
unsigned softmax_block(struct softmax_row *row, const int32_t *logits, const bool *valid, size_t count, uint8_t *to);
/* The reciprocal of the row's sum as a requantization. */
void softmax_end(const struct softmax_row *row, unsigned gain, uint32_t *multiplier, uint32_t *shift);

struct norm_column {
    int32_t scale, shift;
    uint32_t multiplier;
};
/* LayerNorm of one row of `width` values, `step` apart in all three; wide results up to `limit`. */
void layer_norm(const int16_t *x, size_t width, uint64_t inverse, const struct norm_column *columns, size_t step,
                int16_t *wide, int8_t *narrow, int limit);

/* fetch.c: the program's instructions in their order, loops and registers done with. */
struct fetch {
    const uint8_t *words;
    uint32_t count, at, issued;
    uint32_t rows, groups, window, bus, window_words; /* of the hardware */
    bool has_digits, has_blocks;
    uint64_t stay_begin, stay_end;              /* addresses of the windows that stay on chip */
    uint32_t registers[16];
    struct { uint32_t body, turns; } loops[8];
    unsigned depth;
};
enum error fetch_begin(struct fetch *fetch, const struct hardware *hardware, const uint8_t *image, size_t size,
                       uint64_t address, uint32_t length);
enum error fetch_next(struct fetch *fetch, struct instruction *instruction);

/* weights.c: docs/format.md. Values are beats of `groups` bytes, positions beats of groups * window bits, as an
 * instruction read them; the matrix has passes * groups * depth weights for each column. */
struct weights {
    uint32_t passes, columns, depth, n, m_log2, encoding;
    uint64_t value_beats, position_beats;
    const uint8_t *values, *positions;
};
/* Whether `words` words are as many as `entries` values of 4 bits in runs of `run` take; their values, if they are. */
bool expand(const uint8_t *words, uint64_t count, uint64_t entries, uint32_t run, bool wide,
            const struct hardware *hardware,
            uint8_t *values);
bool weights_legal(const struct weights *weights, const struct hardware *hardware);
enum error decode(const struct weights *weights, const struct hardware *hardware, int8_t *matrix);

/* machine.c and product.c: what the instructions do. */
struct machine;
typedef void store_hook(void *context, uint32_t address, const uint8_t *data, size_t bytes);
struct machine *machine_new(const struct hardware *hardware, uint8_t *image, size_t size, uint32_t length,
                            store_hook *hook, void *context);
enum error machine_run(struct machine *machine, const struct instruction *instruction);
/* scores, sums, norms, results: docs/numerics.md, "Saturation". */
const uint64_t *machine_saturated(const struct machine *machine);

/* main.c: memory that is there, or the end. */
void *room(size_t count, size_t size);
void fail(const char *format, ...);

#endif
