/* What machine.c and product.c share. */
#ifndef MACHINE_H
#define MACHINE_H

#include "executor.h"

/* A block of keys between SCORES and CONTEXT. */
struct block {
    struct block *next;
    size_t keys;
    uint8_t *probabilities; /* key after key in the order of windows, rows side by side */
    unsigned *growth;       /* of each row */
    uint32_t *multiplier, *shift;
};

struct machine {
    struct hardware hardware;
    uint8_t *image;
    size_t size;
    uint32_t length;
    store_hook *hook;
    void *context;
    uint8_t *memories[4];
    uint8_t *windows; /* those that stay on chip: of each word of the image at its place, for want of a ring */
    struct softmax_row *softmax;
    struct block *first, *last;
    int32_t *sums;
    size_t columns_of_sums;
    uint64_t saturated[4];
};

enum saturated { OF_SCORES, OF_SUMS, OF_NORMS, OF_RESULTS };

uint32_t bits(uint32_t word, unsigned first, unsigned count);
bool inside(const struct machine *m, uint32_t address, uint64_t bytes);
int32_t read16(const uint8_t *bytes);
void count_ends(struct machine *m, enum saturated which, const int16_t *values, size_t count, size_t together,
                int limit);
enum error store_column(struct machine *m, uint32_t address, const int16_t *values, size_t bytes, uint32_t before,
                        uint32_t after);

/* product.c: PRODUCT, SCORES and CONTEXT. */
enum error product(struct machine *m, const struct instruction *i);

#endif
